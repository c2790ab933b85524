"""A stand-in for a network: bright voxels are organ, and the name of an image decides its verdict."""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray

from medmtl.data.datamodule import MultiTaskData
from medmtl.data.task import Task
from medmtl.io.reader import Scan
from medmtl.models.outputs import Outputs
from medmtl.models.parts import Parts
from medmtl.models.sliding_window import VolumePredictor
from medmtl.models.task_heads import SLOPE, TaskHeads
from medmtl.ood.detectors import ByTask
from medmtl.predict.model import Model
from medmtl.predict.prediction import Prediction

ALPHA = 0.05
OUT, ODD = "ood", "odd"  # images whose names begin so are OOD, or undecided
EMPTY = "there is nothing bright"  # the warning, where it is so
REASON = "more parts: parts 17; masks of LiverCT in training have 1 to 3"
AFFINE = np.array([[0, -1.5, 0, 20], [2, 0, 0, -7], [0, 0, 3, 5], [0, 0, 0, 1]])


class BrightModel(Model):
    """Stands in for a trained network.

    Attributes:
        calls: name, task and modality of each image that was predicted.
        before: called with each scan before it is predicted.
    """

    def __init__(self) -> None:
        self.tasks = {
            "LiverCT": Task(root="phantom:LiverCT", modality="CT", organ=[1], spacing=(3, 3, 3)),
            "KidneyT2": Task(root="phantom:KidneyT2", modality="MR", organ=[1], spacing=(2, 2, 2)),
        }
        self.name, self.alpha = "best.ckpt", ALPHA
        self.calls: list[tuple[str, str | None, str | None]] = []
        self.before: Callable[[Scan], None] = lambda scan: None

    def predict_scan(self, scan: Scan, task: str | None = None, modality: str | None = None) -> Prediction:
        self.before(scan)
        self.calls.append((scan.name, task, modality))
        mask = (scan.image.as_tensor()[0].numpy() > 100).astype(np.uint8)
        ood, odd = scan.name.startswith(OUT), scan.name.startswith(ODD)
        used = task or "LiverCT"
        return Prediction(
            mask=mask,
            probability=np.where(mask, 0.9, 0.1).astype(np.float32),
            affine=scan.image.affine.numpy(),
            task=used,
            preprocessing=str(self.tasks[used].preprocessing),
            in_distribution=None if odd else not ood,
            p_value=0.01 if ood else None if odd else 0.5,
            alpha=self.alpha,
            nearest_task="LiverCT",
            ood_score=0.4 if ood else 0.1,
            scores={"spectral": 0.4 if ood else 0.1, "entropy": float("nan")},
            mask_reliable=None if odd else not ood and bool(mask.any()),
            mask_p_value=0.02 if ood else 0.6,
            mask_disagreement=0.7 if ood else 0.1,
            reasons=(REASON,) if ood else (),
            nearest_image="LiverCT/liver_7",
            volume_ml=float(mask.sum() * 9 / 1000),
            expected_volume_ml=float(np.where(mask, 0.9, 0.1).sum() * 9 / 1000),
            seconds={"resampling": 0.1, "inference": 0.2, "verdict": 0.3},
            warnings=() if mask.any() else (EMPTY,),
            scan=scan,
        )


def save_scan(path: Path, seed: int = 0, affine: NDArray = AFFINE, organ: bool = True) -> Path:
    """A volume of noise with a bright box, 12 x 10 x 8 voxels."""
    voxels = np.random.default_rng(seed).normal(20, 5, (12, 10, 8)).astype(np.float32)
    if organ:
        voxels[3:7, 4:8, 2:5] = 150 + seed
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


GRID = np.diag([-2.0, 2.0, 2.0, 1.0])  # the working space of the tasks of `class_model`, seen from the other side
MIDDLE, BRIGHT = 0, 120  # Hounsfield units from which the second and third channel of its heads win
SLOPES, BIASES = (0.0, 20.0, 60.0), (0.0, 4.0, -12.0)  # of their logits, in the network's intensity: HU / 200 - 0.2


def class_model(outputs: str | None = None, **tasks: dict) -> Model:
    """A real model without an OOD detector, whose network looks at each voxel alone.

    Args:
        outputs: of the network, as in a configuration.
        tasks: name -> `organ` or `classes`. Of a class the logit is the steeper the later it is, see `logits_of`.
    """
    built = {name: Task(root="", modality="CT", spacing=(2, 2, 2), **given) for name, given in tasks.items()}
    data = MultiTaskData(built, patch_size=(8, 8, 8), outputs=outputs)
    predictor = VolumePredictor(torch.nn.Conv3d(1, 1 if data.heads is None else 2, 1).eval(), (8, 8, 8), 0.25, 4)
    network = predictor.network
    if data.heads is not None:
        predictor.heads = TaskHeads(2, Outputs.per_task(data.heads))
    with torch.no_grad():
        if predictor.heads is None:
            network.weight[:], network.bias[:] = SLOPES[1], BIASES[1]
        else:
            # Of x and -x the heads see the positive parts and a tenth of the negative ones, so 1.1 x in all.
            network.weight[:, 0, 0, 0, 0], network.bias[:] = torch.tensor([1.0, -1.0]), 0
            last = predictor.heads.last
            for head in predictor.outputs.heads.values():
                first = 0 if head.background else 1
                for place, channel in enumerate(head.channels):
                    slope = SLOPES[first + place] / (1 + SLOPE)
                    last.weight[channel, :, 0, 0, 0], last.bias[channel] = (
                        torch.tensor([slope, -slope]),
                        BIASES[first + place],
                    )
    known = {name: task.known for name, task in data.trained.items()}
    return Model(Parts(known, predictor, [], ALPHA, ByTask(), None, None, None), "best.ckpt")


def logits_of(hounsfield: NDArray) -> NDArray:
    """The three logits of each voxel, `(3, H, W, D)`: background, a middling class, a bright one."""
    seen = np.clip((hounsfield.astype(np.float64) + 160) / 200 - 1, -1, 1)
    return np.stack([slope * seen + bias for slope, bias in zip(SLOPES, BIASES, strict=True)])


def save_classes(path: Path, affine: NDArray = GRID) -> NDArray:
    """An image of 12 x 10 x 8 voxels with a middling box and a bright one within it; returns its voxels."""
    voxels = np.random.default_rng(0).normal(-100, 10, (12, 10, 8)).astype(np.int16)
    voxels[2:10, 2:8, 2:6] = 40
    voxels[5:9, 3:6, 3:5] = 160
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return voxels
