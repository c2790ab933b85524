"""The verdict: the recipe under which an image is nearest wins, whichever task the image or the bank's is."""

import inspect

import pytest
import torch

from medmtl.data.task import Recipe
from medmtl.inference.verdict import judge
from medmtl.ood.conformal import ConformalRule
from medmtl.ood.outputs import mean_foreground_entropy, mean_foreground_max_softmax
from medmtl.ood.spectral import SignatureBank, signature

RECIPES = [Recipe((1, 1, 1), None), Recipe((2, 2, 2), None), Recipe((2, 2, 2), (-160, 240))]


def grams(seed: int, channels: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    matrices = torch.randn(2, 40, channels, generator=generator, dtype=torch.float64) * torch.arange(1, channels + 1)
    return {layer: matrix.T @ matrix for layer, matrix in zip(("fine", "coarse"), matrices, strict=True)}


def probabilities(seed: int) -> dict[Recipe, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {recipe: torch.rand(1, 3 + number, 4, 5, generator=generator) for number, recipe in enumerate(RECIPES)}


def bank(names: tuple[str, ...] = ("Liver", "Kidney")) -> SignatureBank:
    return SignatureBank.fit([(names[seed % len(names)], f"case{seed}", signature(grams(seed))) for seed in range(8)])


RULE = ConformalRule({"Liver": [number / 1000 for number in range(19)]}, alpha=0.05)


@pytest.mark.parametrize("seed", range(20))
def test_the_recipe_with_the_lowest_oodm_wins(seed: int) -> None:
    found = {recipe: grams(100 + 10 * seed + number) for number, recipe in enumerate(RECIPES)}
    distance = {recipe: bank().nearest(signature(by_layer)).oodm for recipe, by_layer in found.items()}
    best = sorted(RECIPES, key=distance.__getitem__)[0]
    output = probabilities(seed)
    for order in (RECIPES, RECIPES[::-1]):
        verdict = judge(output, {recipe: found[recipe] for recipe in order}, bank(), RULE)
        assert verdict.recipe == best
        assert verdict.nearest == bank().nearest(signature(found[best]))
        assert verdict.scores == {
            "spectral": distance[best],
            "entropy": mean_foreground_entropy(output[best]),
            "max_softmax": mean_foreground_max_softmax(output[best]),
        }
        assert all(torch.equal(verdict.signature[layer], signature(found[best])[layer]) for layer in found[best])


def test_each_recipe_can_win() -> None:
    for number, recipe in enumerate(RECIPES):
        found = {other: grams(200 + seed) for seed, other in enumerate(RECIPES)} | {recipe: grams(number)}
        verdict = judge(probabilities(0), found, bank(), RULE)
        assert verdict.recipe == recipe
        assert (verdict.scores["spectral"], verdict.nearest.case) == (0, f"case{number}")


def test_the_task_is_not_looked_at() -> None:
    assert list(inspect.signature(judge).parameters) == ["probabilities", "grams", "bank", "rule"]
    found = {recipe: grams(300 + number) for number, recipe in enumerate(RECIPES)}
    one, other = (judge(probabilities(0), found, bank(names), RULE) for names in (("A",), ("B", "C", "D")))
    assert (one.recipe, one.scores, one.p_value, one.rejected) == (
        other.recipe,
        other.scores,
        other.p_value,
        other.rejected,
    )
    assert one.nearest.case == other.nearest.case
    assert one.nearest.task == "A"


def test_the_decision_is_that_of_the_rule_on_the_spectral_score() -> None:
    familiar = judge(probabilities(0), {RECIPES[0]: grams(3)}, bank(), RULE)
    assert (familiar.rejected, familiar.p_value) == (False, 1)
    foreign = judge(probabilities(0), {RECIPES[0]: grams(500)}, bank(), RULE)
    assert foreign.scores["spectral"] > RULE.threshold
    assert (foreign.rejected, foreign.p_value) == (True, 1 / 20)
    undecided = judge(probabilities(0), {RECIPES[0]: grams(500)}, bank(), ConformalRule({"Liver": [0.0]}, 0.05))
    assert (undecided.rejected, undecided.p_value) == (None, 1 / 2)
