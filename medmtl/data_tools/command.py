"""The commands `medmtl data ...`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from medmtl.errors import INCOMPLETE, ConfigError
from medmtl.files import read_text

LAYOUT = (
    "how files lie in the folder: MSD, NNUNet, Bids, Folders, FileList, or a class path; with arguments as YAML: "
    '\'{class_path: Folders, init_args: {images: "scans/{case}", labels: "masks/{case}"}}\' (default: recognised)'
)


def run_data(argv: Sequence[str]) -> None:
    """Run a command of `medmtl data`.

    Args:
        argv: what follows `medmtl data`.

    Raises:
        MedMTLError: for everything that the user can correct.
        SystemExit: 3 where `check` found a case that cannot be used.
    """
    options = data_parser().parse_args(argv)
    options.run(options)


def data_parser() -> argparse.ArgumentParser:
    """The options of `medmtl data`."""
    parser = argparse.ArgumentParser(
        prog="medmtl data",
        description="Check datasets, write their block of a configuration, get data to start with, or clear what "
        "trainings keep of them.",
        epilog="example: medmtl data check FOLDER",
    )
    kinds = parser.add_subparsers(dest="kind", required=True)

    check = kinds.add_parser(
        "check",
        help="summarise a dataset and report its errors",
        description="Read every case of a dataset folder, or of all tasks of a configuration. Print a summary and all "
        "errors, warnings and notes, and write check.html, check.json and check.csv. Exit code 3 if a case cannot be "
        "used.",
    )
    check.add_argument("path", type=Path, nargs="?", metavar="PATH", help="dataset folder, of any layout")
    check.add_argument("--config", help="check the tasks and OOD images of this configuration instead")
    check.add_argument("--layout", metavar="LAYOUT", help=LAYOUT)
    check.add_argument("--output", type=Path, metavar="DIR", help="folder of the files (default: data-check/NAME)")
    check.add_argument("--jobs", type=int, help="processes that read (default: one per core, at most 8)")
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
        help="write the configuration block of a dataset",
        description="Print the block of a dataset folder for `data.tasks` of a configuration.",
    )
    bring.add_argument("path", type=Path, metavar="PATH", help="dataset folder, of any layout")
    bring.add_argument("--layout", metavar="LAYOUT", help=LAYOUT)
    bring.add_argument("--name", help="name of the task (default: from the folder and the modality)")
    bring.add_argument("--modality", help="CT, MR, PET or other (default: as the dataset declares)")
    bring.add_argument(
        "--organ",
        nargs="+",
        help="labels to merge into one organ (default: each declared one a class)",
    )
    bring.set_defaults(run=_import)

    download = kinds.add_parser(
        "download",
        help="download public tasks of the Medical Segmentation Decathlon",
        description="Download tasks of the Medical Segmentation Decathlon, verify their checksums and unpack them. "
        "Tasks that are complete are not downloaded again. MEDMTL_MSD_URL is the address of a mirror.",
    )
    download.add_argument("tasks", nargs="+", metavar="TASK", help="for example Task04_Hippocampus")
    download.add_argument("--output", type=Path, metavar="DIR", help="folder to unpack into (default: $MEDMTL_DATA)")
    download.add_argument("--to", type=Path, dest="output", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    download.set_defaults(run=_download)

    phantom = kinds.add_parser(
        "phantom",
        help="write the digital phantoms",
        description="Write the digital phantoms: five tasks and a set of other images, as Medical Segmentation "
        "Decathlon folders.",
    )
    # A folder without a flag is how earlier versions took it.
    phantom.add_argument("folder", type=Path, nargs="?", help=argparse.SUPPRESS)
    phantom.add_argument("--output", type=Path, metavar="DIR", help="folder to write them into")
    phantom.add_argument("--seed", type=int, default=0, help="another seed gives other phantoms (default: 0)")
    phantom.add_argument("--cases", type=int, default=20, help="labelled cases per task (default: 20)")
    phantom.set_defaults(run=_phantom)

    cache = kinds.add_parser(
        "cache",
        help="list or clear prepared volumes on disk",
        description="Say how many prepared volumes trainings keep on disk (`data.cache`), how large they are and where "
        "they lie: in `volumes` of $MEDMTL_CACHE, or of ~/.cache/medmtl if that is not set.",
    )
    cache.add_argument("--clear", action="store_true", help="remove them; a training makes again what it needs")
    cache.set_defaults(run=_cache)
    return parser


def _check(options: argparse.Namespace) -> None:
    if (options.path is None) == (options.config is None):
        raise ConfigError("data check takes one folder or one configuration", fix="give a folder, or --config FILE")
    if options.layout is not None and options.config is not None:
        raise ConfigError("--layout is for a folder", fix="set `layout` of the tasks in the configuration")
    if options.jobs is not None and options.jobs < 1:
        raise ConfigError(f"--jobs={options.jobs}", fix="use 1 or more")

    from medmtl.data_tools.check import check
    from medmtl.data_tools.listing import list_config, list_folder, parse_layout
    from medmtl.data_tools.verdicts import Plan
    from medmtl.runs.lock import only_writer
    from medmtl.training.trust import use_current_folder

    if options.config is None:
        use_current_folder([options.layout or ""])
        layout = None if options.layout is None else parse_layout(options.layout)
        datasets = [list_folder(options.path, layout, options.patient)]
        title, plan = datasets[0].name, Plan.of()
    else:
        from medmtl.training.config_files import find_config

        config = find_config(options.config)
        use_current_folder([read_text(config)])
        datasets = list_config(config, options.patient)
        title, plan = Path(options.config).stem, Plan.of(config)
    out = options.output or Path("data-check") / title
    with only_writer(out, option="--output"):
        usable = check(datasets, title, out, options.jobs, options.fix_affine, plan)
    if not usable:
        raise SystemExit(INCOMPLETE)


def _import(options: argparse.Namespace) -> None:
    from medmtl.data_tools.block import task_block
    from medmtl.training.trust import use_current_folder

    use_current_folder([options.layout or ""])
    sys.stdout.write(task_block(options.path, options.name, options.modality, options.organ, options.layout))


def _download(options: argparse.Namespace) -> None:
    from medmtl.data_tools.download import download

    for path in download(options.tasks, options.output):
        sys.stdout.write(f"downloaded: {path}\n")


def _phantom(options: argparse.Namespace) -> None:
    from medmtl.data.phantoms.phantoms import write_phantoms
    from medmtl.runs.lock import only_writer

    if (options.folder is None) == (options.output is None):
        raise ConfigError("data phantom needs one folder to write into", fix="add --output DIR")
    out = options.output or options.folder
    with only_writer(out, option="--output"):
        write_phantoms(out, seed=options.seed, cases=options.cases)
    sys.stdout.write(f"digital phantoms: {out}\n")


def _cache(options: argparse.Namespace) -> None:
    from medmtl.data.store import Store

    store = Store()
    sizes = store.entries().values()
    if options.clear:
        store.clear()
    what = "cleared" if options.clear else "prepared volumes"
    sys.stdout.write(f"{what}: {len(sizes)} in {store.folder}, {sum(sizes) / 1e6:,.0f} MB\n")
