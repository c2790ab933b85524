"""Ensembles: the mean of members that were run by themselves, the same whenever it is asked for."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from torch import nn

from medmtl.calibration.scaling.class_shares import FittedShares
from medmtl.calibration.scaling.per_task import Fitted, TaskScalings, Temperature
from medmtl.calibration.scaling.vector import VectorScaling
from medmtl.data.classes import Classes
from medmtl.data.preprocessing import Preprocessing
from medmtl.data.working_space import to_native
from medmtl.models.ensemble import Ensemble, Members, dropout_layers, dropping, seed_of
from medmtl.models.extract import Observer
from medmtl.models.outputs import Outputs
from medmtl.models.segmenter import Segmenter
from medmtl.models.sliding_window import VolumePredictor
from medmtl.models.task_heads import TaskHeads
from medmtl.ood.detectors.spectral import Spectral
from medmtl.ood.evidence.output_scores import mean_foreground_entropy
from medmtl.ood.nearest import with_preprocessings
from medmtl.ood.verdict import ConformalDetector
from medmtl.ood_benchmark.worker import _with_disagreement

FINE, COARSE = Preprocessing((1.0, 1.0, 1.0), None), Preprocessing((2.0, 2.0, 2.0), None)
WINDOW = (8, 8, 8)
AVERAGES = ("probabilities", "logits")

pytestmark = pytest.mark.usefixtures("without_gradients")


@pytest.fixture
def without_gradients() -> Any:
    with torch.no_grad():
        yield


def unet(seed: int, dropout: float = 0.2, norm: str = "instance", channels: int = 1) -> UNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return UNet(3, 1, channels, channels=(4, 8), strides=(2,), num_res_units=1, norm=norm, dropout=dropout).eval()


def predictor(network: nn.Module) -> VolumePredictor:
    return VolumePredictor(network, WINDOW, overlap=0.25, window_batch=3)


def volume(seed: int, shape: tuple[int, int, int] = (10, 9, 8), step: float = 1) -> MetaTensor:
    values = torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))
    return MetaTensor(values, affine=torch.diag(torch.tensor([step, step, step, 1.0], dtype=torch.float64)))


def mean(logits: Sequence[torch.Tensor], average: str) -> torch.Tensor:
    """Brute force, float64."""
    stack = torch.stack([member.as_tensor().double() for member in logits])
    return torch.sigmoid(stack.mean(0)) if average == "logits" else torch.sigmoid(stack).mean(0)


def run(options: Ensemble, predictors: Sequence[VolumePredictor], image: MetaTensor, case: str = "a") -> torch.Tensor:
    pooled = Members(options, predictors).pool(image, predictors[0].logits(image), case, None, None)
    assert torch.equal(pooled.probability.affine, image.affine)
    return pooled.probability.as_tensor()


@pytest.mark.parametrize("average", AVERAGES)
def test_several_networks_are_averaged(average: Any) -> None:
    predictors, image = [predictor(unet(seed)) for seed in range(3)], volume(0)
    expected = mean([one.logits(image) for one in predictors], average)
    found = run(Ensemble(average=average), predictors, image)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)
    assert not torch.allclose(found, predictors[0](image).as_tensor(), atol=1e-3)


@pytest.mark.parametrize("average", AVERAGES)
def test_a_single_network_without_dropout_is_that_network(average: Any) -> None:
    alone, image = predictor(unet(0)), volume(0)
    assert torch.equal(run(Ensemble(average=average), [alone], image), alone(image).as_tensor())


@pytest.mark.parametrize("average", AVERAGES)
def test_passes_with_dropout_are_averaged_over_every_network(average: Any) -> None:
    networks, image = [unet(seed) for seed in range(2)], volume(0)
    passes = []
    for network in networks:
        for turn in range(3):
            for layer in network.modules():
                layer.training = isinstance(layer, nn.Dropout)
            torch.manual_seed(seed_of("a", turn))
            passes.append(predictor(network).logits(image))
            network.eval()
    found = run(Ensemble(average=average, dropout_passes=3), [predictor(network) for network in networks], image)
    torch.testing.assert_close(found.double(), mean(passes, average), rtol=0, atol=1e-6)
    assert len({float(one.mean()) for one in passes}) == 6


def test_dropout_depends_on_case_and_pass_alone_and_leaves_no_trace() -> None:
    alone, image, options = predictor(unet(0)), volume(0), Ensemble(dropout_passes=2)
    before, state = alone(image), torch.random.get_rng_state()
    first = run(options, [alone], image)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(alone(image), before)
    torch.manual_seed(99)
    assert torch.equal(run(options, [alone], image), first)
    assert not torch.equal(run(options, [alone], image, "b"), first)
    assert not torch.equal(run(Ensemble(dropout_passes=1), [alone], image), first)


def test_only_dropout_is_put_to_work_and_ends_even_after_an_error() -> None:
    network = unet(0, norm="batch")
    with dropping(network, 0):
        assert {type(layer) for layer in network.modules() if layer.training} == {nn.Dropout}
    with pytest.raises(RuntimeError), dropping(network, 0):
        network(torch.zeros(1))
    assert not any(layer.training for layer in network.modules())


@pytest.mark.parametrize(("dropout", "found"), [(0.2, True), (0.0, False), (None, False)])
def test_dropout_that_leaves_nothing_out_is_none(dropout: Any, found: bool) -> None:
    assert bool(dropout_layers(unet(0, dropout))) == found
    assert dropout_layers(nn.Sequential(nn.Dropout3d(0.1), nn.ReLU()))


def scalings(temperature: float) -> TaskScalings:
    single, own = (Fitted(Temperature(value), 1, 1, 1.0, 1.0) for value in (1.5, temperature))
    return TaskScalings(single, {"Liver": own})


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("task", ["Liver", None])
def test_members_are_scaled_by_their_own_temperature_on_the_image_s_own_grid(average: Any, task: str | None) -> None:
    image, native = volume(0, (5, 5, 4), step=2), volume(1)
    predictors = [predictor(unet(seed)) for seed in range(2)]
    temperatures = (3.0, 0.5) if task else (1.5, 1.5)
    scaled = [
        torch.logit(to_native(one(image), native).double()) / temperature
        for one, temperature in zip(predictors, temperatures, strict=True)
    ]
    stack = torch.stack(scaled)
    expected = torch.sigmoid(stack.mean(0)) if average == "logits" else torch.sigmoid(stack).mean(0)
    members = Members(Ensemble(average=average), predictors, [scalings(3.0), scalings(0.5)])
    pooled = members.pool(image, predictors[0].logits(image), "a", native, task)
    assert pooled.scaled is not None
    assert (pooled.scaled.shape, pooled.scaled.dtype) == (native.shape[1:], torch.float32)
    torch.testing.assert_close(pooled.scaled.double(), expected, rtol=0, atol=1e-6)
    # The pool itself is that of the members as they are.
    raw = mean([one.logits(image) for one in predictors], average)
    torch.testing.assert_close(pooled.probability.as_tensor().double(), raw, rtol=0, atol=1e-6)


CLASSES = {
    "Parts": Classes({"head": frozenset({1}), "tail": frozenset({2})}),
    "Regions": Classes({"whole": frozenset({1, 2}), "core": frozenset({2})}),
    "Organ": Classes.of_organ({1}),
}


def with_heads(seed: int) -> VolumePredictor:
    found = predictor(unet(seed, channels=3))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found.heads = TaskHeads(3, Outputs.per_task(CLASSES)).eval()
        found.heads.last.weight.mul_(8)
    return found


def channels_of(logits: torch.Tensor, task: str) -> torch.Tensor:
    values = logits.as_subclass(torch.Tensor).double()
    return torch.sigmoid(values) if task == "Regions" else torch.softmax(values, 0)


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("task", list(CLASSES))
def test_all_channels_of_a_head_are_averaged(average: Any, task: str) -> None:
    predictors, image = [with_heads(seed) for seed in range(3)], volume(0)
    each = [one.logits(image, head=task) for one in predictors]
    stack = torch.stack([logits.as_tensor() for logits in each])
    expected = (
        channels_of(stack.mean(0), task)
        if average == "logits"
        else torch.stack([channels_of(logits, task) for logits in stack]).mean(0)
    )
    members = Members(Ensemble(average=average), predictors)
    pooled = members.pool(image, each[0], "a", None, None, task)
    torch.testing.assert_close(channels_of(pooled.logits, task), expected, rtol=0, atol=1e-6)
    foreground = expected.amax(0) if task == "Regions" else 1 - expected[0]
    torch.testing.assert_close(pooled.probability[0].as_tensor().double(), foreground, rtol=0, atol=1e-6)
    alone = Members(Ensemble(average=average), predictors[:1]).pool(image, each[0], "a", None, None, task)
    assert torch.equal(alone.logits, each[0])
    assert torch.equal(alone.probability, predictors[0].probability(each[0], task))


def test_the_shares_of_each_member_s_classes_are_scaled_as_its_checkpoint_says_before_pooling() -> None:
    predictors, image = [with_heads(seed) for seed in range(2)], volume(0)
    vectors = [
        VectorScaling(torch.tensor(w).double(), torch.tensor(b).double())
        for w, b in (([0.5, 0.8], [0.3, -0.3]), ([1.5, 0.2], [-0.9, 0.9]))
    ]
    own = [
        replace(scalings(3.0), shares={"Parts": FittedShares(vector, ("head", "tail"), 3, 1, 1.0, 1.0)})
        for vector in vectors
    ]
    each = [one.logits(image, head="Parts") for one in predictors]
    expected = []
    for logits, vector in zip(each, vectors, strict=True):
        plain = channels_of(logits, "Parts")
        within = (plain[1:] / plain[1:].sum(0)).log()
        by_axis = (slice(None), None, None, None)
        shares = torch.softmax(vector.weight[by_axis] * within + vector.offset[by_axis], 0)
        expected.append(torch.cat([plain[:1], shares * plain[1:].sum(0)]))
    pooled = Members(Ensemble(), predictors, own).pool(image, each[0], "a", image, "Liver", "Parts")
    assert pooled.scaled_logits is not None
    found = channels_of(pooled.scaled_logits, "Parts")
    torch.testing.assert_close(found, torch.stack(expected).mean(0), rtol=0, atol=1e-6)
    regions = Members(Ensemble(), predictors, own).pool(
        image, predictors[0].logits(image, head="Regions"), "a", image, "Liver", "Regions"
    )
    assert regions.scaled is not None
    assert regions.scaled_logits is None


def test_the_benchmark_asks_members_for_the_output_of_each_task() -> None:
    predictors = [with_heads(seed) for seed in range(2)]
    images = {FINE._replace(head=task): volume(0) for task in CLASSES}
    observer = Observer(predictors[0], ["model.0", "model.1.submodule"])
    evidence, logits = observer(images, volume(0), "Parts", "a", "a")
    found = _with_disagreement(evidence, Members(Ensemble(), predictors), images, logits)
    for view, task in zip(found.views, CLASSES, strict=True):
        first, second = (one(volume(0), head=task)[0] >= 0.5 for one in predictors)
        distance = 1 - 2 * float((first & second).sum()) / float(first.sum() + second.sum())
        assert view.outputs["pairwise_dice_distance"] == pytest.approx(distance)


def segmenter(network: nn.Module, others: Sequence[nn.Module] = (), **options: Any) -> Segmenter:
    model = Segmenter(network, WINDOW, DiceCELoss(sigmoid=True), partial(torch.optim.SGD, lr=0.1))
    model.members = Members(Ensemble(**options), [model.predictor, *map(predictor, others)])
    return model.eval()


def scan(own: Preprocessing | None) -> dict[str, Any]:
    native = volume(0)
    label = MetaTensor((native.as_tensor() > 0.5).to(torch.uint8), affine=native.affine)
    images = {FINE: native, COARSE: volume(1, (5, 5, 4), step=2)}
    return {
        "images": images,
        "native": native,
        "label": label,
        "case": "a",
        "patient": "a",
        "known": None,
        "missing": frozenset(),
        "dataset": "Liver",
        "own": own,
    }


def test_a_case_is_measured_by_the_pool_under_its_own_preprocessing() -> None:
    networks, item = [unet(seed) for seed in range(2)], scan(FINE)
    outputs = segmenter(networks[0], networks[1:]).validation_step(item, 0)
    expected = mean([predictor(network).logits(item["native"]) for network in networks], "probabilities")
    torch.testing.assert_close(outputs.segmentation.probability.double(), expected[0], rtol=0, atol=1e-6)
    predicted, label = expected[0] >= 0.5, item["label"][0].as_tensor().bool()
    assert outputs.segmentation.accuracy["dice"] == pytest.approx(
        float(2 * (predicted & label).sum() / (predicted.sum() + label.sum()))
    )
    assert outputs.segmentation.scaled is None


@pytest.mark.parametrize("own", [FINE, None])
def test_the_run_s_own_network_chooses_the_preprocessing_and_only_that_is_pooled(
    own: Preprocessing | None,
) -> None:
    networks, item = [unet(seed) for seed in range(2)], scan(own)
    model = segmenter(networks[0], networks[1:], dropout_passes=2)
    observer = Observer(model.predictor, ["model.0", "model.1.submodule"])
    evidence, logits = observer(item["images"], item["native"], "Kidney", "k", "k")
    plain = {preprocessing: torch.sigmoid(found) for preprocessing, found in logits.items()}
    coarse = with_preprocessings(evidence, {str(COARSE)})
    model.observer, model.ood_detector = (
        observer,
        ConformalDetector.fit(Spectral(), [coarse], [coarse], 0.05),
    )
    outputs = model.test_step(item, 0)
    assert outputs.verdict.scores["spectral"] == 0  # of the run's own network, whose signature is in the bank
    entropy = mean_foreground_entropy(outputs.probabilities[COARSE].as_tensor())
    assert outputs.verdict.scores["entropy"] == entropy
    pooled = {
        preprocessing
        for preprocessing in plain
        if not torch.equal(outputs.probabilities[preprocessing], plain[preprocessing])
    }
    assert pooled == ({FINE, COARSE} if own else {COARSE})
    assert all(0 < outputs.verdict.scores[name] < 1 for name in ("mutual_information", "pairwise_dice_distance"))
    assert model.validation_step(scan(FINE), 0).verdict is None
    again = model.test_step(item, 0)
    assert again.verdict.scores == outputs.verdict.scores
    assert all(
        torch.equal(again.probabilities[preprocessing], outputs.probabilities[preprocessing]) for preprocessing in plain
    )


def test_other_networks_are_no_part_of_the_weights() -> None:
    network = unet(0)
    names = {f"network.{name}" for name in network.state_dict()}
    assert set(segmenter(network, [unet(1)]).state_dict()) == names
