"""The spectral signature against `svdvals` in float64, its invariances, and the bank against brute force."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets import UNet

from medmtl.data.reading import load_image
from medmtl.data.task import Task
from medmtl.data.task_cases import task_cases
from medmtl.data.working_space import prepare
from medmtl.errors import ConfigError, DataError
from medmtl.ood.detectors.spectral import Spectral
from medmtl.ood.evidence.evidence import Evidence, LayerEvidence, View
from medmtl.ood.evidence.features import FeatureTap
from medmtl.ood.signature import RELATIVE_FLOOR, Norm, Signature, SignatureBank, log_singular_values, signature

LAYERS = ["model.0", "model.0.conv.unit0.conv", "model.1.submodule.0", "model.1.submodule.1", "model.2"]


def gram_of(features: torch.Tensor) -> torch.Tensor:
    """F^T F / n of a feature map F of n voxels."""
    return features.T @ features / len(features)


def features_of(voxels: int = 200, channels: int = 8, seed: int = 0) -> torch.Tensor:
    """Random features whose channels differ in scale and depend on each other."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    return torch.randn(voxels, channels, generator=generator, dtype=torch.float64) @ mixing


def rotation(size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q


def sign(features: torch.Tensor) -> torch.Tensor:
    return signature({"layer": gram_of(features)})["layer"]


def check_against_svd(network: UNet, image: MetaTensor) -> None:
    """Compare with the singular values of the whole feature maps of one image, in float64."""
    window = image.as_tensor()[None, :, :24, :24, :24]
    maps: dict[str, torch.Tensor] = {}
    modules = dict(network.named_modules())
    hooks = [
        modules[layer].register_forward_hook(lambda _, __, output, layer=layer: maps.update({layer: output.clone()}))
        for layer in LAYERS
    ]
    tap = FeatureTap(network, LAYERS)
    with torch.no_grad(), tap.weighing([torch.ones(len(window), side) for side in window.shape[2:]]):
        network(window)
    for hook in hooks:
        hook.remove()
    compared = 0
    for layer in LAYERS:
        matrix = maps[layer].movedim(1, -1).reshape(-1, maps[layer].shape[1]).double()
        assert len(matrix) >= matrix.shape[1]
        sigma = torch.linalg.svdvals(matrix)
        valid = sigma > 1e-5 * sigma[0]
        compared += int(valid.sum())
        logs = log_singular_values(tap.gram_matrices[layer].gram)
        assert float((logs - sigma.log())[valid].abs().max()) < 1e-4
        if valid.all():
            per_voxel = (sigma / len(matrix) ** 0.5).log()
            found = signature(tap.per_voxel())[layer]
            torch.testing.assert_close(found, per_voxel / per_voxel.norm(), rtol=0, atol=1e-4)
    assert compared > 30


def first_image(task: Task) -> MetaTensor:
    return prepare(load_image(task_cases("T", task).cases[0]), task.preprocessing)


def test_log_singular_values_are_those_of_feature_maps_of_a_phantom(
    phantoms: Path, small_unet: Callable[[], UNet]
) -> None:
    check_against_svd(small_unet(), first_image(Task("phantom:KidneyT2", "MR", (4, 4, 4), [1, 2])))


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "modality", "spacing"), [("HippocampusMR", "MR", 1), ("SarcomaCT", "CT", 4)])
def test_log_singular_values_are_those_of_feature_maps_of_a_real_image(
    real_data: Path, small_unet: Callable[[], UNet], name: str, modality: str, spacing: float
) -> None:
    check_against_svd(small_unet(), first_image(Task(str(real_data / name), modality, (spacing,) * 3, [1])))


@pytest.mark.parametrize("smallest", [1e-2, 1e-4, 1.1e-5])
def test_log_singular_values_are_right_down_to_small_ones(smallest: float) -> None:
    sigma = torch.logspace(0, np.log10(smallest), 32, dtype=torch.float64) * 700
    generator = torch.Generator().manual_seed(1)
    left = torch.linalg.qr(torch.randn(500, 32, generator=generator, dtype=torch.float64)).Q
    features = left @ torch.diag(sigma) @ rotation(32)
    assert float((log_singular_values(features.T @ features, 1e-6) - sigma.log()).abs().max()) < 1e-4


