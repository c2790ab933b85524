"""Options of `medmtl export`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from medmtl.commands.flags import TRUST_HELP, OneLineParser
from medmtl.exported import Kind

DESCRIPTION = (
    "Write a trained run as a folder that stands alone: weights, preparation of images, temperatures, OOD detector and "
    "threshold, licence and model card. medmtl.load and medmtl predict --run accept the folder, and give the same "
    "masks, probabilities and verdicts. bundle: for MONAI, MONAI Label and 3D Slicer; onnx: for onnxruntime; program: "
    "for torch.export; safetensors: the weights alone, for medmtl on another machine."
)

EXAMPLE = "example: medmtl export --run runs/multitask --to bundle --output exported/multitask"


@dataclass(frozen=True)
class Options:
    """What to export, and to where.

    Attributes:
        run: run folder; None where a checkpoint is named.
        checkpoint: checkpoint; None where a run folder is named.
        to: kind of the folder.
        output: the folder.
        license: a text file, the licence of the weights; None: none is granted.
        authors: for citation; None: as the run says nothing.
        trust: import and build any class that the checkpoint names.
        overwrite: replace an exported folder.
    """

    run: str | None
    checkpoint: str | None
    to: Kind
    output: Path
    license: Path | None = None
    authors: str | None = None
    trust: bool = False
    overwrite: bool = False


def parse(argv: Sequence[str]) -> Options:
    """Read a command line.

    Args:
        argv: what follows `medmtl export`.

    Raises:
        ConfigError: an option is unknown, missing, or outside its domain.
    """
    return Options(**vars(export_parser().parse_args(argv)))


def export_parser() -> argparse.ArgumentParser:
    """The options of `medmtl export`."""
    parser = OneLineParser(prog="medmtl export", description=DESCRIPTION, epilog=EXAMPLE, allow_abbrev=False)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--run", help="run folder, for example runs/multitask")
    model.add_argument("--ckpt-path", dest="checkpoint", metavar="CKPT", help="checkpoint of a run")
    parser.add_argument("--to", choices=get_args(Kind), required=True, help="what the folder is for, see above")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder, which is made")
    parser.add_argument(
        "--license", type=Path, metavar="FILE", help="licence of the weights, a text (default: none is granted)"
    )
    parser.add_argument("--authors", metavar="NAMES", help="of the model, for its card and for citation")
    parser.add_argument("--trust", action="store_true", help=TRUST_HELP)
    parser.add_argument("--overwrite", action="store_true", help="replace an exported folder that is there")
    return parser
