"""What is hidden of an image, and the picture of what a model paints there: by hand, without a model."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from hiera_cli.images.recipe import Pixels, normalised
from hiera_cli.tasks.reconstruct import GAP, noise_for, painted, picture

CROP = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
NOISE_0_0 = [0.8506242, 0.6369616, 0.5111365, 0.2697867]
VISIBLE = np.arange(49) % 3 == 0


def patches_of(pixels: Pixels) -> NDArray[np.float64]:
    """(196, 768): patch by patch, in the words of the paper."""
    return np.stack(
        [
            pixels[:, row : row + 16, column : column + 16].reshape(-1)
            for row in range(0, 224, 16)
            for column in range(0, 224, 16)
        ]
    ).astype(np.float64)


def perfect(pixels: Pixels) -> NDArray[np.float32]:
    """What a model predicts that sees all."""
    patches = patches_of(pixels)
    deviation = np.sqrt(patches.var(1, ddof=1, keepdims=True) + 1e-6)
    return ((patches - patches.mean(1, keepdims=True)) / deviation).astype(np.float32)  # type: ignore[no-any-return]


def by_pixel(visible: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.array([[visible[row // 32 * 7 + column // 32] for column in range(224)] for row in range(224)])


@pytest.mark.parametrize("crop", [CROP, np.full_like(CROP, 77)], ids=["noise", "one colour"])
def test_a_perfect_prediction_paints_the_crop(crop: NDArray[np.uint8]) -> None:
    pixels = normalised(crop)
    np.testing.assert_allclose(painted(pixels, perfect(pixels), VISIBLE), pixels, atol=1e-5)
    shown = np.asarray(picture(pixels, perfect(pixels), VISIBLE))
    assert shown.shape == (224, 3 * 224 + 2 * GAP, 3)
    left, middle, right = shown[:, :224], shown[:, 224 + GAP : 448 + GAP], shown[:, 448 + 2 * GAP :]
    np.testing.assert_array_equal(left, crop)
    np.testing.assert_array_equal(middle, np.where(by_pixel(VISIBLE)[..., None], crop, 128))
    np.testing.assert_array_equal(right, crop)
    assert (shown[:, 224 : 224 + GAP] == 255).all()
    assert (shown[:, 448 + GAP : 448 + 2 * GAP] == 255).all()


def test_what_was_shown_stays_and_the_rest_is_painted_patch_by_patch() -> None:
    pixels = normalised(CROP)
    whole = painted(pixels, np.zeros((196, 768), np.float32), VISIBLE)  # nothing but each patch's mean
    np.testing.assert_array_equal(whole[:, by_pixel(VISIBLE)], pixels[:, by_pixel(VISIBLE)])
    hidden = np.kron(~VISIBLE.reshape(7, 7), np.ones((2, 2), bool)).reshape(196)
    means = patches_of(pixels).mean(1, keepdims=True)[hidden]
    np.testing.assert_allclose(patches_of(whole)[hidden], np.broadcast_to(means, (hidden.sum(), 768)), atol=1e-6)


def test_a_prediction_beyond_white_and_black_is_cut_there() -> None:
    shown = np.asarray(picture(normalised(CROP), perfect(normalised(CROP)) * 100, np.zeros(49, bool)))
    assert set(np.unique(shown[:, 448 + 2 * GAP :])) >= {0, 255}
    assert (shown[:, 448 + 2 * GAP :] % 255 == 0).mean() > 0.9


def test_what_is_hidden_depends_on_the_seed_and_the_place_alone() -> None:
    noise = noise_for(7, 3)
    assert (noise.shape, noise.dtype) == ((49,), np.float32)  # type: ignore[comparison-overlap]
    np.testing.assert_array_equal(noise, noise_for(7, 3))
    assert len({noise_for(seed, place).tobytes() for seed in range(20) for place in range(20)}) == 400
    np.testing.assert_allclose(noise_for(0, 0)[:4], NOISE_0_0, atol=1e-6)  # on any machine, in any release
