"""The JSON Schema of the configurations is that of the signatures, accepts what is shipped, and refuses mistakes."""

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_pages import ROOT
from jsonschema import Draft7Validator
from schema import schemas, text

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def mistakes(name: str, content: dict) -> list[str]:
    """Where a schema does not accept a configuration."""
    found = Draft7Validator(json.loads((ROOT / "configs" / name).read_text())).iter_errors(content)
    return [".".join(map(str, error.path)) for error in found]


def test_the_schemas_are_those_of_the_signatures() -> None:
    for name, schema in schemas().items():
        Draft7Validator.check_schema(schema)
        assert (ROOT / "configs" / name).read_text() == text(schema), "run `make schema`"


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_a_shipped_configuration_names_the_schema_that_accepts_it(config: Path) -> None:
    content = config.read_text()
    (name,) = re.findall(r"\A# yaml-language-server: \$schema=(\S+)\n", content)
    assert mistakes(name, yaml.safe_load(content)) == []


@pytest.mark.parametrize(
    ("place", "value", "where"),
    [
        (("data", "batchsize"), 2, "data"),
        (("data", "batch_size"), "many", "data.batch_size"),
        (("data", "patch_size"), [48, 48], "data.patch_size"),
        (("data", "tasks", "LiverCT", "organs"), [1], "data.tasks.LiverCT"),
        (("data", "tasks", "New"), {"modality": "CT", "organ": [1]}, "data.tasks.New"),
        (("model", "outputs"), "each", "model.outputs"),
        (("model", "loss"), {"init_args": {}}, "model.loss"),
        (("trainer", "max_epoch"), 1, "trainer"),
        (("sead_everything",), 1, ""),
    ],
)
def test_a_mistake_is_refused_where_it_is(place: tuple[str, ...], value: Any, where: str) -> None:
    content = deepcopy(yaml.safe_load((ROOT / "configs" / "multitask.yaml").read_text()))
    part = content
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    assert where in mistakes("run.schema.json", content)
