import numpy as np
import pytest
import torch

from pipeline.training.augmentation import Changes, draw_changes, jitter_colors, move_frames, move_maps, roll_log_mel

CELL = 4


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def changes(flip=(False,), down=(0,), right=(0,), roll=(0.0,), color=((1.0, 1.0, 1.0),)):
    return Changes(
        flip=np.array(flip),
        down=np.array(down),
        right=np.array(right),
        roll=np.array(roll),
        color=torch.tensor(color),
    )


def draw(n=64, seed=0, **switches):
    values = {"flip": True, "shift_cells": 2, "color_jitter": 0.3, "roll_audio": True, **switches}
    return draw_changes(n, **values, generator=torch.Generator().manual_seed(seed))


def naive_move(grid, flip, down, right, scale):
    """Flip, then shift and repeat the border, position by position."""
    height, width = grid.shape[:2]
    moved = np.empty_like(grid)
    for y in range(height):
        for x in range(width):
            row, col = min(max(y - down * scale, 0), height - 1), min(max(x - right * scale, 0), width - 1)
            moved[y, x] = grid[row, width - 1 - col if flip else col]
    return moved


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("down", "right"), [(0, 0), (1, -2), (-3, 1), (9, 9)])
def test_moves_equal_the_naive_loop(flip, down, right):
    rng = np.random.default_rng(0)
    frames, maps = rng.integers(0, 256, (1, 12, 20, 3), dtype=np.uint8), rng.random((1, 3, 5), dtype=np.float32)
    one = changes((flip,), (down,), (right,))
    np.testing.assert_array_equal(
        move_frames(frames, one, cell_stride=CELL)[0], naive_move(frames[0], flip, down, right, CELL)
    )
    np.testing.assert_array_equal(move_maps(maps, one)[0], naive_move(maps[0], flip, down, right, 1))


def test_frames_of_a_batch_are_mirrored_one_by_one():
    frames = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    before = frames.copy()
    moved = move_frames(frames, changes((True, False, True), (0, 0, 0), (0, 0, 0)), cell_stride=CELL)
    np.testing.assert_array_equal(moved, [frames[0, :, ::-1], frames[1], frames[2, :, ::-1]])
    np.testing.assert_array_equal(frames, before)


def test_maps_move_with_their_frames():
    """A frame that is an upsampled map remains the upsampled map after any move."""
    maps = np.random.default_rng(0).integers(0, 256, (64, 6, 6)).astype(np.uint8)
    frames = np.repeat(np.repeat(maps, CELL, axis=1), CELL, axis=2)[..., None].repeat(3, axis=3)
    many = draw()
    moved = move_frames(frames, many, cell_stride=CELL)
    expected = np.repeat(np.repeat(move_maps(maps, many), CELL, axis=1), CELL, axis=2)
    np.testing.assert_array_equal(moved, expected[..., None].repeat(3, axis=3))
    assert not np.array_equal(moved, frames)


def test_with_everything_off_nothing_changes():
    rng = np.random.default_rng(0)
    frames, log_mel = rng.integers(0, 256, (8, 12, 12, 3), dtype=np.uint8), rng.normal(size=(8, 4, 10))
    none = draw(8, flip=False, shift_cells=0, color_jitter=0.0, roll_audio=False)
    np.testing.assert_array_equal(move_frames(frames, none, cell_stride=CELL), frames)
    np.testing.assert_array_equal(roll_log_mel(log_mel, none), log_mel)
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    torch.testing.assert_close(jitter_colors(pixels, none), pixels.float(), atol=1e-3, rtol=0)


def test_two_flips_are_none():
    frames = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    twice = move_frames(move_frames(frames, changes((True,)), cell_stride=CELL), changes((True,)), cell_stride=CELL)
    np.testing.assert_array_equal(twice, frames)


def test_draws_cover_their_range_evenly():
    many = draw(20_000)
    assert many.flip.mean() == pytest.approx(0.5, abs=0.02)
    for shift in (many.down, many.right):
        values, counts = np.unique(shift, return_counts=True)
        assert values.tolist() == [-2, -1, 0, 1, 2]
        np.testing.assert_allclose(counts / 20_000, 0.2, atol=0.02)
    assert many.color.min() == pytest.approx(0.7, abs=0.01)
    assert many.color.max() == pytest.approx(1.3, abs=0.01)
    assert 0 <= many.roll.min() < 0.01
    assert 0.99 < many.roll.max() < 1


def test_draws_depend_on_the_generator_and_not_on_the_other_switches():
    first, other = draw(), draw(flip=False, color_jitter=0.0)
    np.testing.assert_array_equal(first.down, other.down)
    np.testing.assert_array_equal(first.roll, other.roll)
    np.testing.assert_array_equal(first.down, draw().down)
    assert not np.array_equal(first.down, draw(seed=1).down)


def test_roll_keeps_every_column():
    log_mel = np.arange(2 * 3 * 10, dtype=np.float32).reshape(2, 3, 10)
    rolled = roll_log_mel(log_mel, changes((False,) * 2, (0,) * 2, (0,) * 2, (0.0, 0.35)))
    np.testing.assert_array_equal(rolled[0], log_mel[0])
    np.testing.assert_array_equal(rolled[1], np.roll(log_mel[1], 3, axis=1))


def naive_jitter(pixel, mean, brightness, contrast, saturation):
    gray = 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]
    changed = [saturation * p + (1 - saturation) * gray for p in pixel]
    changed = [contrast * p + (1 - contrast) * mean for p in changed]
    return [min(max(brightness * p, 0), 255) for p in changed]


def test_jitter_equals_the_naive_loop():
    frames = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    factors = ((1.2, 0.7, 0.8), (0.7, 1.3, 1.25))
    jittered = jitter_colors(frames, changes((False,) * 2, (0,) * 2, (0,) * 2, (0.0,) * 2, factors))
    for i in range(2):
        red, green, blue = frames[i].double()
        mean = float((0.299 * red + 0.587 * green + 0.114 * blue).mean())
        for y in range(4):
            for x in range(5):
                expected = naive_jitter(frames[i, :, y, x].tolist(), mean, *factors[i])
                assert jittered[i, :, y, x].tolist() == pytest.approx(expected, abs=1e-2)


def test_jitter_leaves_its_input_alone():
    frames = torch.rand(2, 3, 4, 4) * 255
    before = frames.clone()
    jitter_colors(frames, draw(2))
    assert torch.equal(frames, before)
