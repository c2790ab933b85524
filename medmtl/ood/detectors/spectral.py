"""Spectral: the distance of spectral signatures, as published or with options of the signature."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from medmtl.errors import ConfigError
from medmtl.ood.detectors.base import ViewDetector
from medmtl.ood.detectors.gaussian import spread, task_means
from medmtl.ood.detectors.layers import missing_layers, require
from medmtl.ood.evidence.evidence import Evidence, View
from medmtl.ood.score import Role
from medmtl.ood.signature import RELATIVE_FLOOR, Nearest, Norm, Signature, SignatureBank, medicood_signature, signature

PUBLISHED = "spectral_published"


class Spectral(ViewDetector):
    """OODM, the distance to the nearest spectral signature of the training images, averaged over layers.

    Args:
        name: its key in tables and files.
        layers: which layers; None takes all that the evidence holds.
        per_voxel: divide each map by the root of its number of voxels, so that the field of view does not count. This
            is ours; off is as the paper describes it.
        centre: see `medmtl.ood.signature.signature`.
        floor: see `medmtl.ood.signature.log_singular_values`; None takes `RELATIVE_FLOOR`, and of a checkpoint that of
            its signatures.
        norm: see `medmtl.ood.signature.signature`.
        neighbour: which nearest signature counts, from 1.
        whitening: divide each coordinate of the signature by its spread within tasks.
        compat: `medicood` takes the signature of the public code instead, for which only `layers`, `neighbour` and
            `whitening` have an effect.

    Raises:
        ConfigError: an option outside its domain.
    """

    meaning = "OODM: distance to the nearest training signature"
    compares = "spectral signature"
    reference = "Karimi & Gholipour, arXiv 2004.06569; several layers: Lambert et al., arXiv 2307.15647"

    def __init__(
        self,
        name: str = "spectral",
        layers: list[str] | None = None,
        per_voxel: bool = True,
        centre: bool = False,
        floor: float | None = None,
        norm: Norm = "l2",
        neighbour: int = 1,
        whitening: bool = False,
        compat: Literal["medicood"] | None = None,
    ) -> None:
        if neighbour < 1:
            raise ConfigError(f"detector {name}: neighbour {neighbour}", fix="count neighbours from 1")
        if floor is not None and not 0 <= floor < 1:
            raise ConfigError(f"detector {name}: floor {floor}", fix="use a share of the largest singular value")
        self.name = name
        self.layers = layers
        self.per_voxel = per_voxel
        self.centre = centre
        self.floor = floor
        self.norm: Norm = norm
        self.neighbour = neighbour
        self.whitening = whitening
        self.compat = compat
        self.scale: Signature = {}
        self.bank: SignatureBank | None = None
        plain = (centre, norm, neighbour, whitening, compat) == (False, "l2", 1, False, None)
        self.role: Role = "paper" if plain and not per_voxel else ""
        self.label = ("Spectral (per voxel, ours)" if per_voxel else "Spectral (as published)") if plain else ""

    @classmethod
    def published(cls) -> "Spectral":
        """The signature that the paper describes: singular values of the feature map as it is.

        What the paper does not say is ours: the layers, the mean over several, and the floor.
        """
        return cls(PUBLISHED, per_voxel=False)

    def fit(self, cases: Sequence[Evidence]) -> None:
        """See `Detector.fit`.

        Raises:
            DataError: there is no training image, or a layer is missing.
        """
        require(self, cases)
        self.scale, self.bank = {}, None
        found = [self.signature_of(case.view, self._wanted(case.view)) for case in cases]
        tasks = [case.dataset for case in cases]
        if self.whitening:
            stacked = {layer: torch.stack([each[layer] for each in found]) for layer in found[0]}
            self.scale = {layer: spread(task_means(vectors, tasks)[1]) for layer, vectors in stacked.items()}
            found = [{layer: vector / self.scale[layer] for layer, vector in each.items()} for each in found]
        self.bank = SignatureBank.fit(
            [(case.dataset, case.case, each) for case, each in zip(cases, found, strict=True)], self._floor
        )

    def nearest(self, view: View) -> Nearest:
        """The nearest training image to an image under one preprocessing."""
        assert self.bank is not None, "fit or load the detector first"
        return self.bank.nearest(self.signature_of(view, list(self.bank.signatures)), self.neighbour)

    def score_view(self, view: View) -> float:
        """See `ViewDetector.score_view`."""
        return self.nearest(view).oodm

    def signature_of(self, view: View, layers: Sequence[str]) -> Signature:
        """The signature of an image under one view, with the options of this detector; whitened once fitted."""
        kept = {layer: view.layers[layer] for layer in layers}
        if self.compat == "medicood":
            found = medicood_signature({layer: each.gram * each.voxels for layer, each in kept.items()})
        else:
            grams = {layer: each.gram * (1 if self.per_voxel else each.voxels) for layer, each in kept.items()}
            found = signature(grams, self._floor, self.centre, self.norm)
        return {layer: vector / self.scale[layer] if self.scale else vector for layer, vector in found.items()}

    def missing(self, image: Evidence) -> str:
        """See `Detector.missing`."""
        return missing_layers(image, self._wanted(image.view))

    def state_dict(self) -> dict[str, Any]:
        """See `Detector.state_dict`."""
        assert self.bank is not None, "fit or load the detector first"
        return {"bank": self.bank.state_dict(), "scale": self.scale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Detector.load_state_dict`.

        Raises:
            ValueError: the signatures were fitted with another floor than `floor`.
        """
        bank = SignatureBank.from_state_dict(state["bank"])
        if self.floor is not None and bank.floor != self.floor:
            raise ValueError(f"floor {bank.floor}")
        self.bank = bank
        self.scale = dict(state["scale"])

    @property
    def _floor(self) -> float:
        if self.bank is not None:
            return self.bank.floor
        return RELATIVE_FLOOR if self.floor is None else self.floor

    def _wanted(self, view: View) -> list[str]:
        if self.bank is not None:
            return list(self.bank.signatures)
        return list(view.layers) if self.layers is None else self.layers
