"""The pages of the reference that are made from the code: `make docs` adds them to the site, and tests read them."""

import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout, suppress
from io import StringIO
from typing import Any

from pytorch_lightning import Trainer
from signatures import Option, fields_of, options_of, summary_of, table

from medmtl import calibration, losses
from medmtl.accuracy import ACCURACY
from medmtl.calibration import ALL_METRICS
from medmtl.cli import COMMANDS, LIGHTNING, main
from medmtl.data import layouts
from medmtl.data.task import OODImages, Task
from medmtl.experiment.plan.protocol import Protocol
from medmtl.models.ensemble import Ensemble
from medmtl.models.finetune import FineTune
from medmtl.ood import detectors
from medmtl.ood.shifts import SHIFTS
from medmtl.ood_benchmark.options import Options, OtherImages
from medmtl.predict.records import COLUMNS
from medmtl.quantity import Quantity
from medmtl.results.benchmark import Record
from medmtl.results.case import CaseResult
from medmtl.results.dataset import CaseFacts, Finding
from medmtl.results.judged import Judged
from medmtl.results.prediction import PredictedCase
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
OF_AN_EXPERIMENT = [("An experiment", "", Protocol)]
OF_A_BENCHMARK = [("A benchmark", "", Options), ("Its far and near images", "far.NAME.", OtherImages)]

SUMMARISED = {  # columns of `summary.csv` that are no fields of the record
    "verdict": "`in-distribution`, `out-of-distribution` or `undecided`.",
    "model": "name of the checkpoint.",
    "digest": "of the checkpoint.",
    "medmtl": "version that wrote it.",
    "error": "why the image could not be segmented; the other columns are empty then.",
}
COMPARED = {
    "cases": "training cases a task at most, or `all`.",
    "task": "the task, a class of it as `task/class`, or `mean`.",
    "arm": "the arm.",
    "a": "the later arm.",
    "b": "the earlier arm, which it is compared with.",
    "metric": "key of the metric, see the metrics of a test.",
    "mean": "over patients.",
    "difference": "mean over patients of a − b.",
    "low": "lower end of the interval, by patient.",
    "high": "upper end of the interval.",
    "n": "patients.",
    "undefined": "cases without a value.",
    "p": "of Wilcoxon's signed-rank test, two-sided.",
    "p_holm": "p after Holm's correction over all tasks and pairs.",
    "smallest_p_holm": "the smallest that so few patients allow.",
    "rank_biserial": "effect size of the test, −1 to 1.",
    "cohen_dz": "mean difference in standard deviations of the differences.",
    "verdict": "`better`, `worse`, `no evidence`, or `no evidence: n too small`.",
}
OF_AN_ARM = ("cases", "task", "arm", "metric", "mean", "low", "high", "n", "undefined")
OF_A_PAIR = (
    *("cases", "task", "a", "b", "metric", "difference", "low", "high", "n", "p", "p_holm", "smallest_p_holm"),
    *("rank_biserial", "cohen_dz", "verdict"),
)


