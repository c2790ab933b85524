import numpy as np
import pytest

from medmtl.data.preprocessing import Preprocessing
from medmtl.models.warnings import choice_in_words, mask_warnings, verdict_warnings

PREPROCESSING = Preprocessing((1.0, 2.0, 3.0), None)
GRID = np.diag([1.0, 2.0, 3.0, 1.0])


def mask_at(*places: tuple[int, int, int]) -> np.ndarray:
    mask = np.zeros((5, 6, 7), dtype=np.uint8)
    for place in places:
        mask[place] = 1
    return mask


def test_there_is_no_warning_about_a_mask_within_the_image() -> None:
    assert mask_warnings(mask_at((1, 1, 1), (3, 4, 5)), GRID, PREPROCESSING) == []


def test_an_empty_mask() -> None:
    assert mask_warnings(mask_at(), GRID, PREPROCESSING) == ["the mask is empty"]


@pytest.mark.parametrize("place", [(0, 2, 2), (4, 2, 2), (2, 0, 2), (2, 5, 2), (2, 2, 0), (2, 2, 6)])
def test_a_mask_at_any_side_of_the_image(place: tuple[int, int, int]) -> None:
    (message,) = mask_warnings(mask_at(place), GRID, PREPROCESSING)
    assert "touches the border" in message


def test_how_preprocessing_was_chosen_is_a_fact_and_no_warning() -> None:
    tried = {PREPROCESSING, Preprocessing((1, 1, 1), None)}
    assert "nearest of 2 preprocessing settings was used" in choice_in_words(PREPROCESSING, tried)
    heads = [PREPROCESSING._replace(head=name) for name in ("Liver", "Spleen")]
    assert choice_in_words(heads[0], heads) == (
        "modality and task are unknown: the output of the nearest of 2 tasks was used"
    )
    assert choice_in_words(PREPROCESSING, [PREPROCESSING]) == ""


@pytest.mark.parametrize("axis", range(3))
def test_voxels_much_coarser_than_the_network_s(axis: int) -> None:
    words = ("right to left", "front to back", "head to foot")[axis]
    for factor, warned in ((0.2, False), (2.0, False), (2.1, True)):
        # The same axis in the image, which is stored feet to head, left to right, back to front.
        sizes = np.array(PREPROCESSING.spacing)
        sizes[axis] *= factor
        affine = np.eye(4)
        affine[:3, :3] = np.diag(sizes * (-1, 1, 1))[:, [2, 0, 1]]
        message = mask_warnings(mask_at((2, 2, 2)), affine, PREPROCESSING)
        assert [words in each for each in message] == [True] * warned
        assert all(
            f"{sizes[axis]:g} mm" in each and f"at {PREPROCESSING.spacing[axis]:g} mm" in each for each in message
        )


def test_a_verdict_that_could_not_be_given() -> None:
    assert verdict_warnings(True, 0.5, 0.05) == verdict_warnings(False, 0.01, 0.05) == []
    assert "alpha = 0.05" in verdict_warnings(None, 0.5, 0.05)[0]
    assert "has no OOD detector" in verdict_warnings(None, None, 0.05)[0]


def test_a_verdict_in_another_precision_than_its_threshold() -> None:
    (message,) = verdict_warnings(True, 0.5, 0.05, "bf16")
    assert message == "the OOD threshold was estimated in 32 bit: with bf16 the p-value may differ"
    assert len(verdict_warnings(None, 0.5, 0.05, "bf16")) == len(verdict_warnings(None, None, 0.05, "16")) == 1
