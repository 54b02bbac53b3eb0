"""Augmentation of training pairs; the previous epoch's response maps are transformed like their frames.

Conventions
-----------
Frames on the host are (n, H, W, 3) uint8, log-mels (n, mel, time), response maps (n, h, w); a cell is H / h pixels. Shifts are whole
cells, positive to the bottom right, and applied after the flip. A shift repeats the row or column at the border, in frames and in maps
alike, so both stay aligned to the pixel. The augmentation is ours: the paper does not specify one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.model.transfer import send

LUMA = (0.299, 0.587, 0.114)  # weights of RGB in gray, ITU-R BT.601


@dataclass(frozen=True)
class Changes:
    """The random transformations of n pairs.

    Attributes
    ----------
    flip : np.ndarray (n,) bool
        Mirror left and right.
    down, right : np.ndarray (n,) int64
        Shift in cells.
    roll : np.ndarray (n,) float64 in [0, 1)
        Roll of the log-mel, as a fraction of its length.
    color : Tensor (n, 3) float32
        Factors of brightness, contrast and saturation.
    """

    flip: np.ndarray
    down: np.ndarray
    right: np.ndarray
    roll: np.ndarray
    color: Tensor

    def of(self, part: slice) -> Changes:
        """Return the transformations of some of the pairs."""
        return Changes(self.flip[part], self.down[part], self.right[part], self.roll[part], self.color[part])

    def moved_cells(self, height: int, width: int, *, scale: int = 1) -> np.ndarray:
        """Return, for each position in n grids, the flat index of the position that moves there: (n, height, width) int64.

        `scale` is the number of positions per cell and side: 1 for maps, H / h for frames.
        """
        rows = np.clip(np.arange(height) - scale * self.down[:, None], 0, height - 1)
        cols = np.clip(np.arange(width) - scale * self.right[:, None], 0, width - 1)
        # The flip comes first, so the shifted columns index the mirrored grid.
        cols = np.where(self.flip[:, None], width - 1 - cols, cols)
        first = np.arange(len(self.flip))[:, None, None] * (height * width)
        return first + rows[:, :, None] * width + cols[:, None, :]


def draw_changes(
    n: int, *, flip: bool, shift_cells: int, color_jitter: float, roll_audio: bool, generator: torch.Generator
) -> Changes:
    """Draw the transformations of n pairs.

    Parameters
    ----------
    n : int
    flip : bool
        Mirror half of the frames, on average.
    shift_cells : int >= 0
        Maximum shift in each direction; shifts are uniform.
    color_jitter : float in [0, 1]
        Factors of brightness, contrast and saturation are uniform in 1 ± this.
    roll_audio : bool
        Roll by a uniform fraction of the clip.
    generator : torch.Generator
        On the CPU. All numbers are always drawn, so switching one transformation off does not change the others.
    """
    mirrored = torch.rand(n, generator=generator) < 0.5
    # Every integer in ±shift_cells gets an interval of equal length.
    shifts = torch.floor((2 * torch.rand(n, 2, generator=generator) - 1) * (shift_cells + 0.5) + 0.5).long()
    rolls = torch.rand(n, generator=generator, dtype=torch.float64)
    color = 1 + color_jitter * (2 * torch.rand(n, 3, generator=generator) - 1)
    return Changes(
        flip=mirrored.numpy() & flip,
        down=shifts[:, 0].numpy(),
        right=shifts[:, 1].numpy(),
        roll=rolls.numpy() * roll_audio,
        color=color,
    )


def move_frames(frames: np.ndarray, changes: Changes, *, cell_stride: int) -> np.ndarray:
    """Flip and shift frames (n, H, W, channels), with cells of `cell_stride` pixels."""
    if not (changes.down.any() or changes.right.any()):
        return _mirror(frames, changes.flip)
    height, width, channels = frames.shape[1:]
    places = changes.moved_cells(height, width, scale=cell_stride)
    return np.take(frames.reshape(-1, channels), places.reshape(-1), axis=0).reshape(frames.shape)


def _mirror(frames: np.ndarray, flip: np.ndarray) -> np.ndarray:
    mirrored = frames.copy()
    # torch mirrors pixels of three bytes four times as fast as NumPy, if they are the channels of its own axes.
    mirrored[flip] = torch.from_numpy(frames[flip]).permute(0, 3, 1, 2).flip(3).permute(0, 2, 3, 1).numpy()
    return mirrored


def move_maps(maps: np.ndarray, changes: Changes) -> np.ndarray:
    """Flip and shift response maps (n, h, w) like their frames."""
    return np.take(maps.reshape(-1), changes.moved_cells(*maps.shape[1:]))


def roll_log_mel(log_mel: np.ndarray, changes: Changes) -> np.ndarray:
    """Roll each log-mel (n, mel, time) circularly in time."""
    length = log_mel.shape[2]
    steps = np.floor(changes.roll * length).astype(np.int64)
    rolled = np.empty_like(log_mel)
    for before, after, step in zip(log_mel, rolled, steps, strict=True):
        after[:, :step], after[:, step:] = before[:, length - step :], before[:, : length - step]
    return rolled


def jitter_colors(frames: Tensor, changes: Changes) -> Tensor:
    """Change brightness, contrast and saturation of frames (n, 3, H, W) in 0..255.

    Returns
    -------
    Tensor (n, 3, H, W) float32 in 0..255
    """
    brightness, contrast, saturation = send(changes.color, frames.device).view(-1, 3, 1, 1, 1).unbind(1)
    frames = frames.float() if not frames.is_floating_point() else frames.clone()
    red, green, blue = LUMA
    gray = frames[:, :1] * red + frames[:, 1:2] * green + frames[:, 2:] * blue
    # Contrast interpolates with the frame's mean gray, saturation with the pixel's gray. In place, to save memory bandwidth.
    mean = gray.mean(dim=(1, 2, 3), keepdim=True)
    frames.lerp_(gray, 1 - saturation).mul_(brightness * contrast).add_((1 - contrast) * brightness * mean)
    return frames.clamp_(0, 255)
