"""A logger that is only named writes into the run folder; what is given of it stays."""

from pathlib import Path

import pytest

from medmtl.errors import ConfigError
from medmtl.runs import places
from medmtl.runs.folder import RunFolder
from medmtl.runs.places import LIBRARIES, flags_with_places, with_places

RUN = RunFolder(Path("runs/tiny"))
PATH = "pytorch_lightning.loggers.TensorBoardLogger"
ARGUMENTS = {"save_dir": "runs/tiny", "name": "tensorboard", "version": "fit"}


@pytest.mark.parametrize("value", ["TensorBoardLogger", PATH, {"class_path": "TensorBoardLogger"}])
def test_a_logger_in_a_configuration_writes_into_the_run_folder(value: object) -> None:
    for given, expected in ((value, {"class_path": PATH, "init_args": ARGUMENTS}), (False, False), (None, None)):
        found = with_places({"trainer": {"logger": given, "max_steps": 1}}, RUN, "fit")
        assert found == {"trainer": {"logger": expected, "max_steps": 1}}
    several = with_places({"trainer": {"logger": [value, {"class_path": "own.Logger"}]}}, RUN, "fit")
    assert [each["class_path"] for each in several["trainer"]["logger"]] == [PATH, "own.Logger"]
    assert with_places({"data": {}}, RUN, "fit") == {"data": {}}


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_that_is_missing_is_named_with_how_to_install_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "find_spec", lambda library: None)
    with pytest.raises(ConfigError, match=f"{LIBRARIES[name]}, which is not installed: .* -m pip install"):
        flags_with_places([f"--trainer.logger={name}"], RUN, "fit")


def test_what_is_given_stays() -> None:
    given = {"class_path": PATH, "init_args": {"save_dir": "elsewhere"}}
    found = with_places({"trainer": {"logger": given}}, RUN, "fit")["trainer"]["logger"]["init_args"]
    assert found == {**ARGUMENTS, "save_dir": "elsewhere"}


@pytest.mark.parametrize("flags", [["--trainer.logger=TensorBoardLogger"], ["--trainer.logger", "TensorBoardLogger"]])
def test_a_logger_named_by_a_flag_is_followed_by_its_arguments(flags: list[str]) -> None:
    found = flags_with_places(["--data.batches=1", *flags, "--trainer.logger.save_dir=x"], RUN, "test")
    assert PATH in found[-5].rpartition("=")[2]
    assert found[-4:-1] == [
        "--trainer.logger.save_dir=runs/tiny",
        "--trainer.logger.name=tensorboard",
        "--trainer.logger.version=test",
    ]
    assert found[-1] == "--trainer.logger.save_dir=x"
    others = ["--trainer.logger=own.Logger", "--trainer.logger=false", "--run", "TensorBoardLogger"]
    assert flags_with_places(others, RUN, "fit") == others
