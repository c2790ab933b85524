"""Transforms: one working space whatever the storage, the way back, intensity preprocessings, and seeded patches."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from medmtl.data.case import Case, LabelFile
from medmtl.data.check import check_task
from medmtl.data.classes import Classes
from medmtl.data.preprocessing import Preprocessing
from medmtl.data.reading import load_image, load_label
from medmtl.data.task import OODImages, Task
from medmtl.data.task_cases import ood_cases, task_cases
from medmtl.data.transforms import (
    LoadPair,
    LoadScan,
)
from medmtl.data.working_space import prepare, to_native

Save = Callable[..., Path]
MR = Preprocessing((1.0, 1.25, 2.0), None)
SPACING = (1.5, 2.0, 2.5)
STORED_AS = [
    np.array(list(zip(axes, flips, strict=True)))
    for axes in itertools.permutations(range(3))
    for flips in itertools.product([1, -1], repeat=3)
]


def smooth_volume(shape: tuple[int, ...] = (18, 14, 11), seed: int = 0) -> NDArray[np.float32]:
    """A smooth asymmetric volume with a standard deviation of 1."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return (noise / noise.std()).astype(np.float32)


def blob(shape: tuple[int, ...] = (18, 14, 11)) -> NDArray[np.uint8]:
    """A compact organ away from the middle."""
    x, y, z = np.indices(shape)
    return ((((x - 7) / 5) ** 2 + ((y - 6) / 4) ** 2 + ((z - 6) / 3) ** 2) < 1).astype(np.uint8)


