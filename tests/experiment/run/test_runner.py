"""The runner with workers that only pretend: what is started, in which order, and what becomes of the rest."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from medmtl.errors import RunError
from medmtl.experiment.plan.cell import Budget, Cell
from medmtl.experiment.plan.job import Job
from medmtl.experiment.run import runner
from medmtl.experiment.run.progress import LineView, TerminalView, in_words, seconds_left, view_for
from medmtl.experiment.run.runner import Outcome, only_runner, run_jobs
from medmtl.runs.folder import RunFolder

CELL = Cell("quick", "dedicated", "LiverCT", seed=0, fold=None, cases=None, budget=Budget("steps", 6, 2, 2))


@dataclass
class Pretended:
    """A launcher whose workers finish when they are asked the second time, and keep a diary."""

    failing: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    interrupted: str | None = None
    diary: list[str] = field(default_factory=list)
    working: set[str] = field(default_factory=set)
    most: int = 0

    def start(self, job: Job) -> "Worker":
        if job.name in self.refused:
            raise RunError(self.refused[job.name])
        self.diary.append(f"start {job.name}")
        self.working.add(job.name)
        self.most = max(self.most, len(self.working))
        return Worker(job, self)


@dataclass
class Worker:
    job: Job
    launcher: Pretended
    asked: int = 0

    def poll(self) -> str | None:
        name = self.job.name
        if name == self.launcher.interrupted:
            raise KeyboardInterrupt
        self.asked += 1
        if self.asked < 2:
            return None
        self.launcher.working.discard(name)
        self.launcher.diary.append(f"end {name}")
        if name in self.launcher.failing:
            return self.launcher.failing[name]
        self.job.record(finished=True, seconds=60.0)
        return ""

    def stop(self) -> None:
        self.launcher.working.discard(self.job.name)
        self.launcher.diary.append(f"stop {self.job.name}")


def make_jobs(folder: Path, names: Iterable[str]) -> list[Job]:
    """Jobs named `a`, or `a<b` where `a` starts from `b`."""
    jobs = []
    for text in names:
        name, _, needs = text.partition("<")
        run = RunFolder(folder / "runs" / name)
        jobs.append(Job(name, folder, run, folder / f"{name}.yaml", 100, needs or None, f"print-{name}", CELL))
    return jobs


def run(jobs: list[Job], launcher: Pretended, at_once: int = 1) -> tuple[Outcome, str]:
    out = StringIO()
    outcome = run_jobs(jobs, launcher, at_once, LineView(Console(file=out)), every=0)
    return outcome, out.getvalue()


def started(launcher: Pretended) -> list[str]:
    return [entry.removeprefix("start ") for entry in launcher.diary if entry.startswith("start ")]


def test_one_after_the_other_in_the_order_given(tmp_path: Path) -> None:
    launcher = Pretended()
    outcome, _ = run(make_jobs(tmp_path, "cab"), launcher)
    assert launcher.diary == ["start c", "end c", "start a", "end a", "start b", "end b"]
    assert outcome == Outcome(("c", "a", "b"), {}, {})


@pytest.mark.parametrize(("at_once", "most"), [(1, 1), (2, 2), (3, 3), (9, 5)])
def test_no_more_than_allowed_run_together(tmp_path: Path, at_once: int, most: int) -> None:
    launcher = Pretended()
    outcome, _ = run(make_jobs(tmp_path, "abcde"), launcher, at_once)
    assert launcher.most == most
    assert outcome.finished == tuple("abcde")


def test_a_job_starts_once_what_it_needs_has_finished(tmp_path: Path) -> None:
    launcher = Pretended()
    outcome, _ = run(make_jobs(tmp_path, ["b<a", "c<a", "d", "a", "e<c"]), launcher, at_once=3)
    when = launcher.diary.index
    assert when("end a") < min(when("start b"), when("start c"))
    assert when("end c") < when("start e")
    assert started(launcher)[:2] == ["d", "a"]
    assert outcome.finished == ("b", "c", "d", "a", "e")


def test_a_failed_job_stops_only_those_that_need_it(tmp_path: Path) -> None:
    launcher = Pretended(failing={"a": "no labels (log: a.log)"})
    outcome, printed = run(make_jobs(tmp_path, ["a", "b<a", "c<b", "d", "e<d"]), launcher)
    assert started(launcher) == ["a", "d", "e"]
    assert outcome.finished == ("d", "e")
    assert outcome.failed == {"a": "no labels (log: a.log)"}
    assert outcome.skipped == {"b": "it starts from a, which failed", "c": "it starts from b, which was skipped"}
    assert "failed a: no labels (log: a.log)" in printed
    assert "skipped c: it starts from b, which was skipped" in printed


def test_what_a_failed_job_would_have_needed_later_is_found_in_any_order(tmp_path: Path) -> None:
    outcome, _ = run(make_jobs(tmp_path, ["c<b", "b<a", "a"]), Pretended(failing={"a": "broken"}))
    assert outcome.failed == {"a": "broken"}
    assert set(outcome.skipped) == {"b", "c"}


def test_a_job_that_needs_one_which_is_not_there_is_skipped(tmp_path: Path) -> None:
    outcome, _ = run(make_jobs(tmp_path, ["a", "b<nothing"]), Pretended())
    assert outcome.finished == ("a",)
    assert set(outcome.skipped) == {"b"}


def test_a_job_that_cannot_be_started_has_failed(tmp_path: Path) -> None:
    launcher = Pretended(refused={"a": "it could not be submitted (queue closed)"})
    outcome, printed = run(make_jobs(tmp_path, ["a", "b"]), launcher)
    assert outcome.finished == ("b",)
    assert outcome.failed == launcher.refused
    assert "failed a: it could not be submitted (queue closed)" in printed


def test_a_job_that_is_refused_while_others_run_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "PAUSE", 0.0)
    full = iter([True, True])

    class Busy(Pretended):
        def start(self, job: Job) -> Worker:
            if job.name == "b" and next(full, False):
                raise RunError("it could not be submitted (queue full)")
            return super().start(job)

    outcome, _ = run(make_jobs(tmp_path, "abc"), Busy(), at_once=2)
    assert outcome == Outcome(("a", "b", "c"), {}, {})


def test_a_launcher_that_takes_no_job_ends_the_experiment_instead_of_failing_every_run(tmp_path: Path) -> None:
    closed = dict.fromkeys("abcdefgh", "it could not be submitted (no controller)")
    with pytest.raises(RunError, match=r"no training run can be started: it could not be submitted \(no controller\)"):
        run(make_jobs(tmp_path, "abcdefgh"), Pretended(refused=closed))


def test_a_finished_job_is_not_started_again(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, ["a", "b<a", "c"])
    run(jobs[:2], Pretended())
    again = Pretended()
    outcome, _ = run(jobs, again)
    assert started(again) == ["c"]
    assert outcome.finished == ("a", "b", "c")


def test_a_failed_job_is_tried_again_by_the_next_start(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, ["a", "b<a"])
    run(jobs, Pretended(failing={"a": "broken"}))
    again = Pretended()
    outcome, _ = run(jobs, again)
    assert started(again) == ["a", "b"]
    assert outcome == Outcome(("a", "b"), {}, {})


def test_a_second_runner_is_refused_in_one_line(tmp_path: Path) -> None:
    with only_runner(tmp_path), pytest.raises(RunError, match="is being run by another process") as error:
        only_runner(tmp_path).__enter__()
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
    with only_runner(tmp_path):  # free again
        pass


def test_ctrl_c_stops_the_workers_and_says_how_to_go_on(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, "abcd")
    launcher = Pretended(interrupted="c")
    with pytest.raises(RunError, match="2 of 4 training runs are finished: run the same command again"):
        run(jobs, launcher, at_once=2)
    assert launcher.working == set()
    assert {"stop c", "stop d"} <= set(launcher.diary)
    again = Pretended()
    outcome, _ = run(jobs, again)
    assert started(again) == ["c", "d"]
    assert outcome.finished == tuple("abcd")


def test_no_worker_is_left_behind_by_an_error(tmp_path: Path) -> None:
    class Broken(LineView):
        def show(self, status: object) -> None:
            raise OSError("no space left")

    launcher = Pretended()
    with pytest.raises(OSError, match="no space left"):
        run_jobs(make_jobs(tmp_path, "a"), launcher, 1, Broken(Console(file=StringIO())), every=0)
    assert launcher.diary == ["start a", "stop a"]


def test_without_a_terminal_every_start_and_end_is_a_line(tmp_path: Path) -> None:
    _, printed = run(make_jobs(tmp_path, "abc"), Pretended())
    assert printed.splitlines() == [
        "started a (0 of 3 done, 1 running, 2 left, 0 failed)",
        "finished a in 1 min (1 of 3 done, 0 running, 2 left, 0 failed; about 2 min to go)",
        "started b (1 of 3 done, 1 running, 1 left, 0 failed; about 2 min to go)",
        "finished b in 1 min (2 of 3 done, 0 running, 1 left, 0 failed; about 1 min to go)",
        "started c (2 of 3 done, 1 running, 0 left, 0 failed; about 1 min to go)",
        "finished c in 1 min (3 of 3 done, 0 running, 0 left, 0 failed)",
    ]


def test_a_terminal_shows_running_jobs_counts_and_failures(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, ["a", "b", "c<b"])
    jobs[0].run.path.mkdir(parents=True)
    jobs[0].run.metrics.write_text("epoch,step\n0,41\n")
    console = Console(file=StringIO(), force_terminal=True, width=100)
    view = view_for(console)
    assert isinstance(view, TerminalView)
    run_jobs(jobs, Pretended(failing={"b": "broken [log: b.log]"}), 2, view, every=0)
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    assert re.search(r"a\s+│\s+42 of 100", drawn)
    assert "0 of 3 done, 2 running, 1 left, 0 failed; about" in drawn
    assert "failed b: broken [log: b.log]" in drawn
    assert "1 of 3 done, 0 running, 0 left, 1 failed, 1 skipped" in drawn


def test_other_outputs_get_lines() -> None:
    assert isinstance(view_for(Console(file=StringIO())), LineView)


def test_before_anything_is_measured_there_is_no_estimate() -> None:
    assert seconds_left([], [], [100], 1) is None
    assert seconds_left([], [(5.0, 0, 100)], [100], 1) is None


def test_running_jobs_are_measured_until_one_has_finished() -> None:
    # 10 s for 20 steps: .5 s a step; 80 steps are left of it, and 100 wait
    assert seconds_left([], [(10.0, 20, 100)], [100], 1) == pytest.approx(40 + 50)
    # now 1 s a step, start and test included; 90 s are left of the running one
    assert seconds_left([(100.0, 100)], [(10.0, 20, 100)], [100], 1) == pytest.approx(90 + 100)


def test_steps_count_not_jobs() -> None:
    assert seconds_left([(30.0, 100), (10.0, 100)], [], [500], 1) == pytest.approx(100)


def test_jobs_at_once_share_what_is_left() -> None:
    assert seconds_left([(100.0, 100)], [], [100] * 4, 2) == pytest.approx(200)
    assert seconds_left([(100.0, 100)], [], [100] * 3, 2) == pytest.approx(200)  # the third runs alone
    assert seconds_left([(100.0, 100)], [], [100], 8) == pytest.approx(100)
    # the free place takes the waiting one: 100 s, longer than the 60 s of the running one
    assert seconds_left([(100.0, 100)], [(40.0, 40, 100)], [100], 2) == pytest.approx(100)


def test_a_run_that_is_being_tested_still_takes_its_time() -> None:
    assert seconds_left([(100.0, 100)], [(90.0, 100, 100)], [], 1) == pytest.approx(10)
    assert seconds_left([(100.0, 100)], [(130.0, 100, 100)], [], 1) == 0
    # slower than the others: half of its steps are left
    assert seconds_left([(100.0, 100)], [(300.0, 50, 100)], [], 1) == pytest.approx(50)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59, "59 s"), (60, "1 min"), (3400, "57 min"), (3600, "1 h 0 min"), (187_200, "2 d 4 h")],
)
def test_lengths_of_time_are_said_plainly(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
