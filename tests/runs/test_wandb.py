"""What a W&B run is told, without a training."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
from wandb_record import WandbRun, read_messages, read_runs

from medmtl.errors import ConfigError
from medmtl.runs.folder import RunFolder
from medmtl.runs.wandb import RunWandbLogger, Wandb, check_login

LONG = {"words": "word " * 30_000}  # more than four blocks of wandb's file


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> WandbRun:
    """A W&B run under the default options, with one figure logged."""
    run = RunFolder(tmp_path_factory.mktemp("plain") / "multitask")
    run.path.mkdir()
    mirror = RunWandbLogger(Wandb(), run, "fit", None, LONG)
    mirror.log_metrics({"val/mean/dice": 0.5}, step=7)
    wandb.finish()
    (read,) = read_runs(run.path).values()
    return read


def test_group_and_job_type_are_folder_and_command_unless_given(plain: WandbRun) -> None:
    assert (plain.group, plain.job_type, plain.tags) == ("multitask", "fit", [])


def test_configuration_and_metrics_arrive_whole(plain: WandbRun) -> None:
    assert plain.config["words"] == LONG["words"]
    assert plain.values("val/mean/dice") == [0.5]
    assert plain.values("trainer/global_step") == [7]
    assert "resumed_from" not in plain.config


def test_a_damaged_record_is_not_read(plain: WandbRun) -> None:
    (path,) = plain.folder.glob("*.wandb")
    content = bytearray(path.read_bytes())
    content[50_000] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        list(read_messages(bytes(content)))


def test_wandb_gets_nothing_that_it_warns_of_and_the_environment_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict = {}
    monkeypatch.setattr(wandb, "init", lambda **options: given.update(options) or SimpleNamespace(id="abc"))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert RunWandbLogger(Wandb(mode="offline"), RunFolder(tmp_path), "test", None, {}).experiment.id == "abc"
    assert given["mode"] == "offline"
    assert "anonymous" not in given
    assert "WANDB_MODE" not in os.environ


def test_a_test_and_a_resumed_training_name_the_newest_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict = {}
    monkeypatch.setattr(wandb, "init", lambda **options: given.update(options) or SimpleNamespace(id="third"))
    run = RunFolder(tmp_path)
    run.update_manifest(wandb={"fit": ["first", "second"], "test": ["zeroth"]})
    mirror = RunWandbLogger(Wandb(), run, "test", run.best, {"run": "x"})
    assert mirror.experiment
    assert given["config"] == {"run": "x", "fit": "second"}
    mirror = RunWandbLogger(Wandb(), run, "fit", run.last, {"run": "x"})
    assert mirror.experiment
    assert given["config"] == {"run": "x", "resumed_from": "second"}
    mirror.record(run, "fit")
    assert run.read_manifest()["wandb"] == {"fit": ["first", "second", "third"], "test": ["zeroth"]}


@pytest.mark.parametrize("tag", ["", "x" * 65])
def test_a_tag_that_wandb_refuses_is_named(tag: str) -> None:
    with pytest.raises(ConfigError, match=r"wandb\.tags names"):
        Wandb(tags=["short", tag])


@pytest.mark.parametrize("mode", [None, "offline", "disabled"])
def test_online_without_a_key_is_one_line_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, mode: str | None
) -> None:
    """The configuration overrides WANDB_MODE, so that W&B would ask for a key in the middle of a training."""
    monkeypatch.setattr(wandb, "login", lambda **_: False)
    if mode is None:
        monkeypatch.delenv("WANDB_MODE", raising=False)
    else:
        monkeypatch.setenv("WANDB_MODE", mode)
    with pytest.raises(ConfigError, match=r"wandb\.mode is online, and W&B knows no key of yours"):
        check_login(Wandb(mode="online"))
    check_login(Wandb(mode="offline"))
