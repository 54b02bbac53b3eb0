"""What a dataset consists of: clip lists, boxes, and what the stage `prepare` writes for the stages after it.

- `clips`: one row per clip, and the check that train and test share none
- `ranges`: a clip list in ranges of rows, for jobs that do not hold it in memory. `rows`: lists with named columns, in CSV or `parquet`
- `naming`: clip ids from paths, and which clip a name in a user's list means
- `boxes`: annotated objects of the scored splits
- `prepared`: the clips whose media exist, and the folder of those media
"""

from pipeline.manifests.boxes import Box, read_boxes, write_boxes
from pipeline.manifests.clips import Clip, read_clips, write_clips

__all__ = ["Box", "Clip", "read_boxes", "read_clips", "write_boxes", "write_clips"]
