"""The verdict on a mask: few alarms on acceptable masks, and no empty or impossible mask passes."""

import math
from dataclasses import replace

import numpy as np
import pytest

from medmtl.ood.mask_rule import LabelledMask, MaskRule

VOLUMES = {"Liver": (500.0, 2000.0), "Lesion": (1.0, 50.0)}


def masks(task: str, dice: list[float], disagreement: list[float]) -> list[LabelledMask]:
    pairs = enumerate(zip(dice, disagreement, strict=True))
    return [LabelledMask(task, f"{task} {n}", f"case {n}", overlap, found) for n, (overlap, found) in pairs]


def liver_rule(alpha: float = 0.05) -> MaskRule:
    return MaskRule(masks("Liver", [0.9] * 20, np.linspace(0.01, 0.2, 20).tolist()), VOLUMES, alpha)


def test_a_mask_that_differs_more_from_the_mirrored_one_than_any_acceptable_one_is_not_reliable() -> None:
    rule = liver_rule()
    assert rule.threshold == pytest.approx(0.2)
    good, bad = rule("Liver", 1000.0, 0.05), rule("Liver", 1000.0, 0.3)
    assert (good.reliable, good.reasons) == (True, ())
    assert good.p_value == pytest.approx(17 / 21)
    assert (bad.reliable, bad.p_value) == (False, pytest.approx(1 / 21))
    assert bad.reasons[0].text == (
        "the mask of the mirrored image differs by 30 % (1 \N{MINUS SIGN} Dice); "
        "at least 95 % of acceptable masks differ by at most 20 %"
    )


def test_an_empty_mask_and_one_of_an_impossible_volume_never_pass() -> None:
    for rule in (liver_rule(), MaskRule([], VOLUMES, 0.05)):
        for disagreement in (0.0, None):
            empty = rule("Liver", 0.0, disagreement)
            assert (empty.reliable, empty.reasons[0].text) == (False, "the mask is empty")
            huge = rule("Liver", 25_000.0, disagreement)
            assert huge.reliable is False
            assert huge.reasons[0].text == "volume 25000 ml; labels of Liver in training have 500 ml to 2000 ml"
            assert rule("Liver", 240.0, disagreement).reliable is False
            assert rule("Liver", 260.0, disagreement).reliable is not False


def test_no_mask_of_an_image_that_is_out_of_distribution_is_called_reliable() -> None:
    assert liver_rule()("Liver", 1000.0, 0.05, rejected=True).reliable is None
    assert liver_rule()("Liver", 1000.0, 0.3, rejected=True).reliable is False
    assert liver_rule()("Liver", 1000.0, 0.05, rejected=False).reliable is True


def test_masks_that_were_wrong_do_not_set_the_threshold() -> None:
    wrong = masks("Lesion", [0.1, 0.2, math.nan], [0.9, 0.8, 0.7])
    rule = MaskRule([*liver_rule().held_out, *wrong], VOLUMES, 0.05)
    assert len(rule.acceptable(rule.held_out)) == 21  # of the lesions, Dice 0.2 is above their median of 0.15
    strict = MaskRule([*liver_rule().held_out, *masks("Lesion", [0.1, 0.7, 0.8], [0.9, 0.1, 0.1])], VOLUMES, 0.05)
    assert {each.dice for each in strict.acceptable(strict.held_out)} == {0.7, 0.8, 0.9}


def test_with_few_acceptable_masks_it_does_not_decide() -> None:
    few = MaskRule(masks("Liver", [0.9] * 18, [0.1] * 18), VOLUMES, 0.05)
    assert few("Liver", 1000.0, 0.9).reliable is None
    assert liver_rule()("Liver", 1000.0, None).reliable is None
    assert few.threshold == math.inf


def test_acceptable_masks_of_new_patients_are_rejected_no_more_often_than_alpha() -> None:
    rng, draws, alarms = np.random.default_rng(0), 2000, 0
    for _ in range(draws):
        found = rng.beta(2, 12, 31)
        rule = MaskRule(masks("Liver", [0.9] * 30, found[:-1].tolist()), VOLUMES, 0.1)
        alarms += rule("Liver", 1000.0, float(found[-1])).reliable is False
    assert 0 < alarms / draws <= 0.1 + 3 * math.sqrt(0.09 / draws)


def test_acceptable_masks_of_training_images_lower_the_threshold_once_they_are_made_comparable() -> None:
    held_out = [*masks("Liver", [0.9] * 12, np.linspace(0.01, 0.2, 12).tolist())]
    held_out += masks("Lesion", [0.9] * 8, [*np.linspace(0.01, 0.2, 7), 0.6])  # too few for a rule of their own
    seen = masks("Liver", [0.9] * 80, np.linspace(0.01, 0.15, 80).tolist())
    seen = [each._replace(patient=f"seen {each.patient}") for each in seen]
    wrong = [each._replace(dice=0.1, disagreement=0.9, patient=f"wrong {each.patient}") for each in seen]
    alone, joined = MaskRule(held_out, VOLUMES, 0.05), MaskRule(held_out, VOLUMES, 0.05, [*seen, *wrong])
    found = alone.rule.correction, joined.rule.correction
    ends = [np.quantile([each.disagreement for each in part], 0.9) for part in (seen, held_out)]
    assert found == (None, pytest.approx(max(ends[1] - ends[0], 0)))
    assert 0.2 <= joined.threshold < 0.25 < alone.threshold == 0.6
    assert joined("Liver", 1000.0, 0.3).reliable is False


def test_a_task_with_enough_acceptable_masks_has_its_own_threshold() -> None:
    lesions = masks("Lesion", [0.9] * 20, np.linspace(0.1, 0.6, 20).tolist())
    rule = MaskRule([*liver_rule().held_out, *lesions], VOLUMES, 0.05)
    assert rule("Liver", 1000.0, 0.3).reliable is False
    assert rule("Lesion", 10.0, 0.3).reliable is True
    assert rule("Lesion", 10.0, 0.7).reasons[0].text.endswith("differ by at most 60 %")


def test_a_rule_is_the_same_after_saving() -> None:
    seen = [each._replace(patient=f"seen {each.patient}") for each in liver_rule().held_out]
    rule = replace(liver_rule(), training=seen)
    assert MaskRule.from_state_dict(rule.state_dict(), 0.05) == rule