@pytest.mark.parametrize("channels", [16, 64])
def test_signatures_of_float32_features_are_right_where_the_spectrum_falls_far(channels: int) -> None:
    # Singular values from 1 down to 1e-5 of the largest; products are float32, and the oracle is float64.
    windows, side = 3, 12
    generator = torch.Generator().manual_seed(1)
    left = torch.linalg.qr(torch.randn(windows * side**3, channels, generator=generator, dtype=torch.float64)).Q
    sigma = torch.logspace(0, -5, channels, dtype=torch.float64) * 700
    features = ((left * sigma) @ rotation(channels)).float()
    network = torch.nn.Sequential(torch.nn.Identity())
    tap = FeatureTap(network, ["0"])
    with tap.weighing([torch.ones(windows, side)] * 3):
        network(features.view(windows, side, side, side, channels).movedim(-1, 1))
    exact = torch.linalg.svdvals(features.double())
    expected = torch.maximum(exact, RELATIVE_FLOOR * exact[0]).log()
    found = log_singular_values(tap.gram_matrices["0"].gram)
    assert float((found - expected).abs().max()) < 5e-3
    per_voxel = expected - np.log(len(features)) / 2
    assert float((signature(tap.per_voxel())["0"] - per_voxel / per_voxel.norm()).abs().max()) < 1e-3


def test_dead_channels_and_too_few_voxels_are_held_at_the_floor() -> None:
    features = features_of(channels=8)
    features[:, 3:5] = 0
    for matrix in (features, features_of(voxels=5, channels=8)):
        logs = log_singular_values(matrix.T @ matrix)
        rank = int(torch.linalg.matrix_rank(matrix))
        expected = torch.linalg.svdvals(matrix)
        torch.testing.assert_close(logs[:rank], expected[:rank].log(), rtol=0, atol=1e-8)
        torch.testing.assert_close(logs[rank:], (RELATIVE_FLOOR * expected[:1]).log().expand(8 - rank))


def test_features_that_are_all_zero_have_a_finite_signature() -> None:
    found = signature({"layer": torch.zeros(4, 4, dtype=torch.float64)})["layer"]
    assert torch.isfinite(found).all()
    assert float(found.norm()) == pytest.approx(1)


def test_a_signature_is_a_falling_unit_vector_in_float64() -> None:
    found = signature({"one": gram_of(features_of()), "two": gram_of(features_of(channels=3))})
    assert {layer: len(vector) for layer, vector in found.items()} == {"one": 8, "two": 3}
    for vector in found.values():
        assert vector.dtype == torch.float64
        assert float(vector.norm()) == pytest.approx(1)
        assert (vector.diff() <= 0).all()


def test_permuting_voxels_and_rotating_channels_leave_the_signature_as_it_is() -> None:
    features = features_of()
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sign(features[order]), sign(features), rtol=0, atol=1e-9)
    torch.testing.assert_close(sign(features @ rotation(8)), sign(features), rtol=0, atol=1e-9)
    torch.testing.assert_close(sign(rotation(200) @ features), sign(features), rtol=0, atol=1e-9)


def test_a_field_of_view_of_more_of_the_same_leaves_the_signature_as_it_is() -> None:
    features = features_of()
    torch.testing.assert_close(sign(torch.cat([features] * 4)), sign(features), rtol=0, atol=1e-9)


def test_scaling_the_features_changes_the_signature() -> None:
    features = features_of()
    assert float((sign(features * 2) - sign(features)).norm()) > 1e-2


def random_signatures(count: int, seed: int = 0) -> list[Signature]:
    return [
        {"a": sign(features_of(seed=1000 * seed + number)), "b": sign(features_of(60, 5, seed=1000 * seed + number))}
        for number in range(count)
    ]


@pytest.fixture
def images() -> list[tuple[str, str, Signature]]:
    return [(f"task{number % 3}", f"case{number}", found) for number, found in enumerate(random_signatures(12))]


