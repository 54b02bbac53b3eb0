"""soundspot's library: from video files to a scored sound-localisation model. Knows nothing of DVC or of click."""

import os

__version__ = "0.1.0"

# Read when torch is imported, so it stands before all else. Threads that spin while they wait for each other make a training
# step ten times slower as soon as another process wants a core (measured on two); alone, sleeping costs nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Large tensors in large pages: a step on a CPU takes a tenth less, and more where several processes train.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