def meta(voxels: Any, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> MetaTensor:
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    return MetaTensor(torch.as_tensor(voxels, dtype=torch.float32)[None], affine=affine)


def paired(image: Path, label: Path) -> Case:
    return Case("x", "x", (image,), (LabelFile(label),))


def dice(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def stored(tmp_path: Path, orientation: NDArray[Any]) -> tuple[Case, NDArray[Any]]:
    """A volume and its organ in a certain order and direction of the axes, at the same place in the world."""
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = [-10, 20, 5]
    paths = []
    for name, voxels in (("image", smooth_volume()), ("label", blob())):
        image = nib.Nifti1Image(voxels, affine).as_reoriented(orientation)
        paths.append(tmp_path / f"{name}.nii")
        nib.save(image, paths[-1])
    return paired(*paths), np.asarray(image.dataobj)


def test_the_working_space_is_the_same_for_all_48_ways_to_store_the_axes(tmp_path: Path) -> None:
    pairs, affines = [], []
    for orientation in STORED_AS:
        case, label = stored(tmp_path, orientation)
        pairs.append(LoadPair(MR, Classes.of_organ([1]))(case))
        scan = LoadScan([MR], Classes.of_organ([1]))(case)
        affines.append(scan["images"][MR].affine)
        torch.testing.assert_close(scan["images"][MR].as_tensor(), pairs[-1]["image"], rtol=0, atol=0)
        # The way back: the organ in the working space, on the grid of the file.
        back = to_native(MetaTensor(pairs[-1]["label"].float(), affine=affines[-1]), scan["native"])
        assert back.shape == label.shape == scan["label"].shape[1:]
        assert dice(back.numpy() >= 0.5, label == 1) > 0.97
    assert len(pairs) == 48
    for pair, affine in zip(pairs, affines, strict=True):
        torch.testing.assert_close(pair["image"], pairs[0]["image"], rtol=0, atol=1e-5)
        assert torch.equal(pair["label"], pairs[0]["label"])
        torch.testing.assert_close(affine, affines[0], rtol=0, atol=1e-5)


def test_the_working_space_has_the_preprocessing_s_spacing_and_runs_right_anterior_superior(tmp_path: Path) -> None:
    case, _ = stored(tmp_path, np.array([[2, -1], [0, 1], [1, -1]]))
    image = prepare(load_image(case), MR)
    np.testing.assert_allclose(image.affine[:3, :3], np.diag(MR.spacing), atol=1e-6)
    np.testing.assert_allclose(image.affine[:3, 3], [-10, 20, 5], atol=1e-5)
    extent = [(size - 1) * step for size, step in zip((18, 14, 11), SPACING, strict=True)]
    for size, step, length in zip(image.shape[1:], MR.spacing, extent, strict=True):
        assert abs((size - 1) * step - length) <= step
    assert image.dtype == torch.float32


def test_values_of_the_working_space_lie_where_they_lay_in_the_world() -> None:
    coordinates = np.stack(np.meshgrid(*(np.arange(12.0),) * 3, indexing="ij"))
    affine = torch.diag(torch.tensor([-1.0, 1.0, -2.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([3.0, -4.0, 5.0])
    world = nib.affines.apply_affine(affine.numpy(), coordinates.reshape(3, -1).T).T.reshape(coordinates.shape)
    preprocessing = Preprocessing((0.75, 1.5, 1.0), (-100.0, 100.0))
    for axis in range(3):
        image = prepare(
            MetaTensor(torch.as_tensor(world[axis : axis + 1], dtype=torch.float32), affine=affine), preprocessing
        )
        places = nib.affines.apply_affine(image.affine.numpy(), np.indices(image.shape[1:]).reshape(3, -1).T)
        inside = (places >= world.min((1, 2, 3))).all(1) & (places <= world.max((1, 2, 3))).all(1)
        found = image.numpy().reshape(-1)[inside] * 100
        assert inside.mean() > 0.8
        np.testing.assert_allclose(found, places[inside, axis], atol=1e-3)


@pytest.mark.parametrize("seed", range(2))
def test_an_oblique_anisotropic_scan_comes_back_to_its_own_grid(seed: int, tmp_path: Path, save_volume: Save) -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=seed).as_matrix() @ np.diag([0.7, 1.3, 3.0])
    affine[:3, 3] = [50, -80, 13]
    volume, organ = smooth_volume(), blob()
    case = paired(save_volume("i.nii.gz", volume, affine), save_volume("l.nii.gz", organ, affine))
    preprocessing = Preprocessing((0.7, 0.8, 0.9), (-10.0, 10.0))
    scan, pair = (
        LoadScan([preprocessing], Classes.of_organ([1]))(case),
        LoadPair(preprocessing, Classes.of_organ([1]))(case),
    )
    working = scan["images"][preprocessing]
    np.testing.assert_allclose(np.linalg.norm(working.affine[:3, :3], axis=0), preprocessing.spacing, atol=1e-5)
    assert nib.aff2axcodes(working.affine.numpy()) == ("R", "A", "S")
    label = to_native(MetaTensor(pair["label"].float(), affine=working.affine), scan["native"])
    assert dice(label.numpy() >= 0.5, organ == 1) > 0.97
    values = to_native(MetaTensor(working.as_tensor() / 2 + 0.5, affine=working.affine), scan["native"])
    assert np.abs((values.numpy() - 0.5) * 20 - volume).mean() < 0.1


def assert_one_working_grid(case: Case, spacing: float = 1.0) -> None:
    """For a pair that the checks let through and whose image is the organ itself."""
    check_task("T", [case], [1], {0, 1})
    pair = LoadPair(Preprocessing((spacing, spacing, spacing), (0.0, 1.0)), Classes.of_organ([1]))(case)
    assert pair["image"].shape == pair["label"].shape
    assert dice(pair["image"].numpy() > 0, pair["label"].numpy() == 1) > 0.9


@pytest.mark.parametrize("spacing", [1.49999, 1.50001])
def test_image_and_label_whose_affines_agree_to_rounding_share_one_working_grid(
    spacing: float, save_volume: Save
) -> None:
    # At 1.5 mm, 18 voxels lie on the edge between 26 and 27 working voxels, and 16 on that between 23 and 24.
    organ = blob((18, 16, 11))
    image = save_volume("i.nii.gz", organ.astype(np.float32), np.diag([1.5, 1.5, 1.5, 1]))
    label = save_volume("l.nii.gz", organ, np.diag([spacing, spacing, spacing, 1]))
    assert_one_working_grid(paired(image, label))


def test_an_image_whose_qform_and_sform_disagree_shares_one_working_grid_with_its_label(
    tmp_path: Path, save_volume: Save
) -> None:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    image = nib.Nifti1Image(blob().astype(np.float32), affine)
    image.set_qform(np.eye(4), code=1)
    image.set_sform(affine, code=2)
    image.header.set_zooms((1, 1, 1))
    nib.save(image, tmp_path / "i.nii")
    assert_one_working_grid(paired(tmp_path / "i.nii", save_volume("l.nii", blob(), affine)), spacing=2.0)


def test_probabilities_stay_within_0_and_1_on_the_way_back() -> None:
    probability = meta((np.indices((9, 9, 9)).sum(0) % 2).astype(float), (2.0, 2.0, 2.0))
    native = to_native(probability, meta(np.zeros((31, 30, 29)), (0.6, 0.6, 0.6)))
    assert native.shape == (31, 30, 29)
    assert native.dtype == torch.float32
    assert 0 <= float(native.min()) < 0.01
    assert 0.99 < float(native.max()) <= 1


def test_a_volume_already_in_the_working_space_is_not_resampled() -> None:
    volume = smooth_volume() * 50
    preprocessing = Preprocessing((1.0, 1.0, 1.0), (-1000.0, 1000.0))
    np.testing.assert_allclose(prepare(meta(volume), preprocessing)[0].numpy() * 1000, volume, atol=1e-3)
    probability = meta(blob() * 0.75)
    torch.testing.assert_close(to_native(probability, meta(volume)), probability[0].as_tensor())


def test_ct_is_clipped_to_its_window_and_scaled_to_minus_1_to_1() -> None:
    volume = np.linspace(-1024, 3000, 6 * 7 * 8).reshape(6, 7, 8)
    image = prepare(meta(volume), Preprocessing((1.0, 1.0, 1.0), (-160.0, 240.0)))[0].numpy()
    np.testing.assert_allclose(image, (np.clip(volume, -160, 240) - 40) / 200, atol=1e-5)
    assert (image.min(), image.max()) == (-1, 1)


def test_a_ct_task_without_a_window_uses_soft_tissue() -> None:
    assert Task("x", "CT", (1, 1, 1), [1]).preprocessing.window == (-160, 240)
    assert Task("x", "CT", (1, 1, 1), [1], window=(-1000, 400)).preprocessing.window == (-1000, 400)
    assert Task("x", "PET", (1, 1, 1), [1]).preprocessing.window is None


def test_other_modalities_are_clipped_at_percentiles_and_have_mean_0_and_standard_deviation_1() -> None:
    volume = smooth_volume((30, 30, 30)) * 300 + 1000
    volume[3, 4, 5], volume[5, 4, 3] = 1e5, -1e5
    image = prepare(meta(volume), Preprocessing((1.0, 1.0, 1.0), None))[0].numpy().astype(np.float64)
    clipped = np.clip(volume.astype(np.float64), *np.percentile(volume, [0.5, 99.5]))
    np.testing.assert_allclose(image, (clipped - clipped.mean()) / clipped.std(), atol=1e-3)
    assert abs(image.mean()) < 1e-4
    assert abs(image.std() - 1) < 1e-4


def test_the_scanner_s_scale_and_offset_do_not_matter_where_there_is_no_window() -> None:
    preprocessing = Preprocessing((0.9, 1.1, 1.3), None)
    one, other = (
        prepare(meta(smooth_volume() * scale + offset), preprocessing) for scale, offset in ((1, 0), (250, 700))
    )
    torch.testing.assert_close(one.as_tensor(), other.as_tensor(), rtol=0, atol=1e-3)


def test_each_channel_is_prepared_as_if_it_were_alone() -> None:
    affine = torch.diag(torch.tensor([*SPACING, 1.0], dtype=torch.float64))
    channels = [smooth_volume(seed=0) * 50, smooth_volume(seed=1) * 3 + 1000, np.full((18, 14, 11), 7, np.float32)]
    for preprocessing in (MR, Preprocessing((1.0, 1.0, 1.0), (-160.0, 240.0))):
        together = prepare(MetaTensor(torch.from_numpy(np.stack(channels)), affine=affine), preprocessing)
        for prepared, channel in zip(together, channels, strict=True):
            alone = prepare(MetaTensor(torch.from_numpy(channel[None]), affine=affine), preprocessing)
            torch.testing.assert_close(prepared.as_tensor(), alone[0].as_tensor(), rtol=0, atol=1e-6)
            torch.testing.assert_close(together.affine, alone.affine)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.3, 1.0)])
def test_a_constant_image_becomes_0(spacing: tuple[float, float, float]) -> None:
    for value in (0, -1024, 1000.7, 1 / 3):
        # Large enough that the mean of its voxels is rounded.
        assert not prepare(meta(np.full((40, 41, 39), value)), Preprocessing(spacing, None)).any(), value


@pytest.mark.parametrize("organ", [[1], [5, 2]])
def test_the_organ_is_the_union_of_its_label_values(organ: list[int], save_volume: Save) -> None:
    voxels = np.random.default_rng(0).choice(np.array([0, 1, 2, 5], np.uint8), (5, 6, 7))
    for dtype in (np.uint8, np.int16, np.float32):
        case = paired(save_volume("i.nii.gz", voxels), save_volume("l.nii.gz", voxels.astype(dtype)))
        found = load_label(case, Classes.of_organ(organ), load_image(case))
        assert found.dtype == torch.uint8
        np.testing.assert_array_equal(found[0].numpy(), np.isin(voxels, organ))
        pair = LoadPair(Preprocessing((1.0, 1.0, 1.0), None), Classes.of_organ(organ))(case)
        np.testing.assert_array_equal(pair["label"][0].numpy(), np.isin(voxels, organ))


@pytest.mark.parametrize("shape", [(6, 7, 8, 3), (6, 7, 8, 1), (3, 3, 3, 3), (6, 7, 8)])
def test_the_wanted_channel_is_loaded(shape: tuple[int, ...], save_volume: Save) -> None:
    voxels = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    path = save_volume("i.nii.gz", voxels)
    for channel in range(shape[3] if len(shape) == 4 else 1):
        image = load_image(Case("x", "x", (path,), channels=(channel,)))
        assert image.dtype == torch.float32
        np.testing.assert_array_equal(image[0].numpy(), voxels[..., channel] if len(shape) == 4 else voxels)


@pytest.mark.parametrize("channels", [(2,), (2, 0)])
def test_channels_of_one_file_and_of_a_file_each_are_the_same(channels: tuple[int, ...], save_volume: Save) -> None:
    voxels = np.random.default_rng(0).normal(size=(6, 7, 8, 3)).astype(np.float32)
    whole = Case("x", "x", (save_volume("i.nii.gz", voxels),), channels=channels)
    apart = replace(whole, images=tuple(save_volume(f"i_{c}.nii.gz", voxels[..., c]) for c in range(3)))
    for case in (whole, apart):
        image = load_image(case)
        assert image.dtype == torch.float32
        np.testing.assert_array_equal(image.numpy(), np.moveaxis(voxels, -1, 0)[list(channels)])


@pytest.mark.parametrize("organ", [[1, 3], [7]])
def test_masks_of_single_organs_are_read_as_a_file_of_all_label_values(organ: list[int], save_volume: Save) -> None:
    voxels = np.random.default_rng(0).integers(0, 4, (5, 6, 7)).astype(np.uint8)
    whole = paired(save_volume("i.nii.gz", voxels), save_volume("l.nii.gz", voxels))
    masks = [LabelFile(save_volume(f"l_{v}.nii.gz", (voxels == v) * np.uint8(255)), v) for v in (1, 2, 3)]
    apart = replace(whole, labels=tuple(masks))
    one, other = (load_label(case, Classes.of_organ(organ), load_image(case)) for case in (whole, apart))
    np.testing.assert_array_equal(one.numpy(), other.numpy())
    np.testing.assert_array_equal(one[0].numpy(), np.isin(voxels, organ))


def test_a_scan_is_prepared_under_every_preprocessing_and_names_its_case(save_volume: Save) -> None:
    volume, affine = smooth_volume() * 100, np.diag([*SPACING, 1])
    case = Case("case", "patient", (save_volume("i.nii.gz", volume, affine),))
    preprocessings = [MR, Preprocessing((2.0, 2.0, 2.0), (-160.0, 240.0))]
    scan = LoadScan(preprocessings, classes=None)(case)
    assert (scan["case"], scan["patient"], scan["label"]) == ("case", "patient", None)
    assert list(scan["images"]) == preprocessings
    np.testing.assert_array_equal(scan["native"][0].numpy(), volume)
    for preprocessing in preprocessings:
        torch.testing.assert_close(scan["images"][preprocessing], prepare(load_image(case), preprocessing))


def test_all_phantom_images_are_finite_under_every_preprocessing(phantoms: Path) -> None:
    cases = ood_cases("Other", OODImages("phantom:OtherPhantom"))
    preprocessings = [Preprocessing((4.0, 4.0, 4.0), (-160.0, 240.0)), Preprocessing((4.0, 4.0, 4.0), None)]
    for case in cases:
        for image in LoadScan(preprocessings, None)(case)["images"].values():
            assert torch.isfinite(image).all()
            assert float(image.abs().max()) < 30


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "modality", "organ", "spacing"),
    [
        ("HippocampusMR", "MR", [1, 2], (1, 1, 1)),
        ("FetalBrainMR", "MR", [1, 5, 6], (1.6, 1.6, 1.6)),
        ("SarcomaCT", "CT", [1], (4, 4, 4)),
        ("SarcomaPET", "PET", [1], (4, 4, 4)),
    ],
)
def test_real_labels_survive_the_working_space(
    real_data: Path, name: str, modality: str, organ: list[int], spacing: tuple[float, float, float]
) -> None:
    task, classes = Task(str(real_data / name), modality, spacing, organ), Classes.of_organ(organ)
    for case in task_cases(name, task).cases[:2]:
        pair, scan = (
            LoadPair(task.preprocessing, classes)(case),
            LoadScan([task.preprocessing], classes)(case),
        )
        assert pair["image"].shape == pair["label"].shape
        probability = MetaTensor(pair["label"].float(), affine=scan["images"][task.preprocessing].affine)
        back = to_native(probability, scan["native"]).numpy() >= 0.5
        assert dice(back, scan["label"][0].numpy() == 1) > 0.9
