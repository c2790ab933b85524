"""Predict image after image; the next one is read meanwhile, and finished ones are not repeated."""

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from rich.console import Console

from medmtl.errors import MedMTLError, RunError
from medmtl.io.input import Input, printable
from medmtl.io.reader import Scan, read
from medmtl.io.stored import reason as short_reason
from medmtl.predict.case import forget, predict_case
from medmtl.predict.model import Model
from medmtl.predict.names import check_unclaimed
from medmtl.predict.options import Options
from medmtl.predict.progress import Progress
from medmtl.predict.records import check_owner, finished, read_record, request_of
from medmtl.results.prediction import FailedCase, PredictedCase

logger = logging.getLogger(__name__)


def predict_all(
    model: Model, digest: str, inputs: Sequence[Input], options: Options, console: Console
) -> tuple[list[PredictedCase], list[FailedCase]]:
    """Predict the images that are not finished. At most two are in memory at a time.

    Args:
        model: the trained run.
        digest: of its checkpoint.
        inputs: the images, with unique names.
        options: what to write, and where.
        console: shows progress and the time left.

    Returns:
        The predicted images, including those of earlier commands, and the failed ones.

    Raises:
        DataError: the folder holds outputs of another image of the same name, or a file that a mask would replace.
        RunError: the folder cannot be written to.
    """
    done: list[PredictedCase] = []
    left: list[tuple[Input, dict[str, Any]]] = []
    for source in inputs:
        request, record = request_of(source, options, digest), read_record(options.output, source.name)
        if record is not None and finished(record, request, options):
            done.append(record)
            continue
        if record is not None and not options.overwrite:
            check_owner(record, request, options.output)
        if not options.overwrite:
            check_unclaimed(source, record, options)
        left.append((source, request))
    if done:
        console.print(f"{len(done)} of {len(inputs)} images are finished already", highlight=False)
    failed: list[FailedCase] = []
    efforts = [request["bytes"] for _, request in left]
    with Progress(console, efforts) as progress, ThreadPoolExecutor(1, "reading") as thread:
        following = [thread.submit(timed_read, model, *first) for first in left[:1]]
        for place, (source, request) in enumerate(left):
            reading = following.pop()
            following = [thread.submit(timed_read, model, *after) for after in left[place + 1 : place + 2]]
            outcome = _attempt(model, source, request, options, reading)
            del reading  # so that at most two scans are in memory
            if isinstance(outcome, PredictedCase):
                done.append(outcome)
            else:
                failed.append(outcome)
            progress.advance(outcome)
    return done, failed


def timed_read(model: Model, source: Input, request: Mapping[str, Any]) -> tuple[Scan, float]:
    """Read an image with the channels that its task stacks, and say how many seconds that took."""
    start = time.perf_counter()
    return read(source, model.channels(request["task"])), time.perf_counter() - start


def _attempt(
    model: Model,
    source: Input,
    request: Mapping[str, Any],
    options: Options,
    reading: "Future[tuple[Scan, float]]",
) -> PredictedCase | FailedCase:
    """Predict an image. Whatever fails in it does not stop the others; a folder that cannot be written to does."""
    try:
        scan, seconds = reading.result()
        return predict_case(model, scan, request, options, seconds)
    except RunError:
        raise
    except Exception as error:
        forget(options.output, source.name)
        return FailedCase(source.name, printable(source.path), failure(source, error))


def failure(source: Input, error: Exception) -> str:
    """Why an image cannot be segmented, in one line.

    Args:
        source: the image.
        error: that reading or predicting it raised.
    """
    if isinstance(error, MedMTLError):
        reason = str(error)
    elif isinstance(error, MemoryError):
        reason = f"{source.path} does not fit into memory: crop or resample it"
    else:  # of a library, on an image that none of our checks refused
        logger.debug("%s", source.path, exc_info=error)
        reason = f"{source.path} cannot be segmented ({type(error).__name__}: {short_reason(error)})"
    return printable(reason)
