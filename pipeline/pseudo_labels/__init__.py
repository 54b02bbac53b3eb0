"""The pseudo-labels of one epoch: response maps and audio embeddings of every training clip.

`artifact` has the artifact in memory, `hdf5_file` the file ``pseudo_labels/epoch_NNN.h5``.
"""

from pipeline.pseudo_labels.artifact import PseudoLabels

__all__ = ["PseudoLabels"]
