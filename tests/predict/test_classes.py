"""Classes in Python: masks in the dataset's label values, volumes and probabilities by class."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from predict_sample import BRIGHT, GRID, MIDDLE, class_model, logits_of, save_classes
from scipy.special import expit, log_softmax, softmax

from medmtl.calibration.scaling.parametric import Temperature
from medmtl.calibration.scaling.per_task import TaskScalings
from medmtl.calibration.scaling.vector import VectorScaling
from medmtl.errors import ConfigError

ORGAN = {"organ": [3, 4]}
PARTS = {"classes": {"anterior": 4, "posterior": 300}}
REGIONS = {"classes": {"whole": [1, 2], "core": [2]}}
VOXEL_ML = 8 / 1000


@pytest.fixture
def scan(tmp_path):
    """The file, and its voxels."""
    return tmp_path / "scan.nii.gz", save_classes(tmp_path / "scan.nii.gz")


def between(voxels, lower, upper=np.inf):
    return (voxels >= lower) & (voxels < upper)


def test_a_mask_has_the_label_values_of_its_task(scan):
    path, voxels = scan
    model = class_model(Parts=PARTS, Organ=ORGAN)
    found = model.predict(path, task="Parts")
    expected = 4 * between(voxels, MIDDLE, BRIGHT) + 300 * between(voxels, BRIGHT)
    assert (found.mask.dtype, found.classes) == (np.uint16, {"anterior": 4, "posterior": 300})
    np.testing.assert_array_equal(found.mask, expected)
    assert found.volumes_ml == pytest.approx(
        {"anterior": (expected == 4).sum() * VOXEL_ML, "posterior": (expected == 300).sum() * VOXEL_ML}
    )
    assert found.volume_ml == pytest.approx((expected > 0).sum() * VOXEL_ML)
    organ = model.predict(path, task="Organ")
    assert (organ.mask.dtype, organ.classes, organ.volumes_ml) == (np.uint8, {}, {})
    np.testing.assert_array_equal(organ.mask, between(voxels, MIDDLE))
    assert organ.segments == {"Organ": {1}}
    array = model.predict(voxels, GRID, task="Parts")
    np.testing.assert_array_equal(array.mask, found.mask)


def test_probabilities_of_exclusive_classes_are_a_softmax_and_add_up_to_the_foreground(scan):
    path, voxels = scan
    found = class_model(Parts=PARTS).predict(path)
    assert "class_probabilities" not in vars(found)
    expected = softmax(logits_of(voxels), axis=0)[1:]
    assert found.class_probabilities.dtype == np.float32
    np.testing.assert_allclose(found.class_probabilities, expected, atol=1e-5)
    np.testing.assert_allclose(found.probability, expected.sum(0), atol=1e-5)
    assert found.class_probabilities is found.class_probabilities


def scalings(**shares):
    """A temperature of 2, and scalings of the shares of some tasks' classes."""
    single = SimpleNamespace(scaling=lambda p, *_: Temperature(2.0)(p))
    own = {task: SimpleNamespace(scaling=scaling) for task, scaling in shares.items()}
    return TaskScalings(single, {}, own)


def test_scaling_changes_their_sum_and_not_their_shares(scan):
    path, voxels = scan
    model = class_model(Parts=PARTS)
    model.scalings = scalings()
    found = model.predict(path, task="Parts")
    plain = softmax(logits_of(voxels), axis=0)[1:]
    total = plain.sum(0)
    scaled = expit(np.log(total / (1 - total)) / 2)
    np.testing.assert_allclose(found.class_probabilities.sum(0), found.probability, atol=1e-6)
    unsure = total < 1 - 1e-6  # a probability of 1 in float32 has no log-odds
    np.testing.assert_allclose(found.probability[unsure], scaled[unsure], atol=1e-3)
    shares = found.class_probabilities / found.class_probabilities.sum(0)
    np.testing.assert_allclose(shares, plain / total, atol=1e-4)


def test_vector_scaling_changes_their_shares_and_neither_their_sum_nor_the_mask(scan):
    path, voxels = scan
    model = class_model(Parts=PARTS)
    model.scalings = scalings()
    before = model.predict(path, task="Parts")
    weight, offset = [0.3, 0.6], [0.4, -0.4]
    model.scalings = scalings(Parts=VectorScaling(torch.tensor(weight).double(), torch.tensor(offset).double()))
    after = model.predict(path, task="Parts")
    logs = log_softmax(logits_of(voxels)[1:], axis=0)
    shares = softmax(np.stack([w * log + b for w, log, b in zip(weight, logs, offset, strict=True)]), axis=0)
    np.testing.assert_allclose(after.class_probabilities, shares * after.probability, atol=1e-5)
    assert np.abs(after.class_probabilities - before.class_probabilities).max() > 0.1
    np.testing.assert_array_equal(after.mask, before.mask)
    np.testing.assert_array_equal(after.probability, before.probability)


def test_classes_that_overlap_have_a_sigmoid_each_and_volumes_that_share_voxels(scan):
    path, voxels = scan
    found = class_model(Regions=REGIONS).predict(path)
    whole, core = (expit(odds) for odds in logits_of(voxels)[1:])
    np.testing.assert_allclose(found.class_probabilities, [whole, core], atol=1e-5)
    np.testing.assert_allclose(found.probability, np.maximum(whole, core), atol=1e-5)
    expected = np.where(core >= 0.5, 2, 1 * (whole >= 0.5))
    np.testing.assert_array_equal(found.mask, expected)
    assert found.classes == {"whole": 1, "core": 2}
    volumes = {"whole": (expected > 0).sum() * VOXEL_ML, "core": (expected == 2).sum() * VOXEL_ML}
    assert found.volumes_ml == pytest.approx(volumes)


def test_a_task_of_one_class_is_one_output_with_the_value_of_its_dataset(scan):
    path, voxels = scan
    for outputs in (None, "per_task"):
        found = class_model(outputs, Own={"classes": {"liver": 6}}).predict(path)
        np.testing.assert_array_equal(found.mask, 6 * between(voxels, MIDDLE))
        assert found.classes == {"liver": 6}
        assert found.volumes_ml == {"liver": pytest.approx(found.volume_ml)}
        np.testing.assert_array_equal(found.class_probabilities, found.probability[None])


def test_a_shared_output_merges_several_classes(scan):
    path, voxels = scan
    found = class_model("shared", Parts=PARTS).predict(path)
    np.testing.assert_array_equal(found.mask, between(voxels, MIDDLE).astype(np.uint8))
    assert (found.classes, found.volumes_ml, found.mask.dtype) == ({}, {}, np.uint8)


def test_without_a_detector_the_task_is_named_where_each_has_its_output(scan):
    with pytest.raises(ConfigError, match="name the task"):
        class_model(Parts=PARTS, Organ=ORGAN).predict(scan[0])
    # One output, prepared in one way: nothing is left to choose.
    assert class_model(Organ=ORGAN, Other={"organ": [1]}).predict(scan[0]).task == "Organ"


def test_voxels_between_those_of_the_network_get_the_most_probable_class(tmp_path):
    affine = np.diag([1.3, -1.7, 2.9, 1])
    save_classes(tmp_path / "scan.nii.gz", affine)
    found = class_model(Parts=PARTS).predict(tmp_path / "scan.nii.gz")
    values = np.array([4, 300])[found.class_probabilities.argmax(0)]
    np.testing.assert_array_equal(found.mask, np.where(found.probability >= 0.5, values, 0))
    np.testing.assert_allclose(found.class_probabilities.sum(0), found.probability, atol=1e-6)
    assert torch.from_numpy(found.class_probabilities).isfinite().all()
