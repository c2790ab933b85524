"""A configuration of an earlier version is read with its new names, and not written back."""

from pathlib import Path

import pytest
import yaml

from medmtl.training.request import parse_request


def test_a_configuration_with_old_names_is_passed_on_with_new_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(yaml.safe_dump({"data": {"foreign": {"Other": {"root": "x"}}}, "run": "a"}))
    new.write_text(yaml.safe_dump({"data": {"batch_size": 2}}))
    before = old.read_text()
    request = parse_request(["fit", "--config", str(old), "--config", str(new), "--run", str(tmp_path / "run")])
    first, second = (each.partition("=")[2] for each in request.argv if each.startswith("--config="))
    assert yaml.safe_load(first) == {"data": {"ood": {"Other": {"root": "x"}}}, "run": "a"}
    assert yaml.safe_load(second) == {"data": {"batch_size": 2}}
    assert old.read_text() == before
    assert [record.message for record in caplog.records] == [
        f"{old} uses names of an earlier version: data.foreign is now data.ood"
    ]