def test_the_nearest_to_a_training_image_is_itself(images: list[tuple[str, str, Signature]]) -> None:
    bank = SignatureBank.fit(images)
    for task, case, found in images:
        nearest = bank.nearest(found)
        assert (nearest.oodm, nearest.task, nearest.case) == (0, task, case)


def test_oodm_is_the_mean_over_layers_of_the_smallest_distance(images: list[tuple[str, str, Signature]]) -> None:
    bank = SignatureBank.fit(images)
    apart = 0
    for query in random_signatures(30, seed=1):
        distances = np.array(
            [[np.linalg.norm(found[layer].numpy() - query[layer].numpy()) for layer in "ab"] for *_, found in images]
        )
        nearest = bank.nearest(query)
        assert nearest.oodm == pytest.approx(distances.min(0).mean(), abs=1e-12)
        assert 0 < nearest.oodm <= 2
        task, case, _ = images[distances.mean(1).argmin()]
        assert (nearest.task, nearest.case) == (task, case)
        apart += len(set(distances.argmin(0))) > 1
    # Otherwise the mean of minima and the minimum of means would be the same thing.
    assert apart > 3


def test_a_bank_of_one_layer_is_the_distance_of_the_paper(images: list[tuple[str, str, Signature]]) -> None:
    bank = SignatureBank.fit([(task, case, {"a": found["a"]}) for task, case, found in images])
    (query,) = random_signatures(1, seed=2)
    expected = min(float((found["a"] - query["a"]).norm()) for *_, found in images)
    assert bank.nearest({"a": query["a"]}).oodm == pytest.approx(expected, abs=1e-12)


def test_a_bank_is_the_same_after_a_checkpoint(images: list[tuple[str, str, Signature]]) -> None:
    bank, file = SignatureBank.fit(images), io.BytesIO()
    torch.save(bank.state_dict(), file)
    file.seek(0)
    again = SignatureBank.from_state_dict(torch.load(file, weights_only=True))
    assert (again.tasks, again.cases) == (bank.tasks, bank.cases)
    assert list(again.signatures) == list(bank.signatures)
    for layer, vectors in bank.signatures.items():
        assert again.signatures[layer].dtype == torch.float64
        assert torch.equal(again.signatures[layer], vectors)
    for query in random_signatures(5, seed=3):
        assert again.nearest(query) == bank.nearest(query)


def test_a_bank_without_images_is_refused() -> None:
    with pytest.raises(DataError, match="no training image"):
        SignatureBank.fit([])


def view_of(features: torch.Tensor) -> View:
    """An image with one layer, of some feature map of voxels by channels."""
    kept = LayerEvidence(gram_of(features), features.mean(0), len(features))
    return View("any", {"layer": kept}, {}, torch.empty(0))


def image_of(features: torch.Tensor, task: str = "A", case: str = "1") -> Evidence:
    return Evidence(task, case, case, (view_of(features),), torch.empty(0))


TRAINING = [features_of(seed=10 + number) for number in range(6)]


def fitted(**options: Any) -> Spectral:
    detector = Spectral(**options)
    detector.fit([image_of(features, case=str(number)) for number, features in enumerate(TRAINING)])
    return detector


def distance_to_training(features: torch.Tensor, make: Callable[[torch.Tensor], torch.Tensor]) -> float:
    return min(float((make(features) - make(known)).norm()) for known in TRAINING)


def normalised_logs(features: torch.Tensor, epsilon: float = 0.0, root: float = 1.0) -> torch.Tensor:
    logs = torch.log(torch.linalg.svdvals(features) / root + epsilon)
    return logs / logs.norm()


def medicood_formula(features: torch.Tensor) -> torch.Tensor:
    """Line by line as the public code has it."""
    s = torch.linalg.svdvals(features)
    spectrum = torch.log(torch.diag(s) + 1e-10)
    return spectrum / torch.linalg.norm(spectrum)


@pytest.mark.parametrize("voxels", [150, 200, 600])
def test_the_detector_is_the_distance_of_signatures_of_svdvals(voxels: int) -> None:
    query = features_of(voxels, seed=77)
    found = fitted().score(image_of(query))
    expected = distance_to_training(query, lambda f: normalised_logs(f, root=len(f) ** 0.5))
    assert found == pytest.approx(expected, abs=1e-9)
    whole = fitted(per_voxel=False).score(image_of(query))
    assert whole == pytest.approx(distance_to_training(query, normalised_logs), abs=1e-9)


