"""Ensembles: several checkpoints, or one network with active dropout, tested and calibrated as one model."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch
from monai.data import MetaTensor
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from medmtl.calibration.scaling.histogram import to_logits
from medmtl.calibration.scaling.per_task import TaskScalings
from medmtl.calibration.scaling.working_volume import WorkingVolume
from medmtl.data.preprocessing import Preprocessing
from medmtl.data.working_space import to_native
from medmtl.models.extract import output_scores
from medmtl.models.pool import Average, Pool
from medmtl.models.sliding_window import VolumePredictor
from medmtl.ood.evidence.output_scores import Disagreement
from medmtl.ood.verdict import OUTPUTS, Verdict


@dataclass(frozen=True)
class Ensemble:
    """Several networks, or several passes of one, as one model; for `medmtl test` and `medmtl calibrate` alone.

    The run's own network is the first member. Signature, nearest task and verdict come from it alone, without dropout;
    segmentation, calibration, entropy and max-softmax are those of the pool. With outputs per task the probabilities of
    all channels of a head are pooled.

    Args:
        checkpoints: checkpoints that join it: the same network, trained on the same tasks and split, for example
            [runs/multitask-2/checkpoints/best.ckpt].
        dropout_passes: passes of every network over a volume with its dropout layers active, each a member (Monte
            Carlo dropout, Gal & Ghahramani, arXiv 1506.02142); 0 = one pass without dropout.
        average: what is averaged over the members: probabilities, or logits.
        scale: members = each member's probability is scaled by its own checkpoint's scaling, before pooling; pool = the
            pooled probability is scaled, as `medmtl calibrate` fitted it for the same members (Rahaman & Thiery,
            arXiv 2007.08792, find that temperatures must be fitted after pooling).
    """

    checkpoints: list[str] = field(default_factory=list)
    dropout_passes: int = 0
    average: Average = "probabilities"
    scale: Literal["members", "pool"] = "members"

    def __str__(self) -> str:
        """For reports."""
        parts = [f"with {', '.join(self.checkpoints)}"] if self.checkpoints else []
        parts += [f"{self.dropout_passes} passes each with dropout"] if self.dropout_passes else []
        scaled = "each member scaled before" if self.scale == "members" else "the pool scaled"
        return "; ".join([*parts, f"{self.average} averaged", scaled])


class Pooled(NamedTuple):
    """The output of an ensemble for a volume.

    Attributes:
        probability: of foreground, `(1, h, w, d)` in the working space.
        logits: of the channels of the head, `(channels, h, w, d)` in the working space.
        scaled: the same on the image's own grid, `(H, W, D)`, with each member scaled before pooling; None where that
            is not wanted, or the members have no scaling.
        scaled_logits: of the channels of a head with several exclusive classes, with the shares of each member scaled
            before pooling; None where `scaled` is, and for other heads.
        disagreement: see `Disagreement.scores`.
    """

    probability: MetaTensor
    logits: MetaTensor
    scaled: torch.Tensor | None
    scaled_logits: MetaTensor | None
    disagreement: dict[str, float]


@dataclass(frozen=True)
class Members:
    """The networks of an ensemble, which process a volume one after the other.

    Attributes:
        options: how they are run and pooled.
        predictors: one a network, the run's own first.
        scalings: of each network's probability before pooling, in the same order; empty without.
        scaled_as: what the run's scaling is, or must have been, fitted for: this pool, described independently of the
            paths of its files, or (empty) the network by itself.
    """

    options: Ensemble
    predictors: Sequence[VolumePredictor]
    scalings: Sequence[TaskScalings] = ()
    scaled_as: str = ""

    def pool(
        self,
        image: MetaTensor,
        own: MetaTensor,
        case: str,
        native: MetaTensor | None,
        task: str | None,
        name: str | None = None,
    ) -> Pooled:
        """Pool the members' predictions of a volume.

        Args:
            image: `(1, h, w, d)` in a working space.
            own: logits of the run's own network without dropout, of the head.
            case: name of the volume; with the number of the pass it is the seed of the dropout.
            native: a volume on the image's own grid, `(1, H, W, D)`; None if nothing is to be scaled.
            task: the task whose scalings apply, see `TaskScalings.choose`.
            name: the task whose output is read; None for networks with one output for all.
        """
        average, of_foreground = self.options.average, self.predictors[0].probability
        head = self.predictors[0].outputs.heads[name]
        pool, scaled, disagreement = Pool(average, head.background), Pool(average), Disagreement()
        shares = Pool(average, head.background)
        for network, logits in self._passes(image, own, case, name):
            probability = of_foreground(logits, name)
            pool.add(logits.as_tensor())
            disagreement.add(probability.as_tensor())
            if self.scalings and native is not None:
                scale = self.scalings[network].choose(task)
                working = WorkingVolume.of(image[0], probability[0], image.affine, native.affine)
                scaled.add(to_logits(scale(to_native(probability, native), working, native.pixdim.tolist())))
                if head.background and len(head.classes.names) > 1:
                    of_member = head.with_shares(logits, self.scalings[network].shares_of(name))
                    shares.add(of_member.as_tensor())
        pooled = MetaTensor(pool.logits(), affine=image.affine)
        alone = len(head.channels) == 1  # whose probability is pooled itself
        return Pooled(
            MetaTensor(pool.probability(), affine=image.affine) if alone else of_foreground(pooled, name),
            pooled,
            scaled.probability().float() if scaled.members else None,
            MetaTensor(shares.logits(), affine=image.affine) if shares.members else None,
            disagreement.scores(),
        )

    def _passes(
        self, image: MetaTensor, own: MetaTensor, case: str, name: str | None
    ) -> Iterator[tuple[int, MetaTensor]]:
        """Number of the network, and its logits, of each pass."""
        like = next(self.predictors[0].network.parameters())
        for number, predictor in enumerate(self.predictors):
            predictor.network.to(like)
            if predictor.heads is not None:
                predictor.heads.to(like)
            if not self.options.dropout_passes:
                yield number, own if number == 0 else predictor.logits(image, head=name)
            for turn in range(self.options.dropout_passes):
                with dropping(predictor.network, seed_of(case, turn)):
                    logits = predictor.logits(image, head=name)
                yield number, logits


def dropout_layers(network: nn.Module) -> list[nn.Module]:
    """The layers of a network that drop activations in training."""
    return [layer for layer in network.modules() if isinstance(layer, _DropoutNd) and layer.p > 0]


@contextmanager
def dropping(network: nn.Module, seed: int) -> Iterator[None]:
    """Activate a network's dropout layers within the block; normalisation stays in evaluation mode.

    Args:
        network: in evaluation mode.
        seed: of the dropout; random numbers after the block do not depend on it.
    """
    device = next(network.parameters()).device
    layers = dropout_layers(network)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for layer in layers:
            layer.train()
        try:
            yield
        finally:
            for layer in layers:
                layer.eval()


def seed_of(case: str, turn: int) -> int:
    """Seed of the dropout of one pass over one volume: the same in every test, another for every case and pass."""
    return int.from_bytes(hashlib.sha256(f"{case}:{turn}".encode()).digest()[:8]) >> 1


def with_pooled_scores(verdict: Verdict, pooled: Mapping[Preprocessing, Pooled]) -> Verdict:
    """A verdict whose output scores are those of an ensemble, with its members' disagreement beside them."""
    for preprocessing, ensemble in pooled.items():
        if str(preprocessing) == verdict.preprocessing:
            found = output_scores(ensemble.probability.as_tensor(), preprocessing)
            outputs = {name: found[name] for name in OUTPUTS}
            return replace(verdict, scores={**verdict.scores, **outputs, **ensemble.disagreement})
    return verdict
