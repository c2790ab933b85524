"""A trained run in Python: storage order changes nothing, and a given task or modality is used."""

import shutil
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

import medmtl
from medmtl.data.working_space import prepare, to_native
from medmtl.errors import ConfigError, DataError, RunError
from medmtl.predict.model import Model


@pytest.fixture(scope="module")
def model(trained: Path) -> Model:
    return medmtl.load(trained, device="cpu")


@pytest.fixture
def scan(phantoms: Path) -> Path:
    return sorted((phantoms / "LiverCT" / "imagesTr").glob("*.nii.gz"))[0]


def reoriented(image: nibabel.Nifti1Image, codes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and affine in another storage order."""
    change = ornt_transform(io_orientation(image.affine), axcodes2ornt(codes))
    found = image.as_reoriented(change)
    assert np.allclose(found.affine, image.affine @ inv_ornt_aff(change, image.shape))
    return found.get_fdata(dtype=np.float32), found.affine


def test_in_all_48_storage_orders_the_mask_is_the_same_in_the_world(model: Model, scan: Path) -> None:
    image = nibabel.load(scan)
    expected = nibabel.as_closest_canonical(nibabel.Nifti1Image(model.predict(scan).mask, image.affine))
    assert 0 < expected.get_fdata().sum() < expected.get_fdata().size
    sides = (("L", "R"), ("P", "A"), ("I", "S"))
    orders = [codes for axes in permutations(sides) for codes in product(*axes)]
    assert len(orders) == 48
    for codes in orders:
        voxels, affine = reoriented(image, codes)
        found = model.predict(voxels, affine, task="LiverCT")
        assert found.mask.shape == voxels.shape
        np.testing.assert_array_equal(found.affine, affine)
        canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(found.mask, affine))
        np.testing.assert_allclose(canonical.affine, expected.affine, atol=1e-9)
        # Rounding of coordinates may move a voxel at the very edge of the mask.
        differing = (canonical.get_fdata() != expected.get_fdata()).mean()
        assert differing <= 1e-4, codes


@pytest.mark.parametrize("spacing", [(0.5, 1.0, 2.0), (3.0, 3.0, 3.0)])
def test_a_mask_lies_on_the_grid_of_its_image_at_any_spacing(model: Model, scan: Path, spacing: tuple) -> None:
    voxels = nibabel.load(scan).get_fdata(dtype=np.float32)
    affine = np.diag([*spacing, 1.0])
    found = model.predict(voxels, affine, task="LiverCT")
    assert found.mask.shape == found.probability.shape == found.entropy().shape == voxels.shape
    assert found.volume_ml == pytest.approx(float(found.mask.sum()) * np.prod(spacing) / 1000)
    np.testing.assert_array_equal(found.affine, affine)


def test_task_and_modality_decide_which_preprocessings_are_tried(model: Model, scan: Path) -> None:
    alone = model.predict(scan, task="KidneyT2")
    assert (alone.task, alone.preprocessing) == ("KidneyT2", str(model.tasks["KidneyT2"].preprocessing))
    same_modality = model.predict(scan, modality="MR")
    assert (same_modality.task, same_modality.preprocessing) == ("KidneyT2", str(model.tasks["KidneyT2"].preprocessing))
    np.testing.assert_array_equal(same_modality.mask, alone.mask)
    unknown = model.predict(scan, modality="PET")
    assert "no task of the model is PET: the preprocessing settings of all tasks were tried" in unknown.warnings
    assert unknown.scores == model.predict(scan).scores
    given = model.predict(scan, task="LiverCT")
    own = [each.score for each in model.ood_detector.held_out]  # type: ignore[union-attr]
    assert given.p_value == pytest.approx((1 + sum(score >= given.ood_score for score in own)) / (len(own) + 1))


def test_the_mask_is_the_network_s_and_the_probability_is_scaled(model: Model, scan: Path) -> None:
    found = model.predict(scan, task="LiverCT")
    prepared = found.scan.image
    working = prepare(prepared, model.tasks["LiverCT"].preprocessing)
    with torch.inference_mode():
        network = to_native(model.predictor(working), prepared)
    np.testing.assert_array_equal(found.mask, network.numpy() >= 0.5)
    assert model.scalings is not None
    scaled = model.scalings.choose("LiverCT")(network, None, prepared.pixdim.tolist())
    voxel_ml = abs(np.linalg.det(found.affine[:3, :3])) / 1000
    assert found.expected_volume_ml == pytest.approx(float(scaled.double().sum()) * voxel_ml, rel=1e-6)
    np.testing.assert_allclose(found.probability, scaled.numpy(), atol=1e-6)
    p = found.probability.astype(np.float64).clip(1e-12, 1 - 1e-12)
    np.testing.assert_allclose(found.entropy(), -p * np.log(p) - (1 - p) * np.log1p(-p), atol=1e-5)


def test_alpha_can_be_another_than_that_of_the_training(trained: Path, scan: Path) -> None:
    strict = medmtl.load(trained, device="cpu", alpha=0.01).predict(scan)
    assert (strict.alpha, strict.in_distribution) == (0.01, None)  # two held-out images cannot decide that
    with pytest.raises(ConfigError, match="alpha=2"):
        medmtl.load(trained, alpha=2)


def test_all_warnings_come_with_the_prediction(model: Model, trained: Path, scan: Path) -> None:
    image = nibabel.load(scan)
    voxels = image.get_fdata(dtype=np.float32)
    tried = "modality and task are unknown: the nearest of 2 preprocessing settings was used"
    border = "the mask touches the border of the image: the organ may be cut off"
    assert model.predict(scan).chosen == tried
    for given in ({"task": "LiverCT"}, {"modality": "CT"}):
        assert model.predict(scan, **given).chosen == ""
    found = model.predict(scan, task="LiverCT")
    start, stop = np.argwhere(found.mask).min(0), np.argwhere(found.mask).max(0)
    touches = (start == 0).any() or (stop == np.array(found.mask.shape) - 1).any()
    assert (border in found.warnings) == touches
    coarse = model.predict(voxels, image.affine @ np.diag([1, 1, 9, 1]), task="LiverCT")
    assert any("and the network works at 8 mm" in warning for warning in coarse.warnings)
    strict = medmtl.load(trained, device="cpu", alpha=0.01).predict(scan, task="LiverCT")
    assert any("alpha = 0.01" in warning for warning in strict.warnings)
    assert len(set(strict.warnings)) == len(strict.warnings)


def test_half_precision_finds_nearly_the_same(trained: Path, model: Model, scan: Path) -> None:
    half = medmtl.load(trained, device="cpu", precision="bf16").predict(scan, task="LiverCT")
    whole = model.predict(scan, task="LiverCT")
    assert 2 * (half.mask & whole.mask).sum() / (half.mask.sum() + whole.mask.sum()) > 0.98
    assert half.probability.dtype == np.float32
    note = "the OOD threshold was estimated in 32 bit"
    assert [any(note in warning for warning in found.warnings) for found in (half, whole)] == [True, False]


def test_without_an_ood_detector_the_task_must_be_given(trained: Path, scan: Path, tmp_path: Path) -> None:
    shutil.copy(trained / "checkpoints" / "last.ckpt", tmp_path / "last.ckpt")
    bare = medmtl.load(tmp_path / "last.ckpt", device="cpu")
    with pytest.raises(ConfigError, match="has no OOD detector, which would find the nearest task: name the task"):
        bare.predict(scan)
    found = bare.predict(scan, task="LiverCT")
    assert (found.in_distribution, found.p_value, found.nearest_task, found.ood_score) == (None, None, None, None)
    assert found.mask.any()


def test_wrong_requests_are_one_line(model: Model, scan: Path, phantoms: Path, tmp_path: Path) -> None:
    for wrong, message, kind in (
        ({"task": "Spleen"}, "there is no task 'Spleen'", ConfigError),
        ({"modality": "US"}, "modality 'US'", ConfigError),
    ):
        with pytest.raises(kind, match=message):
            model.predict(scan, **wrong)
    with pytest.raises(DataError, match=r"holds \d+ images"):
        model.predict(phantoms / "LiverCT" / "imagesTr")
    with pytest.raises(DataError, match="2 files are named, and the network takes one channel"):
        model.predict([scan, scan])
    with pytest.raises(DataError, match="has no affine"):
        model.predict(np.zeros((4, 4, 4)))
    with pytest.raises(RunError, match="holds no checkpoint"):
        medmtl.load(tmp_path)
    with pytest.raises(ConfigError, match="precision '8'"):
        medmtl.load(tmp_path / "x.ckpt", precision="8")  # type: ignore[arg-type]


def test_where_windows_do_not_fit_into_memory_fewer_are_computed_together(
    trained: Path, model: Model, scan: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = medmtl.load(trained, device="cpu", window_batch=4)

    def fill(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if len(inputs[0]) > most:
            raise torch.OutOfMemoryError

    small.predictor.network.register_forward_pre_hook(fill)
    most = 1
    np.testing.assert_array_equal(small.predict(scan).mask, model.predict(scan).mask)
    assert small.predictor.window_batch == 1
    assert "going on with 2 windows at a time" in caplog.text
    most = 0
    with pytest.raises(DataError, match="does not fit into the memory"):
        small.predict(scan)
