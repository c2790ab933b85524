"""RunFolder: which name a new run gets, which run is the newest, and what it holds."""

import json
from pathlib import Path

import pytest

from medmtl.errors import RunError
from medmtl.runs.folder import RunFolder, environment


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make(name: str, *checkpoints: str) -> RunFolder:
    run = RunFolder(Path("runs") / name)
    run.path.mkdir(parents=True)
    for checkpoint in checkpoints:
        run.checkpoints.mkdir(exist_ok=True)
        (run.checkpoints / f"{checkpoint}.ckpt").write_bytes(b"")
    return run


def test_the_first_run_has_the_plain_name_and_later_ones_are_numbered() -> None:
    for name in ("multitask", "multitask-2", "multitask-3"):
        assert RunFolder.next_free("multitask").path == Path("runs") / name
        make(name)


def test_numbers_are_counted_beyond_nine() -> None:
    for number in range(1, 11):
        make("multitask" if number == 1 else f"multitask-{number}", "best")
    assert RunFolder.next_free("multitask").path == Path("runs/multitask-11")
    assert RunFolder.newest("multitask").path == Path("runs/multitask-10")


def test_runs_of_other_names_do_not_count() -> None:
    for name in ("multitask-open", "multitask-open-2", "multitask2", "my-multitask", "multitask-2b"):
        make(name, "best")
    assert RunFolder.next_free("multitask").path == Path("runs/multitask")
    assert RunFolder.next_free("multitask-open").path == Path("runs/multitask-open-3")
    with pytest.raises(RunError, match="runs/multitask with a checkpoint"):
        RunFolder.newest("multitask")


def test_a_new_run_gets_the_first_number_that_is_free() -> None:
    for name in ("multitask", "multitask-5"):
        make(name)
    assert RunFolder.next_free("multitask").path == Path("runs/multitask-2")


def test_a_name_is_taken_literally() -> None:
    for name, other in (("a.b", "axb-7"), ("a+b", "aab-7"), ("a[b]", "ab-7")):
        make(name, "best")
        make(other, "best")
        assert RunFolder.next_free(name).path == Path(f"runs/{name}-2")
        assert RunFolder.newest(name).path == Path(f"runs/{name}")


def test_the_newest_run_is_the_last_that_holds_a_checkpoint() -> None:
    make("multitask", "best", "last")
    make("multitask-2", "last")
    make("multitask-3")
    assert RunFolder.newest("multitask").path == Path("runs/multitask-2")


def test_no_run_at_all_is_one_clear_line() -> None:
    with pytest.raises(RunError, match="no run runs/multitask"):
        RunFolder.newest("multitask")


def test_the_best_checkpoint_is_tested_or_else_the_last() -> None:
    assert make("both", "best", "last").checkpoint() == Path("runs/both/checkpoints/best.ckpt")
    assert make("cut-short", "last").checkpoint() == Path("runs/cut-short/checkpoints/last.ckpt")
    with pytest.raises(RunError, match="runs/none holds no checkpoint"):
        make("none").checkpoint()


def test_a_folder_holds_a_run_once_it_has_a_configuration_or_checkpoints() -> None:
    assert not RunFolder(Path("runs/absent")).exists
    assert not make("empty").exists
    assert make("trained", "last").exists
    begun = make("begun")
    begun.config.write_text("seed_everything: 0\n")
    assert begun.exists


def test_all_paths_lie_in_the_folder() -> None:
    run = RunFolder(Path("runs/multitask"))
    paths = {
        "config.yaml": run.config,
        "splits.json": run.splits,
        "run.json": run.manifest,
        "metrics.csv": run.metrics,
        "checkpoints/best.ckpt": run.best,
        "checkpoints/last.ckpt": run.last,
        "report": run.report,
    }
    assert {name: path.relative_to(run.path) for name, path in paths.items()} == {n: Path(n) for n in paths}


def test_facts_are_added_to_the_manifest() -> None:
    run = RunFolder(Path("runs/new"))
    assert run.read_manifest() == {}
    run.update_manifest(seed=0, versions={"torch": "2"})
    run.update_manifest(seed=1, fit_seconds=2.5)
    assert run.read_manifest() == {"seed": 1, "versions": {"torch": "2"}, "fit_seconds": 2.5}
    assert json.loads(run.manifest.read_text()) == run.read_manifest()


def test_a_fact_that_is_no_json_leaves_the_manifest_as_it_was() -> None:
    run = RunFolder(Path("runs/new"))
    run.update_manifest(seed=0)
    with pytest.raises(TypeError):
        run.update_manifest(path=Path("x"))
    assert run.read_manifest() == {"seed": 0}
    assert [path.name for path in run.path.iterdir()] == ["run.json"]


def test_the_environment_names_what_a_run_depends_on() -> None:
    facts = json.loads(json.dumps(environment()))
    assert {"medmtl", "torch", "monai", "numpy"} <= set(facts["versions"])
    assert {"command", "python", "platform", "git"} <= set(facts)
