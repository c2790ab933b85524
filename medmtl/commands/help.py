"""The help of `fit`, `test`, `calibrate`, `ood` and `experiment`: what people use first, and where more is."""

import argparse
import re
from collections.abc import Collection, Sequence

from medmtl.commands.flags import flags_of
from medmtl.commands.keys import Key, keys_of, sections
from medmtl.errors import ConfigError

DESCRIPTIONS = {
    "fit": "Train one network on several tasks. Without --run the next free folder is used (runs/NAME, runs/NAME-2, "
    "...; NAME is `run` of the configuration, or the name of its file). --run FOLDER trains into that folder, which "
    "is refused if it holds a run, unless --resume (continue from last.ckpt) or --overwrite is given. --resume without "
    "--config builds only networks, losses, optimizers and schedulers of torch, MONAI and medmtl, unless --trust is "
    "given.",
    "test": "Accuracy, calibration and out-of-distribution (OOD) report of the best checkpoint of a run, named with "
    "--run FOLDER or --ckpt-path FILE, or the newest of the configuration's name. Values of the checkpoint are "
    "overridden by --config, and those by flags. Of the checkpoint only classes of medmtl, monai.networks and torch.nn "
    "are built, unless --trust is given.",
    "calibrate": "Re-estimate post-hoc scaling and the OOD threshold of a trained run on its validation cases, with "
    "the signature bank and the OOD detector, and write them into its best checkpoint. The run is named as for "
    "`medmtl test`.",
    "ood": "Compare out-of-distribution detectors on a trained run: on images of other organs and modalities, of other "
    "scanners and populations, and on its test images, shifted in many ways. Results are cached by image, so it is "
    "safe to stop and start again. Prints tables, and writes ood.html, ood.csv, verdicts.csv and ood.json to "
    "runs/NAME/ood.",
    "experiment": "Compare dedicated, transfer and multi-task training, and arms of your own. Every training run is a "
    "plain configuration that is written to disk before it runs; runs that are finished are not repeated, so it is "
    "safe to stop and start again. Ends with the comparison in runs/NAME/compare, NAME being that of the "
    "configuration. --run without --config goes on with the experiment in that folder, of which only arms of medmtl "
    "and classes of medmtl, MONAI and torch are used, unless --trust is given.",
}
DEVICE = ("trainer.accelerator", "trainer.devices", "trainer.precision")
# The keys that people set first; all of them where a command has none here.
FIRST: dict[str, Sequence[str]] = {
    "fit": (
        "seed_everything",
        *("data.patch_size", "data.batch_size", "data.batches", "data.balance", "data.workers", "data.cache"),
        *("model.outputs", "model.finetune.checkpoint", "spectral.alpha", "calibration.bins", "scaling.method"),
        *("trainer.max_steps", "trainer.max_epochs", *DEVICE, "wandb.mode"),
    ),
    "test": (
        *("model.window_batch", "model.overlap", "spectral.alpha", "calibration.bins", "calibration.regions"),
        *("scaling.method", *DEVICE, "wandb.mode"),
    ),
    "calibrate": ("model.window_batch", "spectral.alpha", "spectral.detector", "scaling.method", *DEVICE),
}
EXAMPLES = {
    "fit": (
        "medmtl fit --config multitask.yaml",
        "medmtl fit --config multitask.yaml --trainer.max_steps 200 --data.batch_size 2",
        "medmtl fit --run runs/multitask --resume",
        "medmtl fit --config multitask.yaml --print-config > mine.yaml",
    ),
    "test": ("medmtl test --run runs/multitask", "medmtl test --ckpt-path best.ckpt --run runs/elsewhere"),
    "calibrate": ("medmtl calibrate --run runs/multitask --spectral.alpha 0.1",),
    "ood": (
        "medmtl ood --run runs/multitask",
        "medmtl ood --run runs/multitask --detectors '[Spectral, Volume]' --cases 1",
    ),
    "experiment": (
        "medmtl experiment --config experiment-quick.yaml",
        "medmtl experiment --config experiment.yaml --steps 500 --seeds '[0, 1, 2]' --dry-run",
    ),
}


def parser_of(command: str, names: Collection[str] | None = None) -> argparse.ArgumentParser:
    """A parser whose help is that of the command, and whose options complete it; it does not run it.

    Args:
        command: one of `DESCRIPTIONS`.
        names: keys of the configuration that it has; None: all.
    """
    examples = [f"  {example}" for example in EXAMPLES[command]]
    more = [f"--help.{section}" for section in sections(command)]
    all_keys = f"all keys: {', '.join(more)}; their values: --config FILE --print-config" if more else ""
    parser = argparse.ArgumentParser(
        prog=f"medmtl {command}",
        usage=f"medmtl {command} [options]",
        description=DESCRIPTIONS[command],
        epilog="\n".join(["examples:", *examples, *([all_keys] if all_keys else [])]),
        formatter_class=_Formatter,
        parents=[flags_of(command)],
    )
    found = keys_of(command)
    whole = names is None and not sections(command)  # few keys, which no other page describes
    chosen = [key for name, key in found.items() if (name in names if names is not None else ".NAME" not in name)]
    _add(parser, chosen, command, whole)
    return parser


def help_of(command: str, section: str = "") -> str:
    """The help of a command, or of all keys of a section of its configuration.

    Raises:
        ConfigError: there is no such section.
    """
    if not section:
        return parser_of(command, FIRST.get(command)).format_help()
    keys = [key for key in keys_of(command).values() if key.name.startswith(f"{section}.")]
    if not keys:
        raise ConfigError(f"there is no section {section!r}", fix=f"use one of: {', '.join(sections(command))}")
    usage = f"medmtl {command} [options]"
    parser = argparse.ArgumentParser(prog=usage, usage=usage, add_help=False, formatter_class=_Formatter)
    _add(parser, keys, command, whole=True)
    return parser.format_help()


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Wraps the description, and leaves the examples as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("examples:"):
            head, _, tail = text.rpartition("\n") if "all keys" in text else (text, "", "")
            return "\n".join([head, *([argparse.HelpFormatter._fill_text(self, tail, width, indent)] if tail else [])])
        return argparse.HelpFormatter._fill_text(self, text, width, indent)


def _add(parser: argparse.ArgumentParser, keys: Sequence[Key], command: str, whole: bool) -> None:
    hyphens = command in ("ood", "experiment")
    for key in keys:
        text = key.text if whole else _first_sentence(key.text)
        parser.add_argument(
            f"--{key.name.replace('_', '-') if hyphens else key.name}",
            help=text.replace("%", "%%"),
            metavar=f"{{{','.join(key.choices)}}}" if key.choices else key.letter,
            choices=key.choices or None,
        )


def _first_sentence(text: str) -> str:
    """The first sentence of a description, with the default that ends it; a parenthesis is not cut."""
    start, default, rest = text.partition(" (default: ")
    end = next((match.start() for match in re.finditer(r"\. ", start) if _is_whole(start[: match.start()])), None)
    return f"{start[:end].rstrip('.')}{default}{rest}"


def _is_whole(text: str) -> bool:
    return text.count("(") == text.count(")")
