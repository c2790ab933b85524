"""Coverage of 95 % intervals by simulation, of those in use and of those that they replaced; `make bench` runs it.

Scores are normal, those of OOD patients higher. Where there are several images, a third of the patients on each side
have three, whose scores correlate by 0.8. What was found is added to `bench.json`.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import norm, spearmanr

from medmtl.bootstrap import CaseDraws
from medmtl.ood.metrics.auroc_interval import auroc_interval
from medmtl.ood.metrics.failure import failure_detection
from medmtl.ood.metrics.resampling import weighted_auroc

Floats = NDArray[np.float64]
TARGET = 0.93
ALIKE = 0.8  # correlation of the scores of a patient's images
# In-distribution patients, and patients and AUROC of each OOD group that the figure is the mean over.
SINGLE = [(inside, [group]) for inside in (21, 33) for group in ((14, 0.75), (9, 0.93), (9, 0.98), (3, 0.9))]
MEANS = [(21, [(14, 0.75), (9, 0.93)]), (21, [(9, 0.98), (9, 0.98), (14, 0.99), (21, 0.97)])]


def sample(rng: np.random.Generator, people: int, several: bool, spread: float = 1.0) -> tuple[list[str], Floats]:
    """Patient and score of each image."""
    who = np.repeat(np.arange(people), np.where(np.arange(people) < people // 3, 3, 1) if several else 1)
    common, own = rng.normal(size=people)[who], rng.normal(size=len(who))
    return [f"p{number}" for number in who], spread * (np.sqrt(ALIKE) * common + np.sqrt(1 - ALIKE) * own)


def delong(inside: Floats, outside: Floats, known: Sequence[str], other: Sequence[str]) -> tuple[float, float]:
    """DeLong's interval of the logit, with the patients' sums of placements (Obuchowski 1997)."""
    wins = (outside[:, None] > inside) + (outside[:, None] == inside) / 2
    auroc = wins.mean()
    if auroc in (0, 1):
        return auroc, auroc
    variance = 0.0
    for placements, patients in ((wins.mean(0), known), (wins.mean(1), other)):
        whose = np.unique(patients, return_inverse=True)[1]
        sums = np.bincount(whose, placements - auroc)
        variance += len(sums) / (len(sums) - 1) * (sums**2).sum() / len(placements) ** 2
    half = norm.ppf(0.975) * np.sqrt(variance) / (auroc * (1 - auroc))
    low, high = expit(logit(auroc) + np.array([-half, half]))
    return float(low), float(high)


def auroc_coverage(
    inside: int, groups: Sequence[tuple[int, float]], several: bool, spread: float, samples: int
) -> dict[str, Any]:
    """Share of the samples in which each interval holds the AUROC, or the mean over the OOD groups."""
    rng = np.random.default_rng(0)
    truth = float(np.mean([auroc for _, auroc in groups]))
    ends: dict[str, list[tuple[float, float]]] = {}
    reliable = True
    for _ in range(samples):
        known, low = sample(rng, inside, several)
        others = [sample(rng, people, several, spread) for people, _ in groups]
        high = [
            scores + np.sqrt(1 + spread**2) * norm.ppf(auroc)
            for (_, scores), (_, auroc) in zip(others, groups, strict=True)
        ]
        people = [[f"{number} {name}" for name in names] for number, (names, _) in enumerate(others)]
        draws = CaseDraws.of({"in": known, **{str(number): names for number, names in enumerate(people)}})
        assert draws is not None
        of_groups = [
            weighted_auroc(low, scores, draws.weights["in"], draws.weights[str(number)])
            for number, scores in enumerate(high)
        ]
        resampled = np.mean(of_groups, axis=0)
        observed = float(np.mean([np.mean(scores[:, None] > low) for scores in high]))
        found = auroc_interval(observed, known, people, np.full(len(groups), 1 / len(groups)))
        assert found.low is not None
        assert found.high is not None
        reliable = found.reliable
        ends.setdefault("percentile", []).append(tuple(np.quantile(resampled, (0.025, 0.975))))
        ends.setdefault("expanded", []).append(tuple(draws.of_patients.interval(resampled)))
        if len(groups) == 1:
            ends.setdefault("DeLong, logit", []).append(delong(low, high[0], known, people[0]))
        ends.setdefault("score", []).append((found.low, found.high))
    return {
        "inside": inside,
        "groups": groups,
        "several": several,
        "spread": spread,
        "reliable": reliable,
        "coverage": {name: float(np.mean([a <= truth <= b for a, b in own])) for name, own in ends.items()},
        "width": {name: float(np.mean([b - a for a, b in own])) for name, own in ends.items()},
    }


def failure_coverage(people: int, several: bool, samples: int) -> dict[str, Any]:
    """Coverage of the expanded percentile intervals of AURC and Spearman's correlation; Dice falls with the score."""
    rng = np.random.default_rng(0)

    def images(number: int) -> tuple[list[str], Floats, Floats]:
        patients, scores = sample(rng, number, several)
        return patients, scores, expit(1.5 - scores + rng.normal(size=len(scores)))

    _, scores, dice = images(200_000)
    truth = {"spearman": float(spearmanr(scores, dice).statistic)}
    order = np.argsort(scores)
    truth["aurc"] = float(np.mean(np.cumsum(1 - dice[order]) / np.arange(1, len(dice) + 1)))
    held = dict.fromkeys(truth, 0)
    for _ in range(samples):
        patients, scores, dice = images(people)
        found = failure_detection(scores, dice, patients, [True] * len(patients))
        for name, value in truth.items():
            ends = getattr(found, name)
            held[name] += ends.low <= value <= ends.high
    return {"people": people, "several": several, "coverage": {name: held[name] / samples for name in held}}


def main() -> None:
    """Simulate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    parser.add_argument("--samples", type=int, default=1000)
    given = parser.parse_args()
    cases = [(*case, several, 1.0) for case in SINGLE + MEANS for several in (False, True)]
    cases += [(*case, False, spread) for case in SINGLE[:3] for spread in (0.5, 2.0)]
    rows = []
    for inside, groups, several, spread in cases:
        row = auroc_coverage(inside, groups, several, spread, given.samples)
        rows.append(row)
        name = " + ".join(f"{people} of AUROC {auroc}" for people, auroc in groups)
        images = ", several images" if several else ""
        wide = "" if spread == 1 else f", OOD scores {spread:g} x as wide"
        shown = "  ".join(f"{kind} {row['coverage'][kind]:.3f} ({row['width'][kind]:.2f})" for kind in row["coverage"])
        kept = row["coverage"]["score"] >= TARGET
        verdict = "" if kept else "  BELOW .93" if row["reliable"] else "  below .93, unreliable"
        print(f"{inside} in-distribution and {name}{images}{wide}: {shown}{verdict}", flush=True)
    failures = [failure_coverage(people, several, given.samples) for people in (21, 33) for several in (False, True)]
    for row in failures:
        shown = "  ".join(f"{kind} {coverage:.3f}" for kind, coverage in row["coverage"].items())
        print(f"{row['people']} patients{', several images' if row['several'] else ''}: {shown}")
    kept = json.loads(given.out.read_text()) if given.out.is_file() else {}
    found = {"samples": given.samples, "at_least": TARGET, "auroc": rows, "failure": failures}
    given.out.write_text(json.dumps({**kept, "coverage": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
