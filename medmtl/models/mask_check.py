"""The verdict on a predicted mask: its volume, and one additional pass over the mirrored image."""

from functools import partial

from monai.data import MetaTensor
from torch import Tensor

from medmtl.data.preprocessing import Preprocessing
from medmtl.models.sliding_window import VolumePredictor
from medmtl.ood.evidence.flip import flip_disagreement
from medmtl.ood.mask_rule import MaskRule, MaskVerdict
from medmtl.quantity import CUBIC_MM


def check_mask(
    rule: MaskRule,
    predictor: VolumePredictor,
    image: MetaTensor,
    probability: Tensor,
    preprocessing: Preprocessing,
    task: str,
    rejected: bool | None,
    fast: bool = False,
) -> MaskVerdict:
    """The verdict on a mask in the working space.

    Args:
        rule: of the checkpoint.
        predictor: the network.
        image: `(C, h, w, d)` under the preprocessing.
        probability: of foreground, `(1, h, w, d)`.
        preprocessing: of the task.
        task: whose organ the mask is taken for.
        rejected: whether the image is out-of-distribution.
        fast: leave out the additional pass.
    """
    mask = probability[0].as_subclass(Tensor) >= 0.5
    disagreement = None if fast else flip_disagreement(image, mask, partial(predictor, head=preprocessing.head))
    return rule(task, volume_of(mask, preprocessing), disagreement, rejected)


def volume_of(mask: Tensor, preprocessing: Preprocessing) -> float:
    """Volume of a mask in the working space of a preprocessing, ml."""
    x, y, z = preprocessing.spacing
    return float(mask.sum()) * x * y * z / CUBIC_MM
