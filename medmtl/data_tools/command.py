"""The commands `medmtl data ...`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from medmtl.errors import INCOMPLETE, ConfigError


def run_data(argv: Sequence[str]) -> None:
    """Run a command of `medmtl data`.

    Args:
        argv: what follows `medmtl data`.

    Raises:
        MedMTLError: for everything that the user can mend.
        SystemExit: 3 where `check` found a case that cannot be used.
    """
    options = _parser().parse_args(argv)
    options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="medmtl data", description="Data: check it, bring it into a configuration, or get some to start with."
    )
    kinds = parser.add_subparsers(dest="kind", required=True)

    check = kinds.add_parser(
        "check",
        help="what is in a dataset, and what is wrong with it",
        description="Read every case of a dataset folder, or of all tasks of a configuration, and say what is in it "
        "and what is wrong: a table, and check.html, check.json and check.csv. Exit code 3 where a case cannot be "
        "used.",
    )
    check.add_argument("path", type=Path, nargs="?", metavar="PATH", help="dataset folder, of any layout")
    check.add_argument("--config", help="check the tasks and foreign images of this configuration instead")
    check.add_argument("--out", type=Path, help="folder of the files (default: data-check/NAME)")
    check.add_argument("--jobs", type=int, help="processes that read (default: one a core, 8 at most)")
    check.add_argument("--patient", metavar="PATTERN", help="regular expression for the patient within a case name")
    check.add_argument(
        "--fix-affine",
        type=Path,
        metavar="DIR",
        help="write copies of labels with their image's affine, where only the header or the storage order differs",
    )
    check.set_defaults(run=_check)

    bring = kinds.add_parser(
        "import",
        help="a task for a configuration, from a dataset folder",
        description="Print the block of a dataset folder for `data.tasks` of a configuration.",
    )
    bring.add_argument("path", type=Path, metavar="PATH", help="dataset folder, of any layout")
    bring.add_argument("--name", help="name of the task (default: from the folder and the modality)")
    bring.add_argument("--modality", help="CT, MR, PET or other (default: what the dataset says)")
    bring.add_argument("--organ", nargs="+", help="names or label values of the organ (default: all foreground)")
    bring.set_defaults(run=_import)

    download = kinds.add_parser(
        "download",
        help="public tasks of the Medical Segmentation Decathlon",
        description="Download tasks of the Medical Segmentation Decathlon, check them and unpack them. What is there "
        "already is not fetched again, and what is incomplete is. MEDMTL_MSD_URL names a mirror.",
    )
    download.add_argument("tasks", nargs="+", metavar="TASK", help="for example Task04_Hippocampus")
    download.add_argument("--to", type=Path, help="folder to unpack into (default: $MEDMTL_DATA)")
    download.set_defaults(run=_download)

    phantom = kinds.add_parser(
        "phantom",
        help="write the digital phantoms",
        description="Write the digital phantoms: five tasks and a set of other images, as Medical Segmentation "
        "Decathlon folders.",
    )
    phantom.add_argument("out", type=Path, metavar="OUT", help="folder to write them into")
    phantom.add_argument("--seed", type=int, default=0, help="another seed gives other phantoms (default: 0)")
    phantom.add_argument("--cases", type=int, default=20, help="labelled cases a task (default: 20)")
    phantom.set_defaults(run=_phantom)
    return parser


def _check(options: argparse.Namespace) -> None:
    if (options.path is None) == (options.config is None):
        raise ConfigError("one thing is checked at a time", fix="give a dataset folder, or --config FILE")
    if options.jobs is not None and options.jobs < 1:
        raise ConfigError(f"--jobs={options.jobs}", fix="use 1 or more")

    from medmtl.data_tools.check import check
    from medmtl.data_tools.listing import list_config, list_folder

    if options.config is None:
        datasets = [list_folder(options.path, options.patient)]
        title = datasets[0].name
    else:
        from medmtl.training.request import find_config

        datasets = list_config(find_config(options.config), options.patient)
        title = Path(options.config).stem
    out = options.out or Path("data-check") / title
    if not check(datasets, title, out, options.jobs, options.fix_affine):
        raise SystemExit(INCOMPLETE)


def _import(options: argparse.Namespace) -> None:
    from medmtl.data_tools.block import task_block

    sys.stdout.write(task_block(options.path, options.name, options.modality, options.organ))


def _download(options: argparse.Namespace) -> None:
    from medmtl.data_tools.download import download

    for path in download(options.tasks, options.to):
        sys.stdout.write(f"downloaded: {path}\n")


def _phantom(options: argparse.Namespace) -> None:
    from medmtl.data.phantoms.phantoms import write_phantoms

    write_phantoms(options.out, seed=options.seed, cases=options.cases)
    sys.stdout.write(f"digital phantoms: {options.out}\n")
