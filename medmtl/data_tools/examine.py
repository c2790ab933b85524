"""Read all cases of some datasets in parallel, and find errors within and among them."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from medmtl.data_tools.facts import Request, look_at
from medmtl.data_tools.lacking import lacking
from medmtl.data_tools.leaks import duplicates, repeated, shared_patients, torn_folds
from medmtl.data_tools.listing import Dataset
from medmtl.data_tools.outliers import outliers
from medmtl.data_tools.unlabelled import unlabelled
from medmtl.errors import RunError
from medmtl.progress import watched
from medmtl.results.dataset import CaseFacts, Finding, worst_first

MOST_JOBS = 8  # by default; each holds a volume

Seen = tuple[CaseFacts, list[Finding]]


def examine(datasets: Sequence[Dataset], jobs: int | None = None) -> tuple[list[CaseFacts], list[Finding]]:
    """Read every case, and find errors and unusual properties.

    Args:
        datasets: the datasets, compared with one another.
        jobs: processes that read; None: one for each core, 8 at most.

    Returns:
        The cases in the order of the datasets, and the findings, worst first.

    Raises:
        RunError: a process was killed, as happens where memory runs out.
    """
    requests = [
        Request(dataset.name, dataset.root, case, dataset.corpus.declared)
        for dataset in datasets
        for case in dataset.corpus.cases
    ]
    processes = min(jobs or min(len(os.sched_getaffinity(0)), MOST_JOBS), max(len(requests), 1))
    seen: dict[int, Seen] = {}
    for number, found in watched(_each(requests, processes), "reading", len(requests), "cases"):
        seen[number] = found
    cases = [seen[number][0] for number in range(len(requests))]
    findings = [finding for number in range(len(requests)) for finding in seen[number][1]]
    for dataset in datasets:
        findings += _among([case for case in cases if case.dataset == dataset.name], dataset)
    return cases, worst_first([*findings, *duplicates(cases)])


def _each(requests: Sequence[Request], processes: int) -> Iterator[tuple[int, Seen]]:
    """Examine every case; number and result, in any order."""
    if processes == 1:
        yield from ((number, look_at(request)) for number, request in enumerate(requests))
        return
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))
    try:
        waiting = {pool.submit(look_at, request): number for number, request in enumerate(requests)}
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    except BrokenProcessPool:
        raise RunError("a process that read cases was killed", fix="use fewer --jobs if memory ran out") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _among(cases: Sequence[CaseFacts], dataset: Dataset) -> Iterator[Finding]:
    """Findings that need all cases of one dataset."""
    readable = [case for case in cases if case.shape]
    yield from (Finding("note", "files", dataset.name, "", note) for note in dataset.corpus.notes)
    yield from unlabelled(dataset)
    yield from repeated(cases)
    yield from outliers(readable, dataset.names)
    yield from lacking(readable, dataset.corpus)
    yield from shared_patients(cases)
    yield from torn_folds(cases, dataset.corpus.folds)
    if any(case.labels for case in readable) and not any(case.volumes_ml for case in cases):
        yield Finding("error", "empty", dataset.name, "", "no case has foreground", "correct the labels")
