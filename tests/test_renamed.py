"""Names of earlier versions are read as those of today, and said once."""

import logging

import pytest

from medmtl.renamed import with_new_names


def test_keys_paths_and_classes_of_earlier_versions_are_read(caplog: pytest.LogCaptureFixture) -> None:
    old = {
        "data": {"foreign": {"A": {"root": "x"}}, "tasks": {"source": {"organ": [1]}}},
        "overrides": {"data.foreign": {}, "data.foreign.A.root": "y"},
        "spectral": {"detector": {"class_path": "medmtl.ood.by_task.ByTask"}},
        "source": "others",
    }
    with caplog.at_level(logging.WARNING, "medmtl"):
        new = with_new_names(old, "old.yaml")
    assert new == {
        "data": {"ood": {"A": {"root": "x"}}, "tasks": {"source": {"organ": [1]}}},
        "overrides": {"data.ood": {}, "data.ood.A.root": "y"},
        "spectral": {"detector": {"class_path": "medmtl.ood.detectors.ByTask"}},
        "pretrain_on": "others",
    }
    (message,) = caplog.messages
    assert message.startswith("old.yaml uses names of an earlier version: data.foreign is now data.ood, ")


def test_names_of_today_pass_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    config = {"data": {"ood": {}}, "pretrain_on": "others", "list": [1, "a"]}
    assert with_new_names(config, "new.yaml") == config
    assert not caplog.messages


def test_keys_that_are_gone_are_left_out_and_the_reason_said(caplog: pytest.LogCaptureFixture) -> None:
    old = {"scaling": {"method": "platt", "region": "band"}, "overrides": {"scaling.region": "whole"}}
    with caplog.at_level(logging.WARNING, "medmtl"):
        assert with_new_names(old, "old.yaml") == {"scaling": {"method": "platt"}, "overrides": {}}
    (message,) = caplog.messages
    assert "scaling.region is gone (a scaling counts the whole volume)" in message
