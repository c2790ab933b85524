"""Distances against scikit-learn and brute force on the feature maps themselves."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, mahalanobis
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from medmtl.errors import DataError
from medmtl.ood.detectors.distances import FRODO, KNN, Contrast, MDPool, PCAMahalanobis, ViM, kth_distance
from medmtl.ood.detectors.gaussian import fit_gaussian, principal_axes
from medmtl.ood.detectors.gaussian import mahalanobis as task_distances
from medmtl.ood.evidence.evidence import Evidence, LayerEvidence, View

OUTPUTS = {"max_logit": -4.0, "energy": -4.1}


def maps(count: int, seed: int = 0, channels: int = 6) -> list[torch.Tensor]:
    """Feature maps of 80 voxels, each with a mean of its own."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    means = 0.5 * torch.randn(count, 1, channels, generator=generator, dtype=torch.float64)
    return list(torch.randn(count, 80, channels, generator=generator, dtype=torch.float64) @ mixing + means)


def image_of(features: torch.Tensor, task: str = "A", case: str = "1", **outputs: float) -> Evidence:
    windows = features.reshape(4, 20, -1).mean(1).float()
    kept = LayerEvidence(features.T @ features / len(features), features.mean(0), len(features), windows)
    view = View("any", {"layer": kept}, {**OUTPUTS, **outputs}, torch.empty(0))
    return Evidence(task, case, case, (view,), torch.empty(0))


def images(features: list[torch.Tensor], tasks: str = "A") -> list[Evidence]:
    return [image_of(each, tasks[number % len(tasks)], str(number)) for number, each in enumerate(features)]


def means_of(features: list[torch.Tensor]) -> np.ndarray:
    return np.stack([each.mean(0).numpy() for each in features])


TRAINING, QUERY = maps(14), maps(1, seed=5)[0]


def test_with_one_task_frodo_is_the_mahalanobis_distance_of_scikit_learn() -> None:
    detector = FRODO()
    detector.fit(images(TRAINING))
    means = means_of(TRAINING)
    standard = (means - means.mean(0)) / means.std(0)
    covariance = LedoitWolf().fit(standard)
    query = (QUERY.mean(0).numpy() - means.mean(0)) / means.std(0)
    expected = covariance.mahalanobis(query[None])[0] ** 0.5 / 6
    assert detector.score(image_of(QUERY)) == pytest.approx(expected, rel=1e-9)


