"""What is read of one case, and that a case gets an error exactly where a training would refuse it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medmtl.data.case import Case, LabelFile
from medmtl.data.check import check_task
from medmtl.data_tools.facts import Request, look_at
from medmtl.errors import DataError
from medmtl.results.dataset import CaseFacts, Finding

Save = Callable[..., Path]
AFFINE = np.array([[0, -2.0, 0, 10], [0.5, 0, 0, 0], [0, 0, 3.0, 0], [0, 0, 0, 1]])  # stored front, left, head
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(-500, 500, (7, 6, 5)).astype(np.int16)
LABEL = np.zeros(IMAGE.shape, np.uint8)
LABEL[1:4, 2:5, 1:3], LABEL[4, 3, 3] = 1, 2


@pytest.fixture
def case(save_volume: Save) -> Case:
    image, label = save_volume("images/one.nii.gz", IMAGE, AFFINE), save_volume("labels/one.nii.gz", LABEL, AFFINE)
    return Case("one", "p1", (image,), (LabelFile(label),))


def look(
    case: Case, root: Path = Path("/nowhere"), declared: set[int] | None = None
) -> tuple[CaseFacts, list[Finding]]:
    return look_at(Request("Liver", root, case, frozenset(declared or {0, 1, 2})))


def errors(findings: list[Finding]) -> set[str]:
    return {finding.rule for finding in findings if finding.severity == "error"}


def test_what_is_read_is_what_nibabel_and_numpy_say(case: Case, tmp_path: Path) -> None:
    facts, findings = look(case, tmp_path)
    assert not findings
    assert (facts.case, facts.patient, facts.part) == ("one", "p1", "training")
    assert facts.images == ("images/one.nii.gz",)
    header = nib.load(case.images[0]).header
    assert facts.shape == header.get_data_shape()
    assert facts.spacing == header.get_zooms()
    assert facts.axes == "ALS"
    assert facts.spacing_by_axis == {"right-left": 2, "front-back": 0.5, "head-foot": 3}
    assert facts.extent_by_axis == {"right-left": 12, "front-back": 3.5, "head-foot": 15}
    (intensity,) = facts.intensity
    assert list(intensity) == np.quantile(IMAGE, [0, 0.01, 0.5, 0.99, 1], method="nearest").tolist()
    assert facts.volumes_ml == pytest.approx({1: 18 * 3 / 1000, 2: 3 / 1000})
    assert facts.thumbnail.startswith(b"\x89PNG")


def _shifted(save: Save, case: Case) -> None:
    moved = AFFINE.copy()
    moved[0, 3] += 5
    save("labels/one.nii.gz", LABEL, moved)


def _reordered(save: Save, case: Case) -> None:
    save(
        "labels/one.nii.gz", LABEL[::-1], AFFINE @ np.array([[-1, 0, 0, 6], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    )


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


# Damage, and the rule that finds it; None for what training accepts.
DAMAGES: dict[str, tuple[Callable[[Save, Case], Any], str | None]] = {
    "nothing": (lambda save, case: None, None),
    "rounded affine": (lambda save, case: save("labels/one.nii.gz", LABEL, AFFINE + 1e-5 * np.eye(4)), None),
    "label as floating point": (lambda save, case: save("labels/one.nii.gz", LABEL.astype(np.float32), AFFINE), None),
    "image missing": (lambda save, case: case.images[0].unlink(), "unreadable"),
    "label missing": (lambda save, case: case.labels[0].path.unlink(), "unreadable"),
    "image cut short": (lambda save, case: _cut(case.images[0]), "unreadable"),
    "label cut short": (lambda save, case: _cut(case.labels[0].path), "unreadable"),
    "no image": (lambda save, case: case.images[0].write_text("text"), "unreadable"),
    "slice": (lambda save, case: save("images/one.nii.gz", IMAGE[..., 0]), "unreadable"),
    "flat affine": (lambda save, case: save("images/one.nii.gz", IMAGE, AFFINE[:, [0, 0, 2, 3]]), "unreadable"),
    "label too small": (lambda save, case: save("labels/one.nii.gz", LABEL[1:], AFFINE), "shape"),
    "label of four dimensions": (
        lambda save, case: save("labels/one.nii.gz", np.stack([LABEL, LABEL], -1), AFFINE),
        "shape",
    ),
    "label elsewhere": (_shifted, "affine"),
    "label in another order": (_reordered, "affine"),
    "not finite": (
        lambda save, case: save("images/one.nii.gz", np.where(IMAGE.max() == IMAGE, np.nan, IMAGE), AFFINE),
        "not-finite",
    ),
    "constant": (lambda save, case: save("images/one.nii.gz", IMAGE * 0 + 7, AFFINE), "constant"),
    "undeclared": (lambda save, case: save("labels/one.nii.gz", LABEL * 3, AFFINE), "undeclared"),
    "half a label": (lambda save, case: save("labels/one.nii.gz", LABEL * 0.5, AFFINE), "undeclared"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_error_is_what_training_refuses(damage: str, case: Case, save_volume: Save, tmp_path: Path) -> None:
    inflict, rule = DAMAGES[damage]
    inflict(save_volume, case)
    facts, findings = look(case, tmp_path)
    assert errors(findings) == ({rule} if rule else set())
    assert all(str(tmp_path) not in finding.message for finding in findings)
    if rule is None:
        check_task("Liver", [case], [1, 2], {0, 1, 2})
    else:
        with pytest.raises(DataError):
            check_task("Liver", [case], [1, 2], {0, 1, 2})
    assert facts.case == "one"


def test_values_that_are_not_finite_are_counted(case: Case, save_volume: Save) -> None:
    voxels = IMAGE.astype(np.float32)
    voxels.flat[:3] = np.nan, np.inf, -np.inf
    save_volume("images/one.nii.gz", voxels, AFFINE)
    facts, (finding,) = look(case)
    assert "3 voxels of 210" in finding.message
    assert facts.intensity[0].maximum == voxels.flat[3:].max()


def test_a_constant_image_and_an_empty_label_are_found(case: Case, save_volume: Save) -> None:
    save_volume("images/one.nii.gz", IMAGE * 0 + 7, AFFINE)
    save_volume("labels/one.nii.gz", LABEL * 0, AFFINE)
    facts, findings = look(case)
    assert [(finding.severity, finding.rule) for finding in findings] == [("error", "constant"), ("warning", "empty")]
    assert "7 in all voxels" in findings[0].message
    assert facts.image_digests == ("",)


def test_a_label_in_another_order_is_measured_where_it_lies(case: Case, save_volume: Save) -> None:
    expected = look(case)[0]
    _reordered(save_volume, case)
    facts, _ = look(case)
    assert facts.label_digest == expected.label_digest
    assert facts.thumbnail == expected.thumbnail


def test_the_digest_is_of_the_values_alone(case: Case, save_volume: Save) -> None:
    (digest,) = look(case)[0].image_digests
    alike = [
        (IMAGE, np.eye(4)),
        (IMAGE[::-1].transpose(2, 0, 1), AFFINE),
        (IMAGE.astype(np.float64), AFFINE),
    ]
    for number, (voxels, affine) in enumerate(alike):
        path = save_volume(f"copy{number}.nii", voxels, affine)
        assert look(Case("copy", "p2", (path,)))[0].image_digests == (digest,)
    other = IMAGE.copy()
    other[0, 0, 0] += 1
    assert look(Case("other", "p2", (save_volume("other.nii", other),)))[0].image_digests != (digest,)


def test_every_channel_is_read_whether_in_one_file_or_in_several(save_volume: Save) -> None:
    one = save_volume("both.nii", np.stack([IMAGE, IMAGE * 2], axis=-1))
    two = tuple(save_volume(f"c{number}.nii", IMAGE * (number + 1)) for number in (0, 1))
    together, apart = (look(Case("one", "p", images))[0] for images in ((one,), two))
    assert together.image_digests == apart.image_digests
    assert together.intensity == apart.intensity
    assert together.part == "test"
    moved = save_volume("c1.nii", IMAGE, np.diag([2, 1, 1, 1]))
    assert errors(look(Case("one", "p", (two[0], moved)))[1]) == {"channels"}


def test_masks_of_single_organs_make_one_label(save_volume: Save) -> None:
    image = save_volume("image.nii", IMAGE)
    masks = [
        LabelFile(save_volume(f"mask{value}.nii", (value == LABEL).astype(np.uint8) * 255), value) for value in (1, 2)
    ]
    facts, findings = look(Case("one", "p", (image,), tuple(masks)))
    assert not findings
    assert facts.volumes_ml == pytest.approx({1: 18 / 1000, 2: 1 / 1000})
