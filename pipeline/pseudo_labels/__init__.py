"""The pseudo-labels of one epoch: response maps and audio embeddings of every training clip.

- `artifact`: the pseudo-labels in memory. `label_fields`: where their arrays come from: a file, memory, or some rows of either.
- `hdf5_file`: the file ``pseudo_labels/epoch_NNN.h5``.
"""

from pipeline.pseudo_labels.artifact import PseudoLabels

__all__ = ["PseudoLabels"]