def test_each_task_has_a_mean_and_all_share_the_covariance() -> None:
    features = torch.from_numpy(means_of(TRAINING))
    tasks = ["AB"[number % 2] for number in range(len(TRAINING))]
    fitted = fit_gaussian(features, tasks)
    means = np.stack([features[0::2].numpy().mean(0), features[1::2].numpy().mean(0)])
    residuals = features.numpy().copy()
    residuals[0::2] -= means[0]
    residuals[1::2] -= means[1]
    deviation = np.sqrt((residuals**2).mean(0))
    precision = LedoitWolf(assume_centered=True).fit(residuals / deviation).precision_
    query = QUERY.mean(0).numpy()
    expected = [mahalanobis(query / deviation, mean / deviation, precision) for mean in means]
    found = task_distances(fitted, torch.from_numpy(query)[None])[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_md_pool_averages_the_distances_of_windows_and_takes_the_nearest_task() -> None:
    cases = images(TRAINING, tasks="AB")
    detector = MDPool()
    detector.fit(cases)
    windows = torch.cat([case.view.layers["layer"].windows.double() for case in cases])
    fitted = fit_gaussian(windows, [case.dataset for case in cases for _ in range(4)])
    query = image_of(QUERY).view.layers["layer"].windows.double()
    expected = min(task_distances(fitted, query).mean(0))
    assert detector.score(image_of(QUERY)) == pytest.approx(float(expected), rel=1e-9)


def test_pca_mahalanobis_uses_only_the_components() -> None:
    detector = PCAMahalanobis(variance=0.8)
    detector.fit(images(TRAINING))
    found = PCA(0.8, svd_solver="full").fit(means_of(TRAINING))
    assert 0 < found.n_components_ < 6
    reduced = found.transform(means_of(TRAINING))
    query = found.transform(QUERY.mean(0).numpy()[None])[0]
    expected = np.sqrt((query**2 / (reduced**2).mean(0)).sum())
    assert detector.score(image_of(QUERY)) == pytest.approx(expected, rel=1e-9)
    outside = PCA().fit(means_of(TRAINING)).components_[-1]
    moved = image_of(QUERY + 50 * torch.from_numpy(outside))
    assert detector.score(moved) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("neighbour", [1, 3, 14])
@pytest.mark.parametrize("kind", [KNN, Contrast])
def test_knn_is_brute_force(kind: type[KNN], neighbour: int) -> None:
    def describe(features: torch.Tensor) -> np.ndarray:
        return (features.mean(0) if kind is KNN else features.std(0, correction=0).log()).numpy()

    detector = kind(neighbour=neighbour)
    detector.fit(images(TRAINING))
    bank = np.stack([describe(each) for each in TRAINING])
    distances = cdist(describe(QUERY)[None] / bank.std(0), bank / bank.std(0))[0] / 6**0.5
    assert detector.score(image_of(QUERY)) == pytest.approx(sorted(distances)[neighbour - 1], rel=1e-8)


def test_contrast_of_a_dead_channel_is_finite() -> None:
    detector = Contrast()
    detector.fit(images(TRAINING))
    dead = QUERY.clone()
    dead[:, 2] = 0
    assert detector.score(image_of(QUERY)) < detector.score(image_of(dead)) < float("inf")


@pytest.mark.parametrize("dimension", [1, 3, 5, None])
def test_the_residual_of_vim_is_that_of_the_voxels_and_energy_is_added(dimension: int | None) -> None:
    cases = images(TRAINING)
    detector = ViM(dimension=dimension)
    detector.fit(cases)
    origin = means_of(TRAINING).mean(0)
    everything = torch.cat(TRAINING).numpy() - origin
    axes = np.linalg.svd(everything, full_matrices=False)[2][dimension or 3 :]

    def residual(features: torch.Tensor) -> float:
        return float(np.sqrt((((features.numpy() - origin) @ axes.T) ** 2).sum(1).mean()))

    alpha = 4.0 / np.mean([residual(each) for each in TRAINING])
    expected = alpha * residual(QUERY) - 2.5
    assert detector.score(image_of(QUERY, energy=-2.5)) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("kind", [FRODO, PCAMahalanobis])
def test_a_single_image_a_task_is_too_few(kind: type[FRODO]) -> None:
    with pytest.raises(DataError, match="no task has two training images"):
        kind().fit([image_of(TRAINING[0], "A"), image_of(TRAINING[1], "B")])


@pytest.mark.filterwarnings("error")
def test_samples_that_are_all_alike_have_axes_without_a_warning() -> None:
    axes, mean = principal_axes(torch.ones(3, 4, dtype=torch.float64), 0.95)
    assert axes.shape[1] == 4
    assert mean.tolist() == [1.0] * 4


@pytest.mark.parametrize("neighbour", [1, 3, 9])
def test_the_distance_is_that_of_scikit_learn_and_finite_where_squares_are_not(neighbour: int) -> None:
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    query = torch.randn(5, generator=generator, dtype=torch.float64)
    search = NearestNeighbors(n_neighbors=min(neighbour, 7)).fit(bank.numpy())
    expected = search.kneighbors(query[None].numpy())[0][0, -1]
    assert kth_distance(bank, query, neighbour) == pytest.approx(expected, rel=1e-12)
    assert kth_distance(bank * 1e200, query * 1e200, neighbour) == pytest.approx(expected * 1e200, rel=1e-12)
    assert kth_distance(bank, bank[3], 1) == 0
