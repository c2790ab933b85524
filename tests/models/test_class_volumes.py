"""Class probabilities on the image's own grid, against scipy's softmax and interpolation."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from scipy import ndimage, special

from medmtl.calibration.scaling.vector import VectorScaling
from medmtl.data.classes import Classes
from medmtl.models.class_volumes import ClassVolumes, class_probabilities
from medmtl.models.outputs import Head, Outputs

EXCLUSIVE = Classes({"head": frozenset({1}), "tail": frozenset({2}), "body": frozenset({3, 4})})
OVERLAPPING = Classes({"whole": frozenset({1, 2, 3}), "core": frozenset({2, 3}), "rim": frozenset({3})})
SHAPE = (9, 8, 7)
STEP = (0.7, 1.0, 1.5)  # of the image's grid, in voxels of the working space


def head_of(classes: Classes) -> Head:
    return Outputs.per_task({"T": classes}).heads["T"]


def logits_of(head: Head, seed: int = 0) -> MetaTensor:
    values = 2 * torch.randn(len(head.channels), 8, 9, 10, generator=torch.Generator().manual_seed(seed))
    return MetaTensor(values, affine=torch.eye(4, dtype=torch.float64))


NATIVE = MetaTensor(torch.zeros(1, *SHAPE), affine=torch.diag(torch.tensor([*STEP, 1.0], dtype=torch.float64)))


def interpolated(working: NDArray[np.floating]) -> NDArray[np.floating]:
    places = np.meshgrid(*(np.arange(n) * step for n, step in zip(SHAPE, STEP, strict=True)), indexing="ij")
    return ndimage.map_coordinates(working, places, order=1, mode="nearest")


def test_exclusive_classes_have_the_softmax_of_the_working_space_interpolated() -> None:
    head = head_of(EXCLUSIVE)
    logits = logits_of(head)
    softmax = special.softmax(logits.numpy().astype(np.float64), axis=0)
    foreground = interpolated(1 - softmax[0])
    found = list(class_probabilities(head, logits, torch.from_numpy(foreground).float(), NATIVE))
    for probability, expected in zip(found, softmax[1:], strict=True):
        np.testing.assert_allclose(probability, interpolated(expected), atol=2e-6)
    np.testing.assert_allclose(torch.stack(found).sum(0), foreground, atol=2e-6)


def test_of_a_scaled_foreground_exclusive_classes_keep_their_parts_and_add_up_to_it() -> None:
    head = head_of(EXCLUSIVE)
    logits = logits_of(head)
    plain = torch.from_numpy(interpolated(1 - special.softmax(logits.numpy(), axis=0)[0])).float()
    before, after = (torch.stack(list(class_probabilities(head, logits, p, NATIVE))) for p in (plain, plain.sqrt()))
    torch.testing.assert_close(after.sum(0), plain.sqrt())
    torch.testing.assert_close(after / plain.sqrt(), before / plain)


def test_vector_scaling_of_the_shares_is_a_softmax_of_scaled_log_shares_in_the_working_space() -> None:
    head = head_of(EXCLUSIVE)
    logits = logits_of(head)
    weight, offset = np.array([0.4, 1.5, 0.8]), np.array([0.3, -0.7, 0.4])
    scaling = VectorScaling(torch.from_numpy(weight), torch.from_numpy(offset))
    values = logits.numpy().astype(np.float64)
    by_axis = (slice(None), None, None, None)
    scaled = weight[by_axis] * special.log_softmax(values[1:], axis=0) + offset[by_axis]
    foreground = 1 - special.softmax(values, axis=0)[0]
    expected = special.softmax(scaled, axis=0) * foreground
    for together in (interpolated(foreground), np.sqrt(interpolated(foreground))):
        given = torch.from_numpy(together).float()
        found = list(class_probabilities(head, logits, given, NATIVE, scaling))
        for probability, own in zip(found, expected, strict=True):
            wanted = interpolated(own) / interpolated(foreground) * together
            np.testing.assert_allclose(probability, wanted, atol=3e-6)
        np.testing.assert_allclose(torch.stack(found).sum(0), given, atol=2e-6)


def test_where_no_class_has_a_probability_left_they_share_the_foreground_alike() -> None:
    head = head_of(EXCLUSIVE)
    logits = logits_of(head)
    logits[0] += 500
    found = torch.stack(list(class_probabilities(head, logits, torch.full(SHAPE, 0.3), NATIVE)))
    torch.testing.assert_close(found, torch.full((3, *SHAPE), 0.1))


def test_classes_that_overlap_have_a_sigmoid_each() -> None:
    head = head_of(OVERLAPPING)
    logits = logits_of(head)
    found = list(class_probabilities(head, logits, torch.zeros(SHAPE), NATIVE))
    for probability, logit in zip(found, logits.numpy(), strict=True):
        np.testing.assert_allclose(probability, interpolated(special.expit(logit)), atol=2e-6)


def test_a_single_class_is_the_foreground() -> None:
    head = head_of(Classes.of_organ({1}))
    foreground = torch.rand(SHAPE)
    (found,) = class_probabilities(head, logits_of(head), foreground, NATIVE)
    assert torch.equal(found, foreground)


@pytest.mark.parametrize("classes", [EXCLUSIVE, OVERLAPPING])
def test_a_class_that_the_label_does_not_mark_is_left_out_and_the_others_have_their_own_label(classes: Classes) -> None:
    head = head_of(classes)
    number = {value: part for part, values in enumerate(classes.parts, 1) for value in values} | {0: 0}
    raw = torch.randint(0, len(number), SHAPE, generator=torch.Generator().manual_seed(3))
    label = torch.tensor(np.vectorize(number.__getitem__)(raw.numpy()), dtype=torch.uint8)
    left_out, *marked = classes.names
    known = torch.rand(SHAPE) < 0.5
    volumes = ClassVolumes(head, logits_of(head), torch.rand(SHAPE), NATIVE, label, known, {left_out})
    found = list(volumes)
    assert [volume.name for volume in found] == marked
    for volume in found:
        np.testing.assert_array_equal(volume.label, np.isin(raw.numpy(), list(classes.values[volume.name])))
        assert volume.known is known
    assert [volume.name for volume in volumes] == marked  # it may be read again
