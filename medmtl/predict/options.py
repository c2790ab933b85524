"""Options of `medmtl predict`."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medmtl.commands.flags import TRUST_HELP, OneLineParser
from medmtl.io.input import MAPS, MASK, MODALITIES

OnOod = Literal["warn", "skip", "fail"]
DESCRIPTION = (
    "Segment images and test each for being out-of-distribution (OOD). Writes for every image a mask on the image's "
    "own grid (NAME_mask), with the label values of the dataset where a task has classes, and a verdict (NAME.json), "
    "and summary.csv over all images. Finished images are not repeated, so the command can be stopped and started "
    "again. Exit codes: 0 done, 1 error, 2 wrong usage, 3 done but an image could not be segmented, or is OOD under "
    "--on-ood fail."
)
EXAMPLE = "example: medmtl predict --run runs/multitask --input scans --output masks --report"


@dataclass(frozen=True)
class Options:
    """What to predict, and how.

    Attributes:
        run: run folder, or exported folder; None where a checkpoint is named.
        checkpoint: checkpoint; None where a run folder is named.
        input: image, DICOM series, folder of images or list of images.
        output: folder for everything that is written.
        task: whose preprocessing to use; None: of the nearest task.
        modality: of all images; None: as the file or list says.
        probability: write the probability of the organ, or of each class.
        entropy: write the entropy of that probability.
        report: draw every image, and write `gallery.html`.
        on_ood: for OOD images, `warn` prints a warning, `skip` writes no mask, `fail` makes the exit code 3.
        alpha: share of in-distribution images that may be rejected, in (0, 1); None: that of the run.
        device: `cpu`, `cuda` or `auto`.
        precision: of the network's arithmetic: `32`, `16` or `bf16`.
        window_batch: sliding windows per forward pass; None: as in the training.
        volume: which volume of files with four dimensions, from 0, or all of them; 0 where they are stacked channels.
        trust: import and build any class that the checkpoint names.
        fast: leave out the additional pass over the mirrored image, by which masks are checked.
        overwrite: repeat finished images, and replace outputs of other images of the same name.
        suffix: after the name of an image, in that of its mask.
        slider: the most pixels along a side, and the most slices, of the slider of an image; None: as many as pages of
            many images can hold.
    """

    run: str | None
    checkpoint: str | None
    input: Path
    output: Path
    task: str | None = None
    modality: str | None = None
    probability: bool = False
    entropy: bool = False
    report: bool = False
    on_ood: OnOod = "warn"
    alpha: float | None = None
    device: str = "auto"
    precision: Literal["32", "16", "bf16"] = "32"
    window_batch: int | None = None
    volume: int | Literal["all"] = 0
    overwrite: bool = False
    trust: bool = False
    fast: bool = False
    suffix: str = MASK
    slider: tuple[int, int] | None = None


def parse(argv: Sequence[str]) -> Options:
    """Read a command line.

    Args:
        argv: what follows `medmtl predict`.

    Raises:
        ConfigError: an option is unknown, missing, or outside its domain.
    """
    return Options(**vars(predict_parser().parse_args(argv)))


def predict_parser() -> argparse.ArgumentParser:
    """The options of `medmtl predict`."""
    parser = OneLineParser(prog="medmtl predict", description=DESCRIPTION, epilog=EXAMPLE, allow_abbrev=False)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--run", help="run folder, for example runs/multitask, or a folder of medmtl export")
    model.add_argument(
        "--ckpt-path", dest="checkpoint", metavar="CKPT", help="checkpoint; no other file of its run is needed"
    )
    parser.add_argument(
        "--input",
        type=Path,
        required=True,
        help="an image (NIfTI, NRRD, MHA), the folder of a DICOM series, a folder tree of any of them, or a list: CSV "
        "with the columns image[, name, modality, task], or JSON; stacked channels are files NAME_0000, NAME_0001, "
        "..., the volumes of one file, or columns image_T1, image_T2, ...",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write into")
    parser.add_argument("--task", help="use the preprocessing of this task (default: of the nearest task)")
    parser.add_argument("--modality", choices=MODALITIES, help="of all images (default: as the file or list says)")
    parser.add_argument("--probability", action="store_true", help="also write NAME_probability, a volume a class")
    parser.add_argument(
        "--suffix",
        type=_suffix,
        default=MASK,
        metavar="TEXT",
        help="of a mask's name (default: _mask). With an empty one, --suffix '', masks have the names that nnU-Net "
        "gives them: that of NAME_0000.nii.gz is NAME.nii.gz",
    )
    parser.add_argument(
        "--entropy", action="store_true", help="also write NAME_entropy: entropy of each voxel's probability, nats"
    )
    parser.add_argument("--report", action="store_true", help="also write gallery.html: all images with their masks")
    parser.add_argument(
        "--on-ood",
        choices=("warn", "skip", "fail"),
        default="warn",
        help="for OOD images: write a mask and a warning (default), no mask, or a mask and exit with code 3",
    )
    parser.add_argument(
        "--alpha", type=_share, help="share of in-distribution images that may be rejected (default: that of the run)"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: cuda if available)"
    )
    parser.add_argument(
        "--precision",
        choices=("32", "16", "bf16"),
        default="32",
        help="of the network's arithmetic (default: 32, in which the OOD threshold was estimated)",
    )
    parser.add_argument(
        "--window-batch",
        type=_above_zero,
        metavar="N",
        help="sliding windows per forward pass (default: as in the training)",
    )
    parser.add_argument(
        "--volume",
        type=_volume,
        default=0,
        metavar="K|all",
        help="volume of 4-D files, from 0, or all (default: 0); not for networks that stack the volumes",
    )
    parser.add_argument(
        "--fast",
        action="store_true",
        help="check masks by their volume alone, without an additional pass over the mirrored image",
    )
    parser.add_argument("--trust", action="store_true", help=TRUST_HELP)
    parser.add_argument(
        "--overwrite", action="store_true", help="repeat finished images, and replace outputs of other images in DIR"
    )
    return parser


def _share(text: str) -> float:
    value = _number(float, text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no share between 0 and 1, such as 0.05")
    return value


def _above_zero(text: str) -> int:
    value = _number(int, text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def _suffix(text: str) -> str:
    if not re.fullmatch(r"[\w.+-]*", text) or text.endswith("."):
        raise argparse.ArgumentTypeError(f"{text!r} is no part of a file name: use letters, digits and _ . + -")
    if text in MAPS:
        raise argparse.ArgumentTypeError(f"{text} is that of another output")
    return text


def _volume(text: str) -> int | Literal["all"]:
    if text == "all":
        return "all"
    value = _number(int, text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0: volumes are counted from 0")
    return value


def _number(kind: type, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number that fits") from None
