"""The command `medmtl export`."""

from pathlib import Path

from medmtl.export.bundle import check_bundled, write_bundle
from medmtl.export.card import CARD, card
from medmtl.export.facts import run_facts
from medmtl.export.license import license_text
from medmtl.export.options import Options
from medmtl.export.record import file_digest
from medmtl.export.write import Source, check_written, placed, write_network, write_record, write_state
from medmtl.files import resolved, write_text
from medmtl.runs.folder import environment
from medmtl.terminal import terminal
from medmtl.training.request import known_config, run_and_checkpoint
from medmtl.training.trained import Trained, load_trained
from medmtl.training.trust import use_current_folder


def run_export(options: Options) -> None:
    """Export a run.

    Args:
        options: what to export, and to where.

    Raises:
        MedMTLError: for everything that the user can fix.
    """
    run, checkpoint = run_and_checkpoint(options.run, options.checkpoint)
    if options.trust:
        use_current_folder()
    trained = load_trained(checkpoint, "cpu", options.trust)
    source = source_of(trained, run.path.name, checkpoint, options.trust)
    if options.to == "bundle":
        check_bundled(source.network)
    granted = license_text(options.license)
    facts = run_facts(run, trained)
    with placed(options.output, options.overwrite) as folder:
        network = write_network(folder, options.to, source)
        record = write_state(folder, options.to, source, network)
        page = card(record, facts, options, resolved(options.output).name)
        for name, text in {CARD: page, "LICENSE": granted}.items():
            write_text(folder / name, text)
        if options.to == "bundle":
            write_bundle(folder, record, facts, options, page)
        record = write_record(folder, record)
        difference = check_written(folder, source)
    console = terminal()
    console.print(f"exported: {options.output}", soft_wrap=True)
    same = "the same as the run's" if difference == 0 else f"those of the run within {difference:.0e} of the largest"
    console.print(f"on a window of noise its logits and features are {same}", soft_wrap=True, highlight=False)
    console.print(f"digest: {record.digest}", soft_wrap=True, highlight=False)


def source_of(trained: Trained, name: str, checkpoint: Path, trust: bool) -> Source:
    """What a run gives to an exported folder.

    Args:
        trained: what its checkpoint holds.
        name: of the run.
        checkpoint: the file.
        trust: whether it may name any class.
    """
    network = known_config(checkpoint, trust, ["model"])["model"]["network"]
    spec = {"class_path": network} if isinstance(network, str) else network
    return Source(trained.parts, name, file_digest(checkpoint), spec, environment()["versions"])
