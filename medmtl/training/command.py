"""`medmtl fit`, `test` and `calibrate`."""

import logging
import os
import warnings
from collections.abc import Sequence
from contextlib import ExitStack

import wandb
import yaml
from pytorch_lightning.utilities.exceptions import (  # type: ignore[attr-defined]
    MisconfigurationException,
    SIGTERMException,
)

from medmtl.distributed import is_first, part
from medmtl.errors import AGAIN, ConfigError, MedMTLError, RunError, Stopped
from medmtl.runs.checkpoint import CHECKPOINT_KEY, read_checkpoint, write_checkpoint
from medmtl.runs.replace import settle
from medmtl.terminal import terminal
from medmtl.training.lightning_cli import FinishedError, MedCLI
from medmtl.training.printed import print_tested, print_trained
from medmtl.training.request import RUN_VARIABLE, Request, parse_request

logger = logging.getLogger(__name__)

# In what torch says of processes that draw patches.
WORKERS = ("DataLoader worker", "with the workers is no longer possible")


def run_command(argv: Sequence[str]) -> None:
    """Run `fit`, `test` or `calibrate`.

    Args:
        argv: the command and its options.

    Raises:
        MedMTLError: for everything that the user can correct.
    """
    _quiet()
    with ExitStack() as held:
        request = parse_request(list(argv), held)
        os.environ[RUN_VARIABLE] = str(request.run.path)
        try:
            cli = _run(request)
        finally:
            os.environ.pop(RUN_VARIABLE, None)
            if wandb.run is not None:
                wandb.finish()
            if is_first() and request.command == "fit":
                settle(request.run)
        part()
        if cli is None or not is_first():
            return
        _check_not_empty(cli)
        if request.command == "calibrate":
            _keep_detector(cli)
        if request.command == "fit":
            print_trained(cli.request.run, list(cli.datamodule.trained))
        elif request.command == "test":
            print_tested(cli.request.run, list(cli.datamodule.trained), cli.trainer.callback_metrics, cli.report.page)
        else:
            replaced = "its scaling and OOD threshold are new, its weights are as they were"
            terminal().print(f"calibrated: {request.checkpoint} ({replaced})", soft_wrap=True)


def _run(request: Request) -> MedCLI | None:
    """Parse the arguments with LightningCLI, and run its trainer; None for a training that is finished already."""
    try:
        return MedCLI(request)
    except FinishedError:
        return None
    except MisconfigurationException as error:
        raise ConfigError(" ".join(str(error).split())) from None
    except ValueError as error:
        if isinstance(error.__cause__, MedMTLError):  # jsonargparse wraps what an optional class raises
            raise error.__cause__ from None
        if "loaded state dict" in str(error):  # of the optimizer
            why = f"{request.checkpoint} holds the state of another optimizer ({' '.join(str(error).split())})"
            raise RunError(why, fix="resume with that one, and as many trained layers, or train again") from None
        if "specified number of total steps" not in str(error):
            raise
        fix = "train longer from the beginning, without --resume"
        raise ConfigError("the schedule of the learning rate has ended", fix=fix) from None
    except (RuntimeError, OSError) as error:
        if not any(each in str(error) for each in WORKERS):
            raise
        raise _without_workers(str(error), request) from None
    except SystemExit as error:
        if isinstance(error, SIGTERMException):
            raise Stopped("terminated", _how_to_go_on(request)) from None
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning has ended the training and saved it
            raise Stopped("interrupted", _how_to_go_on(request)) from None
        raise
    except Stopped as stop:
        raise Stopped(stop.how, _how_to_go_on(request)) from None
    except KeyboardInterrupt:
        raise Stopped("interrupted", _how_to_go_on(request)) from None


def _check_not_empty(cli: MedCLI) -> None:
    """Check that a test or a calibration had cases; Lightning passes over one without.

    Raises:
        RunError: it had none.
    """
    command = cli.request.command
    trainer = cli.trainer
    limit, batches = {
        "test": (trainer.limit_test_batches, trainer.num_test_batches),
        "calibrate": (trainer.limit_val_batches, trainer.num_val_batches),
    }.get(command, (None, []))
    if limit == 0 or (batches and not sum(batches)):  # no batches are known where other processes did it
        part_of_split = "test" if command == "test" else cli.datamodule.calibration_part
        raise RunError(f"there is no case to {command}", fix=f"train with data.{part_of_split} above 0")


def _how_to_go_on(request: Request) -> str:
    """What to do after an interruption; empty: what every command says."""
    if request.command != "fit":
        return ""
    return f"continue with: medmtl fit --run {request.run.path} --resume" if request.run.last.is_file() else AGAIN


def _without_workers(text: str, request: Request) -> RunError:
    """What is said where a process that draws patches has ended, of the many things that torch says then."""
    why = text.strip().splitlines()[-1]
    less = "where memory, shared memory (/dev/shm) or open files (ulimit -n) ran out, with a smaller data.workers"
    return RunError(f"a process that draws patches has ended ({why})", fix=f"{_how_to_go_on(request) or AGAIN}; {less}")


def _keep_detector(cli: MedCLI) -> None:
    """Write the detector and the layers that `medmtl calibrate` fitted into the checkpoint's configuration."""
    path = cli.request.checkpoint
    assert path is not None
    checkpoint = read_checkpoint(path)
    config, fitted = yaml.safe_load(checkpoint[CHECKPOINT_KEY]), cli.resolved()["spectral"]
    config["spectral"] = {**config["spectral"], "layers": fitted["layers"], "detector": fitted["detector"]}
    checkpoint[CHECKPOINT_KEY] = yaml.safe_dump(config, sort_keys=False)
    write_checkpoint(path, checkpoint)


def _quiet() -> None:
    """Silence the libraries' advice to developers, and all processes but the first."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    for message in (
        ".*does not have many workers.*",
        ".*`tensorboardX` has been removed.*",
        "Checkpoint directory .* exists and is not empty",
        ".*smaller than the logging interval.*",
        ".*LightningCLI's args parameter.*",
        ".*Trying to infer the `batch_size`.*",
        ".*callbacks used to create the checkpoint need to be provided.*",
        ".*LeafSpec.*",
        ".*your dataloader is not resumable.*",  # `RunCheckpoint` does it
        ".*could not find the monitored key.*",  # a training without a validation, see `_print_trained`
        ".*in eval mode at the start of training.*",  # frozen layers are
        r".*recommended to use `self\.log\(.*sync_dist.*",  # our figures are the same in all processes
        "Grad strides do not match bucket view strides",  # of a network with one input channel: they are the same
    ):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning_fabric.utilities.distributed").setLevel(logging.WARNING)
    if not is_first():
        for name in ("medmtl", "lightning_fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        warnings.simplefilter("ignore")