def help_of(words: list[str]) -> str:
    """What `medmtl` prints with `--help`."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = WIDTH
    printed = StringIO()
    try:
        with redirect_stdout(printed), suppress(SystemExit):
            main([*words, "--help"])
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
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
        "Classes of medmtl that a configuration may name by `class_path`, with their `init_args`. A class of your own is "
        "named in the same way, see [extending](../extending/README.md); networks, losses and optimizers may be any "
        "of MONAI and torch.",
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


def files() -> str:
    """Every column and field of the CSV and JSON files."""
    fields = {field.name: field for field in fields_of(PredictedCase)}
    summary = [fields.get(name) or Option(name, "", "", "", SUMMARISED.get(name, "")) for name in COLUMNS]
    metrics = [*ACCURACY.values(), *(metric.quantity for metric in ALL_METRICS.values())]
    scores = [*detectors.SCORES.values()]
    return "\n\n".join(
        [
            "# Files",
            "In CSV an empty cell is no value; in JSON it is `null`. The number `schema` counts changes of a JSON file.",
            "## Run: `metrics.csv`",
            "A row for each logged step. Columns are `STAGE/TASK/METRIC`, of a class `STAGE/TASK/CLASS/METRIC`, and "
            "`STAGE/mean/METRIC`, with the stages `train`, `val` and `test`. A metric of calibration is `KEY_REGION`, "
            "pooled over voxels, or `KEY_REGION_per_case`, the mean over cases; `_scaled` is after scaling.",
            "## Test: metrics",
            "Keys in `metrics.csv`, `report.json`, `cases.csv` and `compare.json`.",
            _quantities(metrics),
            "## Test: `report/cases.csv`",
            "A row for each case. Of a metric of calibration the columns are `KEY_REGION` and `KEY_REGION_scaled`; each "
            "OOD score has a column of its own, see [OOD scores](#ood-scores), and so has a metric of accuracy of each "
            "class, `CLASS/KEY`. Bins are in `report/bins.json`.",
            table(field for field in fields_of(CaseResult) if not field.type.startswith("Mapping")),
            "## Test: `report/report.json`",
            "`metrics` describes all that was measured (label, unit, direction, digits); `tasks` has the figures of each "
            "task, `mean` those over tasks, `scaling` the post-hoc scaling, `routing` which head was read, and `ood` "
            "detection, false alarms and masks. `calibration` pools voxels, `calibration_per_case` is the mean over "
            "cases, `calibration_scaled` is after scaling; `low` and `high` are the ends of an interval of 95 %.",
            "## Prediction: `NAME.json`",
            table(fields_of(PredictedCase)),
            "## Prediction: `summary.csv`",
            "A row for each image, those that could not be segmented first.",
            table(summary),
            "## Benchmark: `ood/ood.csv`",
            "A row for each detector and image. `ood/ood.json` has AUROC, AUPR and FPR95 by detector and column, ranks, "
            "verdicts and failure figures, with intervals.",
            table(fields_of(Record)),
            "## Benchmark: `ood/verdicts.csv`",
            "A row for each image.",
            table(fields_of(Judged)),
            "## OOD scores",
            "Keys in `cases.csv`, in `scores` of a prediction and in `ood.json`.",
            _quantities(scores),
            "## Experiment: `compare/compare.csv`",
            "A row for each arm, task and metric. `compare/compare.json` has the same, with arms and metrics described.",
            table(Option(name, "", "", "", COMPARED[name]) for name in OF_AN_ARM),
            "## Experiment: `compare/pairs.csv`",
            "A row for each pair of arms, task and metric.",
            table(Option(name, "", "", "", COMPARED[name]) for name in OF_A_PAIR),
            "## Data check: `check.json` and `check.csv`",
            "In CSV, channels, directions and label values have columns of their own, with their unit in the name.",
            table(fields_of(CaseFacts)),
            "A finding:",
            table(fields_of(Finding)),
        ]
    ) + "\n"


def python() -> str:
    """The public names, for mkdocstrings."""
    packages = {
        "medmtl.predict.model": ["Model"],
        "medmtl.predict.prediction": ["Prediction"],
        "medmtl.calibration": [],
        "medmtl.losses": [],
        "medmtl.ood.detectors": [],
        "medmtl.ood.shifts": [],
        "medmtl.data.layouts": [],
        "medmtl.experiment": [],
    }
    parts = ["# Python", "`medmtl.load(run)` is `Model.load` of the first class here."]
    for package, members in packages.items():
        names = [f"{package}.{name}" for name in members] or [package]
        parts += [f"## `{package}`", *(f"::: {name}" for name in names)]
    return "\n\n".join(parts) + "\n"


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
    return [each for each in found if isinstance(each, type) and issubclass(each, base) and not inspect.isabstract(each)]


def _quantities(quantities: Iterable[Quantity]) -> str:
    rows = ["| key | what | unit | better |", "|---|---|---|---|"]
    for each in quantities:
        better = {True: "higher", False: "lower", None: ""}[each.higher_is_better]
        rows.append(f"| `{each.key}` | {each.label} | {each.unit} | {better} |")
    return "\n".join(dict.fromkeys(rows))


def _block(text: str) -> str:
    return "\n".join(["```text", *(line.rstrip() for line in text.split("\n")), "```"])


def _indented(text: str) -> str:
    return re.sub(r"^(?=.)", "    ", text, flags=re.MULTILINE)
