"""Verdict: which recipe fits an image best, how foreign it is, and whether that is too much."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from medmtl.data.task import Recipe
from medmtl.ood.conformal import ConformalRule
from medmtl.ood.outputs import mean_foreground_entropy, mean_foreground_max_softmax
from medmtl.ood.spectral import Nearest, Signature, SignatureBank, signature


@dataclass(frozen=True)
class Verdict:
    """What the scores of one image say.

    Attributes:
        recipe: the recipe under which the image is nearest to the training images.
        signature: the image's signature under it.
        nearest: the nearest training image.
        scores: `spectral`, `entropy`, `max_softmax`; higher = more foreign.
        p_value: conformal p-value of the spectral score, in (0, 1].
        rejected: out of distribution at the rule's alpha; None if that cannot be decided.
    """

    recipe: Recipe
    signature: Signature
    nearest: Nearest
    scores: Mapping[str, float]
    p_value: float
    rejected: bool | None


def nearest_recipe(
    grams: Mapping[Recipe, Mapping[str, torch.Tensor]], bank: SignatureBank
) -> tuple[Recipe, Signature, Nearest]:
    """The recipe under which an image is nearest to the training images.

    Args:
        grams: recipe -> layer -> F^T F / n.
        bank: signatures of the training images.

    Returns:
        The recipe of the lowest OODM, the image's signature under it, and the nearest training image.
    """
    signatures = {recipe: signature(found) for recipe, found in grams.items()}
    nearest = {recipe: bank.nearest(found) for recipe, found in signatures.items()}
    recipe = min(nearest, key=lambda candidate: nearest[candidate].oodm)
    return recipe, signatures[recipe], nearest[recipe]


def judge(
    probabilities: Mapping[Recipe, torch.Tensor],
    grams: Mapping[Recipe, Mapping[str, torch.Tensor]],
    bank: SignatureBank,
    rule: ConformalRule,
) -> Verdict:
    """Score an image that was run through every recipe; the lowest OODM wins.

    Familiar and foreign images, and those that set the threshold, are judged in the same way: nothing here knows
    which task an image comes from.

    Args:
        probabilities: recipe -> foreground probability in its working space.
        grams: recipe -> layer -> F^T F / n.
        bank: signatures of the training images.
        rule: how scores become decisions.
    """
    recipe, found, nearest = nearest_recipe(grams, bank)
    scores = {
        "spectral": nearest.oodm,
        "entropy": mean_foreground_entropy(probabilities[recipe]),
        "max_softmax": mean_foreground_max_softmax(probabilities[recipe]),
    }
    return Verdict(
        recipe=recipe,
        signature=found,
        nearest=nearest,
        scores=scores,
        p_value=rule.p_value(scores["spectral"]),
        rejected=rule.rejects(scores["spectral"]),
    )
