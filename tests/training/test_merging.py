"""Several configurations: a task that one of them names stays, whatever the next one sets."""

import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from pytorch_lightning.cli import LightningArgumentParser

from medmtl.data.datamodule import MultiTaskData
from medmtl.errors import ConfigError
from medmtl.training.merging import merged_by_name
from medmtl.training.request import parse_request

TASK = {"root": "x", "modality": "MR", "organ": [1], "spacing": [1.0, 1.0, 1.0]}


def _parsed(tmp_path: Path, *configs: dict[str, Any]) -> dict[str, Any]:
    """The data as the command line parses several configurations."""
    files = [tmp_path / f"{number}.yaml" for number in range(len(configs))]
    for file, config in zip(files, configs, strict=True):
        file.write_text(yaml.safe_dump(config, sort_keys=False))
    named = [each for file in files for each in ("--config", str(file))]
    request = parse_request(["fit", *named, "--run", str(tmp_path / "run")])
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(MultiTaskData, "data")
    parser.add_argument("--config", action="config")
    given = [argument for argument in request.argv if argument.startswith("--config=")]
    return yaml.safe_load(parser.dump(parser.parse_args(given), skip_none=False))["data"]


def test_a_key_of_one_task_leaves_the_other_tasks(tmp_path: Path) -> None:
    first = {"data": {"tasks": {"Ball": TASK, "Other": TASK}, "patch_size": [8, 8, 8]}}
    tasks = _parsed(tmp_path, first, {"data": {"tasks": {"Ball": {"spacing": [2.0, 2.0, 2.0]}}}})["tasks"]
    assert list(tasks) == ["Ball", "Other"]
    assert tasks["Ball"]["spacing"] == [2, 2, 2]
    assert tasks["Other"]["spacing"] == [1, 1, 1]
    assert tasks["Ball"]["organ"] == [1]


def test_null_removes_a_task_and_nothing_else(tmp_path: Path) -> None:
    first = {"data": {"tasks": {"Ball": TASK, "Other": TASK}, "patch_size": [8, 8, 8]}}
    data = _parsed(tmp_path, first, {"data": {"tasks": {"Ball": None}}}, {"data": {"batch_size": 2}})
    assert list(data["tasks"]) == ["Other"]
    assert data["batch_size"] == 2
    with pytest.raises(ConfigError, match=r"data\.tasks\.Bal is null and removes nothing"):
        _parsed(tmp_path, first, {"data": {"tasks": {"Bal": None}}})


@pytest.mark.parametrize("seed", range(20))
def test_every_key_has_the_last_value_that_was_given(seed: int) -> None:
    draw = random.Random(seed)
    expected: dict[str, dict[str, dict[str, int]]] = {"tasks": {}, "ood": {}}
    configs: list[dict[str, Any]] = []
    for _ in range(draw.randrange(1, 6)):
        data: dict[str, Any] = {}
        for kind in draw.sample(["tasks", "ood"], draw.randrange(3)):
            data[kind] = {}
            for name in draw.sample("ABC", draw.randrange(4)):
                if name in expected[kind] and draw.random() < 0.3:
                    data[kind][name] = None
                    del expected[kind][name]
                else:
                    keys = {key: draw.randrange(9) for key in draw.sample("uvw", draw.randrange(1, 4))}
                    data[kind][name] = keys
                    for key, value in keys.items():
                        expected[kind].setdefault(name, {})[key] = value
        configs.append(draw.choice([{"data": data}, {"data": data, "model": {}}]) if data else {"trainer": {}})
    replaced: dict[str, Any] = {"tasks": {}, "ood": {}}
    for config in merged_by_name(configs):
        replaced |= config.get("data", {})  # as a parser does with a mapping
    assert replaced == expected


@pytest.mark.parametrize("data", [None, [], 7, "tasks", {"tasks": None}, {"tasks": [1]}, {"ood": "x"}])
def test_what_is_no_mapping_is_left_to_the_parser(data: object) -> None:
    assert merged_by_name([{"data": data}]) == [{"data": data}]
