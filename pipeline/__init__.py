"""soundspot's library: from video files to a scored sound-localization model.

Data: `manifests` (clip lists and boxes), `datasets` (importers and the demo), `media` (decoding), `extraction` (clips →
shards), `shards` (their file format). Training: `model` (encoders and equations), `features` (of a frozen encoder,
stored), `pseudo_labels`, `methods` (losses), `training`. Results: `scoring` (maps and boxes → metrics), `evaluation` (model → scores), `figures`, `report`.
Around them: `common` (settings, files, paths), `apps` (checking, localizing, exporting), `search` (settings for all rows), `cli` (the `soundspot` command).
"""

import os

__version__ = "0.2.0"

# torch and NumPy read these when they are imported, so they must come first. Threads that spin while they wait for each other make
# a training step ten times slower as soon as another process wants a core, and cost a video encoder half a core (measured on two
# cores). On an idle machine, passive waiting costs nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")  # NumPy's; 2**4 rounds of spinning are the fewest
# Large tensors in large pages: a step on a CPU takes a tenth less, and more where several processes train.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# cuBLAS is deterministic only with a workspace of its own per stream. torch looks once, at the first matrix product on a GPU.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