@pytest.mark.parametrize("voxels", [150, 200, 600])
def test_compat_medicood_is_the_public_formula(voxels: int) -> None:
    query = features_of(voxels, seed=77)
    found = fitted(compat="medicood").score(image_of(query))
    assert found == pytest.approx(distance_to_training(query, medicood_formula), rel=1e-7)
    # It is not the paper's distance, which does not see the matrix beside the diagonal.
    assert found != pytest.approx(distance_to_training(query, lambda f: normalised_logs(f, 1e-10)), rel=1e-2)


def test_neighbour_takes_the_kth_nearest() -> None:
    query = features_of(seed=77)
    distances = sorted(float((sign(query) - sign(known)).norm()) for known in TRAINING)
    for neighbour in range(1, 9):
        expected = distances[min(neighbour, len(TRAINING)) - 1]
        assert fitted(neighbour=neighbour).score(image_of(query)) == pytest.approx(expected, abs=1e-12)


def test_without_l2_the_signature_is_the_logarithms_themselves() -> None:
    query = features_of(seed=77)
    expected = distance_to_training(query, lambda f: log_singular_values(gram_of(f)))
    assert fitted(norm="none").score(image_of(query)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("norm", ["l2", "none"])
def test_a_centred_signature_ignores_the_scale_of_the_features(norm: Norm) -> None:
    query = features_of(seed=77)
    for scale in (0.1, 3.0):
        centred = fitted(centre=True, norm=norm)
        assert centred.score(image_of(query * scale)) == pytest.approx(centred.score(image_of(query)), abs=1e-9)
        plain = fitted(norm=norm)
        assert abs(plain.score(image_of(query * scale)) - plain.score(image_of(query))) > 1e-2


def test_the_field_of_view_counts_only_without_per_voxel() -> None:
    query = features_of(seed=77)
    larger = torch.cat([query] * 8)
    assert fitted().score(image_of(larger)) == pytest.approx(fitted().score(image_of(query)), abs=1e-9)
    whole = fitted(per_voxel=False)
    assert abs(whole.score(image_of(larger)) - whole.score(image_of(query))) > 1e-2


def test_the_floor_bounds_what_dead_channels_do() -> None:
    query = features_of(seed=77)
    query[:, 2] = 0
    scores = [fitted(floor=floor, norm="none").score(image_of(query)) for floor in (1e-8, 1e-4, 1e-1)]
    assert scores == sorted(scores, reverse=True)
    assert scores[2] < scores[0]


def test_whitening_divides_by_the_spread_within_tasks() -> None:
    images = [image_of(f + 5 * (n % 2), task="AB"[n % 2], case=str(n)) for n, f in enumerate(TRAINING)]
    detector = Spectral(whitening=True)
    detector.fit(images)
    signatures = torch.stack([sign(f + 5 * (n % 2)) for n, f in enumerate(TRAINING)])
    residuals = signatures.clone()
    for task in range(2):
        residuals[task::2] -= signatures[task::2].mean(0)
    spread = residuals.square().mean(0).sqrt()
    query = features_of(seed=77)
    expected = float(((signatures - sign(query)) / spread).norm(dim=1).min())
    assert detector.score(image_of(query)) == pytest.approx(expected, rel=1e-9)


def test_the_detector_names_the_nearest_task() -> None:
    images = [image_of(f * (1 + 50 * (n % 2)), task="AB"[n % 2], case=str(n)) for n, f in enumerate(TRAINING)]
    detector = Spectral()
    detector.fit(images)
    for image in images:
        nearest = detector.nearest(image.view)
        assert (nearest.task, nearest.case, nearest.oodm) == (image.dataset, image.case, 0)


@pytest.mark.parametrize("options", [{"neighbour": 0}, {"floor": 1.0}, {"floor": -0.1}])
def test_options_outside_their_domain_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"detector spectral: {next(iter(options))}"):
        Spectral(**options)
