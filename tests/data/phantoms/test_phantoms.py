"""The digital phantoms: ordinary MSD folders, the same for the same seed, with the other tasks' organs in view."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import nibabel as nib
import numpy as np
import pytest

from medmtl.data.phantoms.anatomy import FOREARM, HAND, HEAD, LEGS, TORSO, Part, draw
from medmtl.data.phantoms.phantoms import OTHER_PHANTOM, PHANTOM_TASKS, phantom_root, write_phantoms
from medmtl.data.phantoms.scanner import SIGNAL, Contrast, scan
from medmtl.errors import DataError

SHAPE, SPACING = (56, 44, 55), (3.5, 3.5, 3.5)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantoms")
    write_phantoms(out, seed=0, cases=2)
    return out


def described(folder: Path) -> dict[str, Any]:
    contents: dict[str, Any] = json.loads((folder / "dataset.json").read_text())
    return contents


def first_label(folder: Path) -> nib.Nifti1Image:
    return nib.load(min((folder / "labelsTr").iterdir()))


def images_alike(folder: Path, other: Path) -> list[bool]:
    """For each image that both folders hold under one name, whether the voxels are the same."""
    pairs = [(path, other / path.relative_to(folder)) for path in folder.rglob("images*/*.nii.gz")]
    return [
        np.array_equal(nib.load(one).dataobj, nib.load(another).dataobj) for one, another in pairs if another.exists()
    ]


@pytest.mark.parametrize("name", [*PHANTOM_TASKS, OTHER_PHANTOM])
def test_the_description_names_every_file_and_says_digital_phantom(phantoms: Path, name: str) -> None:
    folder = phantoms / name
    about = described(folder)
    assert about["name"] == name
    assert "digital phantom" in about["description"].lower()
    assert set(about["modality"]) == {"0"}
    assert about["numTraining"] == len(about["training"])
    assert about["numTest"] == len(about["test"]) > 0
    named = [folder / pair[part] for pair in about["training"] for part in ("image", "label")]
    named += [folder / image for image in about["test"]]
    assert sorted(named) == sorted(folder.rglob("*.nii.gz"))


@pytest.mark.parametrize("name", PHANTOM_TASKS)
def test_each_labelled_case_shows_its_organ_on_the_grid_of_the_image(phantoms: Path, name: str) -> None:
    about = described(phantoms / name)
    assert len(about["training"]) == 2
    for pair in about["training"]:
        image, label = (nib.load(phantoms / name / pair[part]) for part in ("image", "label"))
        assert image.get_data_dtype() == np.int16
        assert label.get_data_dtype() == np.uint8
        assert image.shape == label.shape
        np.testing.assert_array_equal(image.affine, label.affine)
        assert all(2 <= step <= 4.5 for step in image.header.get_zooms())
        values, counts = np.unique(label.dataobj, return_counts=True)
        assert values.tolist() == sorted(int(value) for value in about["labels"])
        assert min(counts) > 100


def test_only_the_kidneys_have_two_sub_labels(phantoms: Path) -> None:
    sub_labels = {name: len(described(phantoms / name)["labels"]) - 1 for name in PHANTOM_TASKS}
    assert sub_labels == dict.fromkeys(PHANTOM_TASKS, 1) | {"KidneyT2": 2}


def test_tasks_differ_in_spacing_and_in_stored_axes(phantoms: Path) -> None:
    labels = [first_label(phantoms / name) for name in PHANTOM_TASKS]
    assert len({label.header.get_zooms() for label in labels}) == 5
    stored = {"".join(nib.aff2axcodes(label.affine)) for label in labels}
    assert len(stored) >= 3
    assert any(axes[0] not in "RL" for axes in stored)


@pytest.mark.parametrize(
    ("name", "value", "axis", "side"),
    [
        ("LiverCT", 1, 0, 1),
        ("KidneyT2", 1, 0, 1),
        ("KidneyT2", 2, 0, -1),
        ("HeartPET", 1, 2, 1),
        ("CerebellumT2", 1, 1, -1),
    ],
)
def test_organs_lie_where_anatomy_puts_them_in_world_coordinates(
    phantoms: Path, name: str, value: int, axis: int, side: int
) -> None:
    label = first_label(phantoms / name)
    middle = nib.affines.apply_affine(label.affine, np.argwhere(np.asarray(label.dataobj) == value)).mean(0)
    assert side * middle[axis] > 10


def test_no_case_id_is_shared_between_tasks(phantoms: Path) -> None:
    names = [path.name for name in PHANTOM_TASKS for path in (phantoms / name).rglob("images*/*.nii.gz")]
    assert len(set(names)) == len(names) > 10


def test_the_other_set_is_unlabelled(phantoms: Path) -> None:
    about = described(phantoms / OTHER_PHANTOM)
    assert about["labels"] == {"0": "background"}
    assert about["training"] == []
    assert sorted(path.name for path in (phantoms / OTHER_PHANTOM).iterdir()) == ["dataset.json", "imagesTs"]
    assert 10 <= len(about["test"]) <= 12
    assert {nib.load(phantoms / OTHER_PHANTOM / image).get_data_dtype() for image in about["test"]} == {
        np.dtype("int16")
    }


def test_the_same_seed_gives_the_same_voxels_however_many_cases_are_asked_for(phantoms: Path, tmp_path: Path) -> None:
    write_phantoms(tmp_path, seed=0, cases=1)
    alike = images_alike(phantoms, tmp_path)
    assert len(alike) >= 5 + 10
    assert all(alike)


def test_another_seed_gives_other_voxels(phantoms: Path, tmp_path: Path) -> None:
    write_phantoms(tmp_path, seed=1, cases=1)
    for name in PHANTOM_TASKS:
        alike = images_alike(phantoms / name, tmp_path / name)
        assert alike
        assert not any(alike)


def test_existing_folders_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / OTHER_PHANTOM).mkdir()
    with pytest.raises(DataError, match=f"{OTHER_PHANTOM} exists"):
        write_phantoms(tmp_path, cases=1)
    assert [path.name for path in tmp_path.iterdir()] == [OTHER_PHANTOM]


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(nib, "save", full_disk)
    monkeypatch.setenv("MEDMTL_CACHE", str(tmp_path))
    with pytest.raises(OSError, match="no space"):
        phantom_root(PHANTOM_TASKS[0])
    assert not any((tmp_path / "phantoms-v1").iterdir())


def test_the_cache_is_filled_once_even_by_two_at_a_time(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDMTL_CACHE", str(tmp_path / "cache"))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(phantom_root, [OTHER_PHANTOM] * 2)
    assert first == second == tmp_path / "cache" / "phantoms-v1" / OTHER_PHANTOM
    assert [path.name for path in first.parent.iterdir()] == [OTHER_PHANTOM]
    assert all(images_alike(phantoms / OTHER_PHANTOM, first))
    (first / "dataset.json").write_text("kept")
    assert (phantom_root(OTHER_PHANTOM) / "dataset.json").read_text() == "kept"


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDMTL_CACHE", str(tmp_path))
    with pytest.raises(DataError) as error:
        phantom_root("Liver")
    assert all(name in str(error.value) for name in (*PHANTOM_TASKS, OTHER_PHANTOM))


@pytest.mark.parametrize(
    ("body", "organs"),
    [
        (TORSO, ["liver", "right kidney", "left kidney", "heart", "bladder", "spleen"]),
        (HEAD, ["ventricles", "cerebellum", "brainstem", "right putamen"]),
    ],
)
def test_every_person_has_the_organs_of_all_tasks_of_that_anatomy(body: tuple[Part, ...], organs: list[str]) -> None:
    for seed in range(3):
        anatomy = draw(body, SHAPE, SPACING, np.random.default_rng(seed))
        assert all(anatomy.organs[organ].sum() > 20 for organ in organs)


@pytest.mark.parametrize("body", [TORSO, HEAD, FOREARM, HAND, LEGS])
def test_tissues_and_air_fill_each_voxel_exactly(body: tuple[Part, ...]) -> None:
    anatomy = draw(body, SHAPE, SPACING, np.random.default_rng(0))
    for shares in (*anatomy.organs.values(), *anatomy.tissues.values()):
        assert shares.min() >= 0
    np.testing.assert_allclose(sum(anatomy.tissues.values()), 1, atol=1e-5)
    assert {part.tissue for part in body} <= set(SIGNAL)


def test_an_ellipsoid_has_the_volume_of_an_ellipsoid() -> None:
    radii = (20.0, 12.0, 30.0)
    body = (Part("ball", "water", (0, 0, 0), radii, turn=(30, 0, 20)),)
    shares = [draw(body, (28, 28, 28), SPACING, np.random.default_rng(seed)).organs["ball"] for seed in range(40)]
    # Size and shape vary from person to person, by some 20 %; their mean does not.
    volume = np.mean([share.sum() for share in shares]) * np.prod(SPACING)
    assert volume == pytest.approx(4 / 3 * np.pi * np.prod(radii), rel=0.12)


def test_parts_later_in_a_body_lie_over_earlier_ones() -> None:
    body = (Part("outer", "fat", (0, 0, 0), (30, 30, 30)), Part("inner", "bone", (0, 0, 0), (12, 12, 12)))
    for parts, seen in ((body, True), (body[::-1], False)):
        anatomy = draw(parts, (28, 28, 28), SPACING, np.random.default_rng(0))
        assert (anatomy.organs["inner"].sum() > 100) == seen


def test_ct_is_in_hounsfield_units() -> None:
    anatomy = draw(TORSO, SHAPE, SPACING, np.random.default_rng(0))
    image = scan(anatomy, "CT", SPACING, np.random.default_rng(0))
    for tissue, expected in (("air", -1000), ("lung", -800), ("fat", -100), ("liver", 110)):
        assert image[anatomy.tissues[tissue] > 0.99].mean() == pytest.approx(expected, abs=15)


@pytest.mark.parametrize("contrast", [contrast for contrast in get_args(Contrast) if contrast != "CT"])
def test_the_scale_of_other_scanners_varies_by_case(contrast: Contrast) -> None:
    anatomy = draw(TORSO, SHAPE, SPACING, np.random.default_rng(0))
    highest = [np.percentile(scan(anatomy, contrast, SPACING, np.random.default_rng(seed)), 99) for seed in range(6)]
    assert max(highest) > 1.5 * min(highest)


def test_the_liver_is_brighter_than_the_kidneys_in_t1_and_darker_in_t2() -> None:
    anatomy = draw(TORSO, SHAPE, SPACING, np.random.default_rng(0))
    liver, kidney = anatomy.tissues["liver"] > 0.9, anatomy.tissues["kidney medulla"] > 0.9
    t1, t2 = (scan(anatomy, contrast, SPACING, np.random.default_rng(0)) for contrast in ("T1", "T2"))
    assert t1[liver].mean() > t1[kidney].mean()
    assert t2[liver].mean() < t2[kidney].mean()
