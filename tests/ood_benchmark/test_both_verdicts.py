"""Both verdicts on the images of a benchmark, counted by hand."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medmtl.data.case import Case
from medmtl.data.preprocessing import Preprocessing
from medmtl.ood.evidence.evidence import Evidence, View
from medmtl.ood.mask_rule import LabelledMask, MaskRule
from medmtl.ood_benchmark.both_verdicts import verdict_summary, verdicts_of, with_verdicts
from medmtl.ood_benchmark.images import Image
from medmtl.results.benchmark import Record
from medmtl.results.both_verdicts import BothVerdicts, write_verdicts

COARSE, FINE = Preprocessing((2.0, 2.0, 2.0), None), Preprocessing((1.0, 1.0, 1.0), None)
RULE = MaskRule(
    [LabelledMask("Liver", f"held out {n}", f"{n}", 0.9, n / 100) for n in range(1, 21)],
    {"Liver": (500.0, 2000.0), "Brain": (20.0, 300.0)},
    0.05,
)


def image(group: str, case: str, own: Preprocessing | None = None, severity: int = 0) -> Image:
    task = "" if group == "far" else "Liver"
    return Image(
        group,
        task or "Elsewhere",
        Case(case, case, (), (), (0,)),
        (COARSE, FINE),
        task,
        own,
        (1,),
        None,
        None,
        severity,
    )


def evidence(volumes: tuple[float, float], flips: tuple[float, float]) -> Evidence:
    histogram = torch.ones(1, dtype=torch.float64)
    views = [
        View(str(preprocessing), {}, {"flip_disagreement": flip}, histogram, {"volume_ml": volume})
        for preprocessing, volume, flip in zip((COARSE, FINE), volumes, flips, strict=True)
    ]
    return Evidence("Liver", "case", "case", tuple(views), None, chosen=1)


def test_a_mask_with_a_label_is_judged_as_its_own_task_and_any_other_as_the_nearest() -> None:
    seen = evidence((1000.0, 100.0), (0.05, 0.5))
    own = verdicts_of(image("in_distribution", "a", COARSE), seen, "Brain", 0.8, RULE)
    assert own is not None
    assert (own.nearest_task, own.volume_ml, own.disagreement, own.mask_reliable) == ("Brain", 1000.0, 0.05, True)
    assert (own.dice, own.acceptable) == (0.8, True)
    other = verdicts_of(image("far", "b"), seen, "Brain", None, RULE)
    assert other is not None
    assert (other.volume_ml, other.disagreement, other.mask_reliable, other.acceptable) == (100.0, 0.5, False, None)
    empty = verdicts_of(
        image("far", "c"), replace(seen, views=(replace(seen.view, shape={}),), chosen=0), "Brain", None, RULE
    )
    assert empty is not None
    assert (empty.volume_ml, empty.mask_reliable) == (0.0, False)
    bare = replace(seen, views=(replace(seen.view, shape=None),), chosen=0)
    assert verdicts_of(image("far", "d"), bare, "Brain", None, RULE) is None


def made_of(group: str, case: str, dice: float | None, flip: float, severity: int = 0) -> BothVerdicts:
    own = None if dice is None else COARSE
    found = verdicts_of(image(group, case, own, severity), evidence((1000.0, 100.0), (flip, flip)), "Brain", dice, RULE)
    assert found is not None
    return found


def record(each: BothVerdicts, rejected: bool) -> Record:
    p_value = 0.01 if rejected else 0.5
    return Record(
        "by_task", each.group, each.condition, each.severity, each.task, each.case, each.patient, 0.0, each.dice,
        p_value, rejected,
    )  # fmt: skip


@pytest.fixture
def both() -> list[BothVerdicts]:
    made = [
        (made_of("in_distribution", "good", 0.9, 0.05), False),
        (made_of("in_distribution", "alarm", 0.8, 0.5), False),
        (made_of("in_distribution", "doubtful", 0.3, 0.5), False),
        (made_of("in_distribution", "silent", 0.2, 0.05), False),
        (made_of("covariate", "good", 0.7, 0.05, 1), False),
        (made_of("covariate", "good", 0.1, 0.05, 5), True),
        (made_of("far", "seen", None, 0.05), True),
        (made_of("far", "unseen", None, 0.05), False),
    ]
    return with_verdicts([each for each, _ in made], [record(each, rejected) for each, rejected in made])


def test_the_verdict_on_the_image_joins_that_on_the_mask(both: list[BothVerdicts]) -> None:
    assert [each.rejected for each in both] == [False] * 5 + [True, True, False]
    assert [each.p_value for each in both] == [0.5] * 5 + [0.01, 0.01, 0.5]
    # No mask of an image that is out-of-distribution is called reliable.
    assert [each.mask_reliable for each in both] == [True, False, False, True, True, None, None, True]
    assert [each.flagged for each in both] == [False, True, True, False, False, True, True, False]


def test_flags_are_counted_by_kind_of_image_and_by_what_is_known_of_the_mask(both: list[BothVerdicts]) -> None:
    found = verdict_summary(both, RULE)
    counts = {
        name: [row[key] for key in ("images", "image", "mask", "either")] for name, row in found["groups"].items()
    }
    assert counts == {
        "in_distribution": [4, 0, 2, 2],
        "far": [2, 1, 0, 1],
        "covariate, severity 1": [1, 0, 0, 0],
        "covariate, severity 5": [1, 1, 0, 1],
    }
    assert found["groups"]["in_distribution"]["dice_of_unflagged"] == pytest.approx((0.9 + 0.2) / 2)
    assert found["groups"]["far"]["dice_of_unflagged"] is None
    wrong, right = found["wrong_masks"], found["acceptable_masks"]
    assert [wrong[key] for key in ("images", "image", "mask", "either", "people")] == [3, 1, 1, 2, 3]
    assert [right[key] for key in ("images", "image", "mask", "either")] == [3, 0, 1, 1]
    assert (right["people"], right["people_flagged"]) == (2, {"image": 0, "mask": 1, "either": 1})
    # Disagreements .5, .05, .05 of wrong masks against .05, .5, .05: of nine pairs two are right, five tie.
    assert found["auroc"]["value"] == pytest.approx((2 + 5 / 2) / 9)
    assert [each["case"] for each in found["missed"]] == ["silent", "unseen"]
    assert found["bars"] == {"Liver": 0.6}


def test_without_wrong_masks_nothing_is_said_of_telling_them(both: list[BothVerdicts]) -> None:
    assert verdict_summary(both[:2], RULE)["auroc"] is None
    assert verdict_summary(both, replace(RULE, held_out=[]))["threshold"] is None


def test_the_table_has_a_row_an_image(both: list[BothVerdicts], tmp_path: Path) -> None:
    write_verdicts(tmp_path / "verdicts.csv", both)
    rows = list(csv.DictReader((tmp_path / "verdicts.csv").open()))
    assert [row["case"] for row in rows] == [each.case for each in both]
    assert [row["rejected"] for row in rows] == ["0"] * 5 + ["1", "1", "0"]
    assert [row["mask_reliable"] for row in rows] == ["1", "0", "0", "1", "1", "", "", "1"]
