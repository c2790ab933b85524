"""A stand-in for a network: bright voxels are organ, and the name of an image decides its verdict."""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from medmtl.data.task import Task
from medmtl.io.reader import Scan
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
