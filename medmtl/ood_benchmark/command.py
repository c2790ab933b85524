"""The command `medmtl ood`."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from medmtl.building import building
from medmtl.commands.flags import flags_of
from medmtl.errors import ConfigError
from medmtl.files import parse_yaml, read_text, shipped_config, write_text
from medmtl.ood_benchmark.both_verdicts import verdict_summary, verdicts_of, with_verdicts
from medmtl.ood_benchmark.images import images_of
from medmtl.ood_benchmark.leave_one_out import leave_one_task_out, print_left_out, write_left_out
from medmtl.ood_benchmark.options import Options
from medmtl.ood_benchmark.pictures import draw_wrong
from medmtl.ood_benchmark.run import cache_of, observe, recall
from medmtl.ood_benchmark.score import Panel, with_decisions
from medmtl.ood_benchmark.summary import print_summary, write_summary
from medmtl.ood_benchmark.worker import members_of, verdict_of
from medmtl.progress import watched
from medmtl.report.ood.numbers import verdict_detector
from medmtl.report.ood.page import write_ood_page
from medmtl.report.ood.wrong import wrong_verdicts
from medmtl.results.benchmark import THRESHOLD, Record, write_records
from medmtl.results.both_verdicts import BothVerdicts, write_verdicts
from medmtl.runs.folder import RunFolder, environment
from medmtl.runs.lock import only_writer
from medmtl.terminal import terminal
from medmtl.training.config_files import find_config
from medmtl.training.request import renamed_config, run_and_checkpoint
from medmtl.training.trained import load_trained
from medmtl.training.trust import use_current_folder

logger = logging.getLogger(__name__)


def run_ood(argv: Sequence[str]) -> None:
    """Run a benchmark, or what is not finished of it.

    Args:
        argv: what follows `medmtl ood`.

    Raises:
        MedMTLError: for everything that the user can correct.
    """
    options, run, checkpoint, resolved, trust = _parse(list(argv))
    folder = run.path / "ood"
    with only_writer(folder):
        _run(options, run, checkpoint, resolved, trust, folder)


def _run(options: Options, run: RunFolder, checkpoint: Path, resolved: str, trust: bool, folder: Path) -> None:
    console = terminal()
    trained = load_trained(checkpoint, trust=trust)
    members = members_of(trained, checkpoint, options.ensemble)
    trained.open_data()
    images, notes = images_of(trained.data, options)
    if options.leave_one_task_out:
        images = [image for image in images if image.group in THRESHOLD]
    cache = cache_of(trained, options, members, folder / "cache")
    write_text(folder / "config.yaml", resolved)
    keys = observe(images, trained, members, checkpoint, options, cache, console)
    trained_on = [image for image in images if image.group == "training"]
    training = [recall(image, keys[image], cache) for image in trained_on]
    others = [image for image in images if image.group != "training"]
    facts = {
        "run": run.path.name,
        "checkpoint": checkpoint.name,
        "layers": options.layers or trained.layers,
        "preprocessings": [str(preprocessing) for preprocessing in trained.data.preprocessings],
        "data_note": trained.data.note,
        **environment(),
    }
    if options.leave_one_task_out:
        held_out = [recall(image, keys[image], cache).evidence for image in others]
        aurocs = leave_one_task_out(options.detectors, [observation.evidence for observation in training], held_out)
        write_left_out(folder / "leave_one_task_out.json", aurocs, facts)
        print_left_out(console, aurocs)
        console.print(f"table: {folder / 'leave_one_task_out.json'}", soft_wrap=True)
        return
    probe = recall(others[0], keys[others[0]], cache).evidence
    verdict = verdict_of(trained, options.layers or trained.layers)
    panel = Panel.fit(options.detectors, [observation.evidence for observation in training], probe, verdict)
    records: list[Record] = panel.score_training(trained_on, training)
    rule = None if trained.spectral.mask_rule is None else replace(trained.spectral.mask_rule, alpha=options.alpha)
    found: list[BothVerdicts | None] = []
    for image in watched(others, "scoring", len(others), "images"):
        observation = recall(image, keys[image], cache)
        records += panel.score(image, observation)
        if rule is not None and image.group not in THRESHOLD:
            evidence, nearest_task = panel.choose(observation.evidence)
            found.append(verdicts_of(image, evidence, nearest_task, observation.dice, rule))
    records = with_decisions(records, options.alpha)
    write_records(folder / "ood.csv", records)
    deciding = [record for record in records if record.detector == panel.detectors[0].name]
    both = with_verdicts([each for each in found if each is not None], deciding)
    write_verdicts(folder / "verdicts.csv", both)
    verdicts = None if rule is None or not both else verdict_summary(both, rule)
    notes = [*notes, *panel.left_out]
    summary = write_summary(folder / "ood.json", records, panel.detectors, options, notes, facts, verdicts)
    drawn = draw_wrong(others, wrong_verdicts(records, verdict_detector(summary), summary), options.seed)
    page = write_ood_page(folder, run.path.name, records, summary, _shown(facts), summary["notes"], drawn)
    print_summary(console, summary)
    console.print(f"benchmark: {page}", soft_wrap=True)


def _shown(facts: Mapping[str, Any]) -> dict[str, str]:
    """The facts that the page shows."""
    names = ("checkpoint", "layers", "preprocessings", "data_note", "platform")
    return {key: "; ".join(value) if isinstance(value, list) else value for key, value in facts.items() if key in names}


def _parse(argv: list[str]) -> tuple[Options, RunFolder, Path, str, bool]:
    parser = ArgumentParser(prog="medmtl ood", exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Options)
    given, flags = flags_of("ood").parse_known_args(argv)
    if not (given.run or given.ckpt_path):
        raise ConfigError("no run is named", fix="add --run FOLDER or --ckpt-path FILE")
    config = find_config(given.config) if given.config else shipped_config("ood-benchmark.yaml")
    use_current_folder(None if given.trust else [read_text(config), *flags])
    with building(ConfigError):
        parsed: Any = parser.parse_args([f"--config={renamed_config(config)}", *flags])
        resolved = parse_yaml(parser.dump(parsed, skip_none=False))
        built = parser.instantiate_classes(parsed)
    # A key that is there without a value, all its lines commented out, is as if it were not.
    chosen = {key: value for key, value in built.items() if key != "config" and value is not None}
    run, checkpoint = run_and_checkpoint(given.run, given.ckpt_path)
    kept = {key: value for key, value in resolved.items() if key != "config"}
    return Options(**chosen), run, checkpoint, yaml.safe_dump(kept, sort_keys=False), given.trust
