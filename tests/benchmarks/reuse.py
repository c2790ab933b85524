"""What it costs to choose a checkpoint on the patients who also set temperature and threshold; `make bench` runs it.

A simulation. A training leaves some checkpoints, of which that with the best figure on the validation patients is kept.
Then either these patients set the OOD threshold and the temperature (reused), or as many others do (apart, as with
`data.calibration`). What a patient's images are like differs between checkpoints: the correlation of a patient's scores
under two of them is given. Printed are the share of new in-distribution patients who are rejected, and the ECE of new
patients.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm

from medmtl.calibration.scaling.parametric import Temperature

ALPHA = 0.05
CHECKPOINTS = 10
CORRELATIONS = (0.5, 0.9)
# Logits of the voxels of a patient, and their shares: normal, with a standard deviation of 3.
LOGITS = np.linspace(-12, 12, 161)
SHARES = norm.pdf(LOGITS, scale=3) / norm.pdf(LOGITS, scale=3).sum()
BINS = 20
# Temperatures at which patients would be calibrated: logarithms have this mean and standard deviation.
LOG_TEMPERATURE, SPREAD = math.log(2), 0.4

Floats = NDArray[np.float64]


class Cost(NamedTuple):
    """A figure with the patients reused and with others, and the standard error of their difference."""

    reused: float
    apart: float
    error: float


def drawn(generator: np.random.Generator, correlation: float, checkpoints: int, patients: int) -> Floats:
    """Standard normal numbers, `(checkpoints, patients)`, of given correlation between the checkpoints."""
    shared = generator.standard_normal(patients)
    own = generator.standard_normal((checkpoints, patients))
    return np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own


def false_alarms(
    correlation: float, criterion: float, patients: int, checkpoints: int, repetitions: int, seed: int = 0
) -> Cost:
    """Share of new patients who are rejected at `ALPHA`.

    Args:
        correlation: of a patient's OOD scores under two checkpoints.
        criterion: correlation, over checkpoints, of the figure by which one is chosen with the mean OOD score of the
            validation patients, without its sign: 1 is the worst case, where that of the lowest scores is chosen.
        patients: validation patients, and as many others.
        checkpoints: that are chosen from.
        repetitions: of the simulation.
        seed: of the random numbers.
    """
    generator = np.random.default_rng(seed)
    rank = patients - math.floor(ALPHA * (patients + 1) + 1e-9)  # of the threshold among the scores, from 0
    found = np.empty((repetitions, 2))
    for repetition in range(repetitions):
        scores = drawn(generator, correlation, checkpoints, patients)
        mean = scores.mean(1) * math.sqrt(patients / (1 - correlation))
        figure = criterion * mean + math.sqrt(1 - criterion**2) * generator.standard_normal(checkpoints)
        others = generator.standard_normal(patients)  # were not looked at: any checkpoint's are alike
        thresholds = [np.sort(each)[rank] if rank < patients else np.inf for each in (scores[figure.argmin()], others)]
        found[repetition] = norm.sf(thresholds)
    return _cost(found)


def calibration_errors(
    correlation: float, patients: int, checkpoints: int, repetitions: int, seed: int = 0
) -> dict[str, Cost]:
    """ECE of new patients after a temperature, and ECE of the patients who set it, which is lower.

    The checkpoint of minimum NLL on the validation patients is chosen, which is where the single temperature is nearest
    to 1 and patients agree.

    Args:
        correlation: of the logarithms of a patient's best temperatures under two checkpoints.
        patients: validation patients, and as many others.
        checkpoints: that are chosen from.
        repetitions: of the simulation.
        seed: of the random numbers.
    """
    generator = np.random.default_rng(seed)
    new = _share_of_foreground(generator.standard_normal(2000))
    found = np.empty((2, repetitions, 2))
    for repetition in range(repetitions):
        shares = np.stack([_share_of_foreground(z) for z in drawn(generator, correlation, checkpoints, patients)])
        nll = (SHARES * (np.logaddexp(0, LOGITS) - shares * LOGITS)).sum(1)
        others = _share_of_foreground(generator.standard_normal(patients))
        for number, share in enumerate((shares[nll.argmin()], others)):
            temperature = Temperature.of_voxels(LOGITS, share, SHARES).temperature
            found[:, repetition, number] = [_ece(temperature, new), _ece(temperature, share)]
    return {"new patients": _cost(found[0]), "the patients who set it": _cost(found[1])}


def _share_of_foreground(z: Floats) -> Floats:
    """Share of the voxels of each logit that are foreground, over patients of standard normal z, `(logits,)`."""
    temperatures = np.exp(LOG_TEMPERATURE + SPREAD * z)
    return np.asarray(expit(LOGITS / temperatures[:, None]).mean(0))


def _ece(temperature: float, share: Floats) -> float:
    """Expected calibration error in equal bins of the probability, after a temperature."""
    probability = expit(LOGITS / temperature)
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(place, SHARES * (probability - share), BINS)).sum())


def _cost(found: Floats) -> Cost:
    reused, apart = found.mean(0)
    return Cost(float(reused), float(apart), float(np.diff(found, axis=1).std() / math.sqrt(len(found))))


def measure(patients: int, repetitions: int) -> list[dict[str, Any]]:
    """One row a figure and setting."""
    rows: list[dict[str, Any]] = []
    for correlation in CORRELATIONS:
        setting = {"correlation": correlation, "patients": patients, "checkpoints": CHECKPOINTS}
        for criterion in (0.5, 1.0):
            cost = false_alarms(correlation, criterion, patients, CHECKPOINTS, repetitions)
            rows.append({"figure": f"false alarms, criterion {criterion:g}", **setting, **cost._asdict()})
        for whose, cost in calibration_errors(correlation, patients, CHECKPOINTS, repetitions // 10).items():
            rows.append({"figure": f"ECE of {whose}", **setting, **cost._asdict()})
    return rows


def main() -> None:
    """Simulate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    parser.add_argument("--patients", type=int, default=20)
    parser.add_argument("--repetitions", type=int, default=10_000)
    given = parser.parse_args()
    found = measure(given.patients, given.repetitions)
    rows = json.loads(given.out.read_text()) if given.out.is_file() else {}
    given.out.write_text(json.dumps({**rows, "reuse": found}, indent=1) + "\n")
    print(f"{given.patients} validation patients, the best of {CHECKPOINTS} checkpoints\n")
    print(f"{'':38}{'correlation':>12}{'reused':>9}{'apart':>9}{'error':>9}")
    for row in found:
        print(f"{row['figure']:38}{row['correlation']:12.1f}{row['reused']:9.4f}{row['apart']:9.4f}{row['error']:9.4f}")


if __name__ == "__main__":
    main()
