"""Thumbnails: a picture of every shape of volume, with the label's outline where it lies."""

from io import BytesIO

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from medmtl.report.data.thumbnail import thumbnail
from medmtl.report.style import PALETTE

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(100, 5, (20, 30, 40)).astype(np.float32)


def pixels(png: bytes) -> np.ndarray:
    """`(height, width, 3)` in [0, 1]."""
    return imread(BytesIO(png))[..., :3]


def coloured(picture: np.ndarray, colour: str) -> np.ndarray:
    """Where the picture has about a colour, `(height, width)` bool."""
    return np.abs(picture - to_rgb(colour)).max(axis=-1) < 0.2


def test_the_outlines_have_the_colours_of_their_values_and_lie_around_the_label() -> None:
    label = np.zeros(IMAGE.shape, np.uint8)
    label[5:15, 5:15, 10:30], label[5:15, 15:25, 10:30] = 1, 2
    picture = pixels(thumbnail(IMAGE, label, (1, 1, 1)))
    width = picture.shape[1] * 20 // 70  # the first slice is axial, 20 voxels wide
    axial = picture[:, :width]
    for value, (low, high) in ((1, (5, 15)), (2, (15, 25))):
        rows, columns = np.nonzero(coloured(axial, PALETTE[value - 1]))
        assert columns.min() / width == pytest.approx(5 / 20, abs=0.04)
        assert columns.max() / width == pytest.approx(15 / 20, abs=0.04)
        # 30 voxels upwards in the middle of a picture as high as 40.
        middle = 1 - rows / picture.shape[0]
        assert middle.min() == pytest.approx((5 + low) / 40, abs=0.04)
        assert middle.max() == pytest.approx((5 + high) / 40, abs=0.04)
    assert not coloured(pixels(thumbnail(IMAGE, label == 1, (1, 1, 1))), PALETTE[1]).any()


def test_without_a_label_there_is_no_outline() -> None:
    picture = pixels(thumbnail(IMAGE, None, (1, 1, 1)))
    assert (np.ptp(picture, axis=-1) < 0.01).all()
    assert np.ptp(picture) > 0.5


def test_proportions_are_those_of_the_body_and_empty_margins_are_left_out() -> None:
    plain = pixels(thumbnail(IMAGE, None, (2, 1, 1))).shape
    assert plain[1] / plain[0] == pytest.approx((40 + 40 + 30) / 40, rel=0.04)
    padded = np.pad(IMAGE, 15, constant_values=IMAGE.min() - 1)
    assert pixels(thumbnail(padded, None, (2, 1, 1))).shape == plain


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 5, 6), np.int16),
        np.full((4, 5, 6), np.nan, np.float32),
        np.where(IMAGE > 105, np.inf, IMAGE),
        IMAGE[:1],
        IMAGE > 100,
    ],
)
def test_a_strange_image_has_a_picture_too(image: np.ndarray) -> None:
    label = np.zeros(image.shape, np.int64)
    label[..., :3] = 200
    assert pixels(thumbnail(image, label, (1, 1, 1))).size


def test_the_same_volume_gives_the_same_picture() -> None:
    assert thumbnail(IMAGE, None, (1, 1, 1)) == thumbnail(IMAGE, None, (1, 1, 1))
