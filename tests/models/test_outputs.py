"""Outputs per task: probabilities against a softmax, masks against numpy, and what a loss learns of each class."""

from functools import partial

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.losses import DiceCELoss, DiceLoss
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from medmtl.data.classes import Classes
from medmtl.errors import ConfigError, RunError
from medmtl.losses.masked import UNKNOWN
from medmtl.models import sliding_window
from medmtl.models.outputs import Head, Outputs
from medmtl.models.sliding_window import VolumePredictor
from medmtl.models.task_heads import TaskHeads, class_loss

SHAPE = (5, 6, 7)
ABDOMEN = Classes({"liver": frozenset({1}), "spleen": frozenset({4}), "kidney": frozenset({2, 3})})
TUMOUR = Classes({"whole": frozenset({1, 2, 3}), "core": frozenset({2, 3}), "enhancing": frozenset({3})})


def random(channels: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(channels, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def head(classes: Classes) -> Head:
    return Outputs.per_task({"T": classes}).heads["T"]


@pytest.mark.parametrize("classes", [1, 2, 3, 8])
def test_log_odds_are_those_of_the_softmax(classes: int) -> None:
    exclusive = head(Classes({f"c{k}": frozenset({k}) for k in range(1, classes + 1)}))
    logits = random(classes + 1)
    expected = logits.softmax(0)
    torch.testing.assert_close(torch.sigmoid(exclusive.log_odds(logits)), expected[1:])
    torch.testing.assert_close(torch.sigmoid(exclusive.foreground(logits)), 1 - expected[:1])


def test_large_logits_lose_nothing() -> None:
    logits = torch.tensor([0.0, 200.0, -200.0, 199.0]).view(4, 1, 1, 1)
    odds = head(ABDOMEN).log_odds(logits).flatten()
    torch.testing.assert_close(odds, torch.tensor([1.0, -400.0, -1.0]), atol=0.4, rtol=0)
    assert head(ABDOMEN).foreground(logits).item() == pytest.approx(200 + np.log1p(np.exp(-1)), rel=1e-6)


def test_regions_have_a_sigmoid_each_and_their_foreground_is_the_most_probable() -> None:
    logits, regions = random(3), head(TUMOUR)
    assert regions.log_odds(logits) is logits
    torch.testing.assert_close(regions.foreground(logits), logits.max(0, keepdim=True).values)


def test_a_shared_output_is_read_as_it_is() -> None:
    shared = Outputs.shared()
    logits = random(1)
    assert shared.heads[None].foreground(logits) is logits
    assert shared.channels == 1


def test_each_task_has_a_background_and_classes_of_one_name_share_a_channel() -> None:
    tasks = {
        "CT": Classes({"liver": frozenset({6}), "lung": frozenset({1})}),
        "MR": Classes({"liver": frozenset({1}), "kidney": frozenset({2})}),
        "Sarcoma": Classes.of_organ({1}),
        "Other": Classes.of_organ({1}),
        "Glioma": TUMOUR,
    }
    outputs = Outputs.per_task(tasks)
    assert {name: head.channels for name, head in outputs.heads.items()} == {
        "CT": (0, 1, 2),
        "MR": (3, 1, 4),
        "Sarcoma": (5, 6),
        "Other": (7, 8),
        "Glioma": (9, 10, 11),
    }
    assert outputs.channels == 12
    assert outputs.of(["MR", "Glioma"]) == ([3, 1, 4, 9, 10, 11], [slice(0, 3), slice(3, 6)])


def on_grid(values: Tensor) -> MetaTensor:
    return MetaTensor(values.float(), affine=torch.eye(4))


@pytest.mark.parametrize("regions_first", [True, False])
def test_a_channel_is_not_shared_by_classes_that_overlap_and_by_such_that_do_not(regions_first: bool) -> None:
    other = Classes({"core": frozenset({5}), "liver": frozenset({1})})
    tasks = {"Brain": TUMOUR, "Abdomen": other} if regions_first else {"Abdomen": other, "Brain": TUMOUR}
    with pytest.raises(ConfigError, match="class core is a region that overlaps others in Brain and excludes them in"):
        Outputs.per_task(tasks)
    assert Outputs.per_task({"Brain": TUMOUR, "Again": TUMOUR, "Organ": Classes.of_organ({1})}).channels == 3 + 2
    assert Outputs.per_task({"Abdomen": other, "Liver": ABDOMEN}).channels == 2 + 2 + 2


def test_the_mask_of_exclusive_classes_is_that_of_their_foreground_with_the_most_probable_class() -> None:
    logits = random(4)
    probability = logits.softmax(0)
    foreground = 1 - probability[0]
    found = head(ABDOMEN).parts(on_grid(logits), foreground.float(), on_grid(logits[:1]))
    expected = np.where(foreground >= 0.5, probability[1:].argmax(0) + 1, 0)
    np.testing.assert_array_equal(found.numpy(), expected)
    assert (probability[0] == probability.max(0).values).logical_and(
        foreground >= 0.5
    ).sum() > 0  # not an argmax of all


def test_regions_are_written_one_over_the_other() -> None:
    logits = random(3)
    foreground = torch.sigmoid(head(TUMOUR).foreground(logits))[0]
    found = head(TUMOUR).parts(on_grid(logits), foreground.float(), on_grid(logits[:1])).numpy()
    expected = np.zeros(SHAPE)
    for value, region in enumerate(logits.numpy(), 1):
        expected[region >= 0] = value
    np.testing.assert_array_equal(found, expected)


def labels(classes: Classes, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, len(classes.parts) + 1, (1, *SHAPE), generator=generator, dtype=torch.uint8)


def loss_of(loss: nn.Module, own: Head, logits: Tensor, label: Tensor, marked: list[bool]) -> Tensor:
    return class_loss(loss, [own], logits[None], label[None], [marked])


def test_with_one_class_the_loss_is_that_of_the_difference_of_its_two_channels() -> None:
    loss, logits, label = DiceCELoss(sigmoid=True), random(2), labels(Classes.of_organ({1}))
    found = loss_of(loss, head(Classes.of_organ({1})), logits, label, marked=[True])
    torch.testing.assert_close(found, loss((logits[1:] - logits[:1])[None], label[None].double()))


def test_the_dice_of_exclusive_classes_is_that_of_a_softmax() -> None:
    logits, label = random(4), labels(ABDOMEN)
    found = loss_of(DiceLoss(sigmoid=True), head(ABDOMEN), logits, label, marked=[True] * 3)
    expected = DiceLoss(softmax=True, to_onehot_y=True, include_background=False)(logits[None], label[None])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("classes", [ABDOMEN, TUMOUR])
def test_the_loss_is_least_for_the_label(classes: Classes) -> None:
    label, own = labels(classes), head(classes)
    right = torch.stack([torch.isin(label[0], label.new_tensor(classes.parts_of(name))) for name in classes.names])
    logits = 12.0 * right - 6
    if own.background:
        logits = torch.cat([6.0 - 12 * right.any(0, keepdim=True), logits])
    loss = partial(loss_of, DiceCELoss(sigmoid=True), own, label=label, marked=[True] * 3)
    assert loss(logits=logits) < 0.01 < min(loss(logits=logits.flip(0)), loss(logits=-logits))


def test_other_tasks_and_unknown_voxels_get_no_gradient() -> None:
    heads = TaskHeads(3, Outputs.per_task({"A": ABDOMEN, "B": TUMOUR})).double()
    features, label = random(3)[None].requires_grad_(), labels(TUMOUR)[None]
    label[:, :, :2] = UNKNOWN
    heads.loss(DiceCELoss(sigmoid=True), features, label, ["B"], [[True] * 3]).backward()
    gradient = heads.last.weight.grad
    assert gradient is not None
    assert not gradient[:4].any()
    assert gradient[4:].any()
    assert features.grad is not None
    assert not features.grad[:, :, :2].any()
    assert features.grad[:, :, 2:].any()


def test_heads_are_a_convolution_of_which_only_the_wanted_channels_are_computed() -> None:
    heads = TaskHeads(3, Outputs.per_task({"A": ABDOMEN, "B": TUMOUR})).double()
    features = torch.stack([random(3), random(3, seed=1)])
    every = heads.last(leaky_relu(features, 0.1))
    torch.testing.assert_close(heads(features, [[4, 6]]), every[:, [4, 6]])
    torch.testing.assert_close(heads(features, [[0, 1], [6, 5]]), torch.stack([every[0, [0, 1]], every[1, [6, 5]]]))


def test_the_loss_of_a_batch_is_the_mean_of_its_images() -> None:
    heads = TaskHeads(3, Outputs.per_task({"A": ABDOMEN, "B": TUMOUR, "C": Classes.of_organ({1})})).double()
    features = torch.stack([random(3, seed) for seed in range(4)])
    label = torch.stack([labels(each, 3) for each in (ABDOMEN, TUMOUR, ABDOMEN, Classes.of_organ({1}))])
    tasks, marked, loss = (
        ["A", "B", "A", "C"],
        [[True] * 3, [True] * 3, [True, False, True], [True]],
        DiceCELoss(sigmoid=True),
    )
    alone = [heads.loss(loss, features[i : i + 1], label[i : i + 1], tasks[i : i + 1], [marked[i]]) for i in range(4)]
    torch.testing.assert_close(heads.loss(loss, features, label, tasks, marked), torch.stack(alone).mean())
    twice = [features[[0, 0]], label[[0, 0]], ["A", "A"], [[True] * 3, [True] * 3]]
    torch.testing.assert_close(heads.loss(loss, *twice), alone[0])


def test_a_class_that_is_not_marked_is_not_learnt_as_background() -> None:
    """Where the label says background, a spleen that is not marked may be; the others are told that they are not."""
    logits, label = torch.zeros(4, *SHAPE, requires_grad=True), torch.zeros(1, *SHAPE, dtype=torch.uint8)
    own, loss = head(ABDOMEN), DiceCELoss(sigmoid=True)
    loss_of(loss, own, logits, label, marked=[True] * 3).backward()
    assert logits.grad is not None
    assert (logits.grad[2] > 0).all()  # marked: less spleen
    logits.grad = None
    loss_of(loss, own, logits, label, marked=[True, False, True]).backward()
    assert (logits.grad[2] < 0).all()  # not marked: as likely as background, rather than liver or kidney
    torch.testing.assert_close(logits.grad[2], logits.grad[0])


def test_a_checkpoint_with_other_channels_is_refused() -> None:
    heads = TaskHeads(2, Outputs.per_task({"A": ABDOMEN, "B": Classes.of_organ({1})}))
    TaskHeads(2, Outputs.per_task({"A": ABDOMEN, "B": Classes.of_organ({1})})).load_state_dict(heads.state_dict())
    turned = dict(reversed(ABDOMEN.values.items()))
    for tasks in ({"B": Classes.of_organ({1}), "A": ABDOMEN}, {"A": ABDOMEN}, {"A": Classes(turned), "B": TUMOUR}):
        with pytest.raises(RunError, match="the checkpoint has other output channels than the tasks"):
            TaskHeads(2, Outputs.per_task(tasks)).load_state_dict(heads.state_dict())


def test_more_than_64_classes_have_a_loss() -> None:
    many = Classes({f"c{value}": frozenset({value}) for value in range(1, 81)})
    heads = TaskHeads(2, Outputs.per_task({"A": many}))
    loss = heads.loss(DiceCELoss(sigmoid=True), random(2)[None].float(), labels(many)[None], ["A"], [[True] * 80])
    assert loss.isfinite()


def test_large_volumes_are_blended_in_half_precision_with_nearly_the_same_probability(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    predictor = VolumePredictor(nn.Conv3d(1, 4, 3, padding=1).eval(), (8, 8, 8), 0.25, 4)
    predictor.heads = TaskHeads(4, Outputs.per_task({"A": ABDOMEN}))
    image = MetaTensor(torch.rand(1, 20, 18, 16), affine=torch.eye(4))
    with torch.inference_mode():
        single = predictor.logits(image, head="A")
        monkeypatch.setattr(sliding_window, "MOST_VALUES", 10)
        half = predictor.logits(image, head="A")
        assert (single.dtype, half.dtype) == (torch.float32, torch.float16)
        found, expected = (predictor.probability(logits, "A") for logits in (half, single))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0.002, rtol=0)
