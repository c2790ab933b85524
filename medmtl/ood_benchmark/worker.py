"""Worker: observes one image after another and writes the observations to the cache."""

import hashlib
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from monai.data import MetaTensor

from medmtl.accuracy import dice
from medmtl.data.classes import Classes
from medmtl.data.preprocessing import Preprocessing
from medmtl.data.reading import load_image, load_label
from medmtl.data.transforms import split_unknown
from medmtl.data.working_space import prepare_each, to_native
from medmtl.models.ensemble import Ensemble, Members
from medmtl.models.extract import Observer
from medmtl.models.members import read_members
from medmtl.models.segmenter import Segmenter
from medmtl.ood.evidence.evidence import Evidence
from medmtl.ood.evidence.flip import flip_disagreement
from medmtl.ood.verdict import ConformalDetector
from medmtl.ood_benchmark.cache import Cache, Observation
from medmtl.ood_benchmark.images import Image
from medmtl.training.trained import Trained, load_trained


class Worker:
    """Observes images with one network.

    Args:
        segmenter: the network.
        layers: layers whose feature maps are used.
        pooled: those of them that are kept by window; the coarsest if None.
        cache: where observations go.
        seed: of the shifts.
        members: networks and passes of an ensemble; None without one.
        verdict: of the run, which names the nearest task; None where the run has none.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        layers: Sequence[str],
        pooled: Sequence[str] | None,
        cache: Cache,
        seed: int,
        members: Members | None,
        verdict: ConformalDetector | None,
    ) -> None:
        self.verdict = verdict
        self.observer = Observer(segmenter.predictor, layers, pooled)
        self.cache = cache
        self.seed = seed
        self.members = members

    def __call__(self, image: Image, key: str) -> None:
        """Observe an image and keep the observation."""
        native = load_image(image.case)
        label = None
        if image.own is not None and image.case.labels:
            label = load_label(image.case, Classes.of_organ(image.organ), native, image.ignore)
        if image.shift is not None:
            native = shifted(native, image, self.seed)
            label = (
                None if label is None else image.shift.apply_to_label(label, image.severity, _seed(self.seed, image))
            )
        images = prepare_each(native, image.preprocessings)
        with torch.inference_mode():
            evidence, logits = self.observer(
                images, native, image.task or image.condition, image.case.name, image.case.patient
            )
            evidence = self._with_flips(evidence, images, logits, image.own)
            if self.members is not None:
                evidence = _with_disagreement(evidence, self.members, images, logits)
            found = None
            if label is not None and image.own in logits:
                own = self.observer.predictor.probability(logits[image.own], image.own.head)
                found = _dice(own, native, label)
        self.cache.write(key, Observation(evidence, found))

    def _with_flips(
        self,
        evidence: Evidence,
        images: Mapping[Preprocessing, MetaTensor],
        logits: Mapping[Preprocessing, MetaTensor],
        own: Preprocessing | None,
    ) -> Evidence:
        """Evidence with the flip disagreement under the image's own preprocessing and that of the nearest task."""
        nearest = None if self.verdict is None else self.verdict.nearest(evidence).view
        views = []
        for number, (view, (preprocessing, image)) in enumerate(zip(evidence.views, images.items(), strict=True)):
            if number == nearest or preprocessing == own or nearest is None:
                predictor, head = self.observer.predictor, preprocessing.head
                found = predictor.probability(logits[preprocessing], head)
                mask = found[0].as_subclass(torch.Tensor) >= 0.5
                disagreement = flip_disagreement(image.to(found.device), mask, partial(predictor, head=head))
                view = replace(view, outputs={**view.outputs, "flip_disagreement": disagreement})
            views.append(view)
        return replace(evidence, views=tuple(views))


def shifted(native: MetaTensor, image: Image, seed: int) -> MetaTensor:
    """The voxels of an image after its shift, `(C, H, W, D)`.

    Args:
        native: the voxels before, same shape.
        image: of a benchmark.
        seed: of the shifts of the benchmark.
    """
    if image.shift is None:
        return native
    own = _seed(seed, image)
    channels: MetaTensor = torch.cat([image.shift.apply(each, image.severity, own) for each in native.split(1)])
    return channels


def members_of(trained: Trained, checkpoint: Path, ensemble: Ensemble | None) -> Members | None:
    """The members of an ensemble, none of which was trained on a validation or test patient.

    Raises:
        MedMTLError: they do not belong together, see `read_members`.
    """
    if ensemble is None:
        return None
    return read_members(
        ensemble, trained.segmenter.predictor, checkpoint, trained.data.trained, ["val", "calibration", "test"]
    )


def _with_disagreement(
    evidence: Evidence,
    members: Members,
    images: Mapping[Preprocessing, MetaTensor],
    logits: Mapping[Preprocessing, MetaTensor],
) -> Evidence:
    """Evidence with the scores of the members' disagreement under each preprocessing."""
    views = []
    for view, (preprocessing, image) in zip(evidence.views, images.items(), strict=True):
        own = logits[preprocessing]
        case = f"{evidence.dataset}/{evidence.case}"  # as in a test: the same dropout masks
        found = members.pool(image.to(own.device), own, case, None, None, preprocessing.head)
        views.append(replace(view, outputs={**view.outputs, **found.disagreement}))
    return replace(evidence, views=tuple(views))


def _dice(probability: MetaTensor, native: MetaTensor, label: MetaTensor) -> float:
    truth, known = split_unknown(label)
    predicted = to_native(probability.cpu(), native) >= 0.5
    return dice(predicted if known is None else predicted & known[0], truth[0].as_tensor() > 0)


def _seed(seed: int, image: Image) -> int:
    """The seed of a shift: another for each case and shift, the same for all severities."""
    text = f"{seed} {image.condition} {image.task} {image.case.name}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def verdict_of(trained: Trained, layers: Sequence[str]) -> ConformalDetector | None:
    """The run's detector, if its signatures are of the layers that are observed."""
    found = trained.spectral.ood_detector
    return found if found is not None and set(found.bank.signatures) == set(layers) else None


_worker: Worker | None = None


def start(
    checkpoint: Path,
    layers: Sequence[str],
    pooled: Sequence[str] | None,
    cache: Cache,
    seed: int,
    ensemble: Ensemble | None,
    trust: bool,
) -> None:
    """Make this process a worker: one of several, so with a single thread."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which lets the present images end
    torch.set_num_threads(1)
    trained = load_trained(checkpoint, trust=trust)
    members = members_of(trained, checkpoint, ensemble)
    _worker = Worker(trained.segmenter, layers, pooled, cache, seed, members, verdict_of(trained, layers))


def work(image: Image, key: str) -> None:
    """Observe one image, in a process that was started as a worker."""
    assert _worker is not None
    _worker(image, key)
