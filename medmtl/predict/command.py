"""The command `medmtl predict`."""

import logging
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from medmtl.data.task import data_note
from medmtl.errors import ConfigError, DataError
from medmtl.exported import is_exported
from medmtl.files import resolved
from medmtl.io.input import Input
from medmtl.io.inputs import find_inputs
from medmtl.predict.gate import exit_code
from medmtl.predict.model import Model
from medmtl.predict.names import named
from medmtl.predict.options import Options
from medmtl.predict.records import digest_of, write_summary
from medmtl.predict.run import predict_all
from medmtl.report.predict.gallery import headline, write_gallery
from medmtl.results.prediction import OUT, FailedCase, PredictedCase, worst_first
from medmtl.runs.lock import only_writer
from medmtl.terminal import terminal
from medmtl.training.request import run_and_checkpoint
from medmtl.training.trust import use_current_folder
from medmtl.version import __version__

logger = logging.getLogger(__name__)

REASONS = 3  # of an image, in the terminal; all are in its JSON file
TABLE_ROWS = 20  # images in the table at the end, the most out-of-distribution ones


def run_predict(options: Options) -> None:
    """Predict the images that are not finished yet, and print a summary of all.

    Args:
        options: what to predict, and how.

    Raises:
        MedMTLError: for everything that the user can fix.
        SystemExit: 3 where an image could not be segmented, or is OOD under `on_ood="fail"`.
    """
    source = source_of(options.run, options.checkpoint)
    if options.trust:
        use_current_folder()
    model = Model.load(
        source,
        options.device,
        options.precision,
        options.window_batch,
        options.alpha,
        options.trust,
        options.fast,
    )
    inputs = inputs_of(options, model.stacks)
    _check_tasks(model, inputs, options)
    with only_writer(options.output, keep=True, option="--output"):
        cases, failed = _predict(model, digest_of(source), inputs, options)
    code = exit_code(cases, failed, options.on_ood)
    if code:
        raise SystemExit(code)


def source_of(run: str | None, checkpoint: str | None = None) -> Path:
    """What segments images: an exported folder, or a checkpoint.

    Args:
        run: run folder or exported folder; None where a checkpoint is named.
        checkpoint: checkpoint; None: the best of the run folder.

    Raises:
        RunError: the run folder holds no checkpoint.
    """
    if run is not None and is_exported(Path(run)):
        return Path(run)
    return run_and_checkpoint(run, checkpoint)[1]


def _predict(
    model: Model, digest: str, inputs: Sequence[Input], options: Options
) -> tuple[list[PredictedCase], list[FailedCase]]:
    """Predict the images, and write and print what is said of all of them."""
    console = terminal()
    cases, failed = predict_all(model, digest, inputs, options, console)
    summary = options.output / "summary.csv"
    write_summary(summary, cases, failed)
    _print(console, cases, failed)
    if options.report:
        note = data_note(task.root for task in model.tasks.values())
        page = write_gallery(
            options.output, cases, failed, _facts(model, digest, options), f"Trained on {note.lower()}" if note else ""
        )
        console.print(f"gallery: {page}", soft_wrap=True)
    console.print(f"summary: {summary}", soft_wrap=True)
    return cases, failed


def inputs_of(options: Options, stack: bool = False) -> list[Input]:
    """List the images to predict: all below the input, except files in an output folder inside it.

    Args:
        options: of the command.
        stack: whether the network takes several channels.

    Raises:
        DataError: there are no images, or images lie in the output folder.
        ConfigError: a volume is selected where the volumes of a file are stacked, or two outputs have one name.
    """
    if stack and options.volume != 0:
        raise ConfigError("--volume selects one of the volumes that the network stacks", fix="leave it out")
    output = resolved(options.output)
    found = find_inputs(options.input, options.volume, stack)
    inputs = [source for source in found if not resolved(source.path).is_relative_to(output)]
    within = next((source.path for source in found if source not in inputs), None)
    if within is not None and resolved(options.input) not in output.parents:
        raise DataError(f"{options.output} holds images ({within})", fix="choose another folder for --output")
    if within is not None:
        logger.info("%d images in the output folder %s are left out", len(found) - len(inputs), options.output)
    if not inputs:
        raise DataError(f"{options.input} holds no images outside {options.output}", fix="correct --input or --output")
    return named(inputs, options)


def _check_tasks(model: Model, inputs: Sequence[Input], options: Options) -> None:
    asked = {options.task: "--task"} | {source.task: f"{options.input}: task" for source in inputs}
    for task, where in asked.items():
        if task is not None and task not in model.tasks:
            raise ConfigError(f"{where} {task} is none of this network", fix=f"use one of: {', '.join(model.tasks)}")
    for source in inputs:
        model.channels(options.task or source.task)


def _print(console: Console, cases: Sequence[PredictedCase], failed: Sequence[FailedCase]) -> None:
    table = Table("image", "image is", "p", "mask is", "p", "nearest task", "ml", "warnings")
    for column in table.columns:
        column.overflow = "fold"  # a verdict is never cut off
    for case in worst_first(cases)[:TABLE_ROWS]:
        p_value = "-" if case.p_value is None else f"{case.p_value:.3f}"
        mask_p = "-" if case.mask_p_value is None else f"{case.mask_p_value:.3f}"
        row = (case.case, case.verdict, p_value, case.mask_verdict or "-", mask_p, case.nearest_task or "-")
        table.add_row(*row, f"{case.volume_ml:.1f}", str(len(case.warnings) or "-"))
    if cases:
        console.print(table)
    if len(cases) > TABLE_ROWS:
        console.print(f"and {len(cases) - TABLE_ROWS} more, less out-of-distribution than these", highlight=False)
    for each in failed:
        console.print(f"{each.case} failed: {each.error}", soft_wrap=True, markup=False, highlight=False)
    for case in [case for case in worst_first(cases) if case.flagged and case.reasons][:TABLE_ROWS]:
        console.print(
            f"{case.case}: {'; '.join(case.reasons[:REASONS])}", soft_wrap=True, markup=False, highlight=False
        )
    ood = [case.case for case in worst_first(cases) if case.verdict == OUT]
    if ood:
        console.print(f"{OUT}: {', '.join(ood)}", soft_wrap=True, markup=False, highlight=False)
    doubtful = [case.case for case in worst_first(cases) if case.mask_reliable is False]
    if doubtful:
        console.print(f"mask not reliable: {', '.join(doubtful)}", soft_wrap=True, markup=False, highlight=False)
    console.print(headline(cases, failed), soft_wrap=True, highlight=False)


def _facts(model: Model, digest: str, options: Options) -> dict[str, str]:
    return {
        "checkpoint": model.name,
        "digest": digest,
        "trained on": ", ".join(model.tasks),
        "input": str(options.input),
        "OOD images": {"warn": "get a mask", "skip": "get no mask", "fail": "get a mask, and exit code 3"}[
            options.on_ood
        ],
        "medmtl": __version__,
    }
