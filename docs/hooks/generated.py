"""The pages of the reference that are made from the code: `make docs` adds them to the site, and tests read them."""

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout, suppress
from io import StringIO
from typing import Any
from unittest.mock import patch

from columns import files
from pytorch_lightning import Trainer
from signatures import Option, options_of, summary_of, table

from medmtl import calibration, losses
from medmtl.cli import COMMANDS, LIGHTNING, main
from medmtl.data import layouts
from medmtl.data.task import OODImages, Task
from medmtl.experiment.plan.protocol import Protocol
from medmtl.models.ensemble import Ensemble
from medmtl.models.finetune import FineTune
from medmtl.ood import detectors
from medmtl.ood.shifts import SHIFTS
from medmtl.ood_benchmark.options import Options, OtherImages
from medmtl.runs.wandb import Wandb
from medmtl.training.request import SECTIONS

DATA = ("check", "import", "download", "phantom")  # commands of `medmtl data`
WIDTH = "110"  # columns of help texts

GENERAL = [
    Option("seed_everything", "bool | int", "0", "", "seed of weights, patches and dropout."),
    Option("run", "str | None", "None", "", "name of the run; None: that of the file."),
]
# Heading, where its keys stand in a configuration, and the class whose arguments they are.
OF_A_RUN = [
    *((f"`{section}`", f"{section}.", owner) for section, owner in SECTIONS.items()),
    ("`wandb`", "wandb.", Wandb),
    ("A task", "data.tasks.NAME.", Task),
    ("A folder of OOD images", "data.ood.NAME.", OODImages),
    ("Fine-tuning", "model.finetune.", FineTune),
    ("Ensembles", "model.ensemble.", Ensemble),
]
PUBLIC = (  # classes, and packages with all that they export
    "medmtl.predict.model.Model",
    "medmtl.predict.prediction.Prediction",
    "medmtl.calibration",
    "medmtl.losses",
    "medmtl.ood.detectors",
    "medmtl.ood.shifts",
    "medmtl.data.layouts",
    "medmtl.experiment",
)
OF_AN_EXPERIMENT = [("An experiment", "", Protocol)]
OF_A_BENCHMARK = [
    ("A benchmark", "", Options),
    ("Far images", "far.NAME.", OtherImages),
    ("Near images", "near.NAME.", OtherImages),
]


def help_of(words: list[str]) -> str:
    """What `medmtl` prints with `--help`."""
    printed = StringIO()
    with (
        patch.dict(os.environ, COLUMNS=WIDTH),
        patch.object(sys, "argv", ["medmtl"]),
        redirect_stdout(printed),
        suppress(SystemExit),
    ):
        main([*words, "--help"])
    return printed.getvalue().strip("\n")


def commands() -> str:
    """The help of every command."""
    parts = ["# Commands", "What each command prints with `--help`.", _block(help_of([])[:-1])]
    for command in COMMANDS:
        if command in LIGHTNING:  # kept out of the search, which finds the keys in the configuration
            parts += [
                f"## medmtl {command}",
                "Its keys are described in the [configuration](configuration.md).",
                f"### Help of {command} {{ data-search-exclude }}",
                f'??? note "medmtl {command} --help"\n\n{_indented(_block(help_of([command])))}',
            ]
        else:
            parts += [f"## medmtl {command}", _block(help_of([command]))]
        if command == "data":
            for word in DATA:
                parts += [f"### medmtl data {word}", _block(help_of(["data", word]))]
    return "\n\n".join(parts) + "\n"


def configuration() -> str:
    """Every key of the YAML files."""
    parts = [
        "# Configuration",
        "Every key is also a flag: `medmtl fit --config multitask.yaml --data.batch_size 2`. Precedence is defaults < "
        "checkpoint < configuration < flags. Keys whose type is a class take a `class_path` with `init_args`, see "
        "[classes](classes.md).",
        "## Keys of a run\n\nFor `medmtl fit`, `test` and `calibrate`.\n\n### General",
        table(GENERAL),
        *_sections(OF_A_RUN),
        "### `trainer`\n\nThe arguments of the trainer of PyTorch Lightning.",
        table(_under("trainer.", options_of(Trainer))),
        "## Keys of an experiment\n\nFor `medmtl experiment`.",
        *_sections(OF_AN_EXPERIMENT),
        "## Keys of a benchmark\n\nFor `medmtl ood`.",
        *_sections(OF_A_BENCHMARK),
    ]
    return "\n\n".join(parts) + "\n"


def classes() -> str:
    """What a `class_path` may name."""
    parts = [
        "# Classes",
        "Classes of medmtl that a configuration may name by `class_path`, with their `init_args`. A class of your own "
        "is named in the same way, see [extending](../extending/README.md); networks, losses and optimizers may be "
        "any of MONAI and torch.",
    ]
    for title, owners in {
        "Detectors": _public(detectors, detectors.Detector),
        "Losses": _public(losses, object),
        "Layouts": _public(layouts, layouts.Layout),
        "Scaling": _public(calibration, calibration.Scaling),
    }.items():
        parts.append(f"## {title}")
        for owner in owners:
            options = options_of(owner)
            parts += [f"### {owner.__name__}", f"`{owner.__module__}.{owner.__name__}`: {summary_of(owner)}"]
            parts += [table(options)] if options else []
    rows = ["| name | kind | strengths of severities 1 to 5 | unit | what it does |", "|---|---|---|---|---|"]
    for name, shift in SHIFTS.items():
        strengths = ", ".join(map(str, shift.strengths))
        rows.append(f"| `{name}` | {shift.kind} | {strengths} | {shift.unit} | {summary_of(type(shift))} |")
    return "\n\n".join([*parts, "## Shifts", "\n".join(rows)]) + "\n"


def python() -> str:
    """The public names, for mkdocstrings."""
    title = ["# Python", "`medmtl.load` is `Model.load` of the first class here."]
    return "\n\n".join([*title, *(f"::: {name}" for name in PUBLIC)]) + "\n"


PAGES: Mapping[str, Callable[[], str]] = {
    "reference/commands.md": commands,
    "reference/configuration.md": configuration,
    "reference/classes.md": classes,
    "reference/files.md": files,
    "reference/python.md": python,
}


def _sections(sections: Iterable[tuple[str, str, Any]]) -> list[str]:
    return [
        f"### {heading}\n\n{summary_of(owner)}\n\n{table(_under(place, options_of(owner)))}"
        for heading, place, owner in sections
    ]


def _under(place: str, options: Iterable[Option]) -> list[Option]:
    return [option._replace(name=f"{place}{option.name}") for option in options]


def _public(package: Any, base: type) -> list[type]:
    """The concrete classes that a package exports."""
    found = [getattr(package, name) for name in package.__all__]
    return [
        each for each in found if isinstance(each, type) and issubclass(each, base) and not inspect.isabstract(each)
    ]


def _block(text: str) -> str:
    return "\n".join(["```text", *(line.rstrip() for line in text.split("\n")), "```"])


def _indented(text: str) -> str:
    return re.sub(r"^(?=.)", "    ", text, flags=re.MULTILINE)
