"""The columns of the benchmark's table against a loop over resamples with scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medmtl.bootstrap import CaseDraws
from medmtl.errors import DataError
from medmtl.ood.metrics.auroc_interval import score_interval
from medmtl.ood.metrics.benchmark_table import Scored, benchmark_table
from medmtl.ood.metrics.detection import detection_metrics


def benchmark(familiar: int = 14) -> Scored:
    """In-distribution patients, the first two with two images; their shifted images; OOD ones; a control."""
    rows = [("in_distribution", "A", 0, f"p{number}") for number in [*range(familiar), 0, 1]]
    for shift, severities in (("noise", (1, 3, 5)), ("inverted", (0,))):
        rows += [("covariate", shift, severity, f"p{who}") for severity in severities for who in range(familiar - 4)]
    rows += [("control", "flip", 0, f"p{who}") for who in range(5)]
    rows += [("nonsense", "empty", 0, f"p{who}") for who in range(familiar)]
    rows += [("far", "Other", 0, f"f{number}") for number in [*range(6), 0]]
    rows += [("near", "Scanner", 0, f"n{number}") for number in range(5)]
    return Scored(*(list(entries) for entries in zip(*rows, strict=True)))


def made_scores(images: Scored, strength: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    base = {"in_distribution": 0.0, "control": 0.0, "far": 2.0, "near": 0.7, "nonsense": 3.0, "covariate": 0.0}
    foreign = [
        base[group] + (0.4 * (severity or 5) if group == "covariate" else 0)
        for group, severity in zip(images.groups, images.severities, strict=True)
    ]
    return np.round(strength * np.array(foreign) + rng.normal(0, 1, len(foreign)), 1)


def brute(images: Scored, scores: np.ndarray, counts: np.ndarray, figure: str) -> dict[str, float]:
    """All columns of one resample, image by image."""
    pairs: dict[tuple, list[float]] = {}
    inside: list[float] = []
    for group, condition, severity, score, count in zip(
        images.groups, images.conditions, images.severities, scores, counts, strict=True
    ):
        repeated = [float(score)] * int(count)
        if group == "in_distribution":
            inside += repeated
        elif group == "covariate":
            pairs.setdefault((group, condition, severity), []).extend(repeated)
        elif group != "control":
            pairs.setdefault((group,), []).extend(repeated)
    values = {}
    for pair, outside in pairs.items():
        if not (inside and outside):
            values[pair] = float("nan")
        elif figure == "auroc":
            values[pair] = roc_auc_score([0] * len(inside) + [1] * len(outside), inside + outside)
        else:
            values[pair] = detection_metrics(inside, outside)["fpr_at_95_in_kept"]
    columns = {group: values[(group,)] for group in ("far", "near", "nonsense")}
    covariate = {pair: value for pair, value in values.items() if pair[0] == "covariate"}
    columns["covariate"] = np.mean(list(covariate.values()))
    columns["covariate_severe"] = np.mean([value for pair, value in covariate.items() if pair[2] in (0, 3, 4, 5)])
    columns["mean"] = np.mean([columns[group] for group in ("far", "near", "covariate", "nonsense")])
    return columns


def test_values_are_those_of_a_loop_and_intervals_those_of_the_patients_behind_them() -> None:
    images = benchmark()
    scores = made_scores(images, 0.8, 1)
    found = benchmark_table(images, {"one": scores})["one"]
    plain = {figure: brute(images, scores, np.ones(len(scores)), figure) for figure in ("auroc", "fpr_at_95_in_kept")}
    # 14 in-distribution patients, two with two images: 16^2 / (2 x 2^2 + 12). Of the OOD images 7 are of 6 patients, 5
    # of 5; shifted images are of 10 patients whatever their number, and nonsense is of 14.
    inside, far = 16**2 / 20, 7**2 / 9
    outside = {"far": far, "near": 5, "covariate": 10, "covariate_severe": 10, "nonsense": 14}
    # All four count alike in the mean. Ten patients are in two of its columns, four in one.
    twice, once = 10 * (1 / 10 + 1 / 14) ** 2, 4 / 14**2
    outside["mean"] = 16 / (1 / far + 1 / 5 + twice + once)
    people = {"far": 6, "near": 5, "covariate": 10, "covariate_severe": 10, "nonsense": 14, "mean": 25}
    assert list(found) == list(people)
    for column, entry in found.items():
        assert entry.auroc.value == pytest.approx(plain["auroc"][column])
        assert entry.fpr_at_95_in_kept == pytest.approx(plain["fpr_at_95_in_kept"][column])
        ends = score_interval(entry.auroc.value, inside, outside[column])
        assert (entry.auroc.low, entry.auroc.high) == pytest.approx(ends)
        assert entry.people == people[column]
        assert entry.auroc.reliable == (column not in ("near", "mean"))  # five patients are too few


def test_a_rank_is_that_of_the_paired_differences_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medmtl.bootstrap.RESAMPLES", 25)
    images = benchmark()
    groups = np.array(images.groups)
    sides = {group: np.flatnonzero(groups == group) for group in dict.fromkeys(images.groups) if group != "control"}
    draws = CaseDraws.of({side: np.array(images.patients)[where].tolist() for side, where in sides.items()})
    assert draws is not None
    counts = np.zeros((25, len(groups)))
    for side, where in sides.items():
        counts[:, where] = draws.weights[side]
    one, other = made_scores(images, 1.0, 2), made_scores(images, 0.4, 3)
    found = benchmark_table(images, {"one": one, "other": other})
    ones, others = ([brute(images, scores, row, "auroc") for row in counts] for scores in (one, other))
    for column, entry in found["one"].items():
        sign = 1 if entry.auroc.value >= found["other"][column].auroc.value else -1
        lead = [sign * (mine[column] - its[column]) for mine, its in zip(ones, others, strict=True)]
        second = found["other" if sign == 1 else "one"][column]
        assert second.rank == ("tied" if draws.of_patients.interval(np.array(lead))[0] <= 0 else "behind")


def test_detectors_are_compared_on_the_same_resamples() -> None:
    images = benchmark()
    good = made_scores(images, 1.5, 2)
    noisy = good + np.random.default_rng(5).normal(0, 0.02, len(good))
    found = benchmark_table(images, {"good": good, "same": 2 * good + 1, "noisy": noisy, "blind": -good})
    for column in found["good"]:
        best = max(found, key=lambda name: found[name][column].auroc.value)
        assert found[best][column].rank == "first"
        assert found["same"][column] == found["good"][column]
        assert found["good"][column].rank in ("first", "tied")
        assert found["noisy"][column].rank in ("first", "tied")
        assert found["blind"][column].rank == ("tied" if column == "near" else "behind")  # five patients
        assert found["blind"][column].auroc.value == pytest.approx(1 - found["good"][column].auroc.value)


def test_a_paired_difference_finds_what_overlapping_intervals_hide() -> None:
    images = benchmark(40)
    better = made_scores(images, 1.0, 3)
    foreign = np.isin(images.groups, ["far", "near", "covariate", "nonsense"])
    worse = better - 0.25 * foreign
    found = benchmark_table(images, {"better": better, "worse": worse})
    one, other = found["better"]["mean"], found["worse"]["mean"]
    assert one.auroc.low < other.auroc.high
    assert (one.rank, other.rank) == ("first", "behind")


def test_columns_without_images_are_missing_and_the_mean_is_over_the_rest() -> None:
    images = benchmark()
    keep = [index for index, group in enumerate(images.groups) if group not in ("near", "nonsense")]
    fewer = Scored(*([entries[index] for index in keep] for entries in vars(images).values()))
    scores = made_scores(images, 1, 4)[keep]
    found = benchmark_table(fewer, {"one": scores})["one"]
    assert list(found) == ["far", "covariate", "covariate_severe", "mean"]
    assert found["mean"].auroc.value == pytest.approx((found["far"].auroc.value + found["covariate"].auroc.value) / 2)
    alone = replace(images, groups=["far" if group == "in_distribution" else group for group in images.groups])
    assert benchmark_table(alone, {"one": made_scores(images, 1, 4)}) == {"one": {}}


def test_a_single_patient_on_a_side_gives_no_interval() -> None:
    images = benchmark()
    one = replace(
        images,
        patients=["n0" if group == "near" else who for group, who in zip(images.groups, images.patients, strict=True)],
    )
    found = benchmark_table(one, {"one": made_scores(images, 1, 4)})["one"]
    for column in ("near", "mean"):
        assert found[column].auroc.value is not None
        assert found[column].auroc.low is None
        assert found[column].rank is None
    assert found["far"].auroc.low is not None


@pytest.mark.parametrize("broken", ["short", "nan"])
def test_a_detector_without_a_score_for_every_image_is_named(broken: str) -> None:
    images = benchmark()
    scores = made_scores(images, 1, 4)
    scores = scores[:-1] if broken == "short" else np.r_[scores[:-1], np.nan]
    with pytest.raises(DataError, match="detector volume: not one number for every image"):
        benchmark_table(images, {"volume": scores})
