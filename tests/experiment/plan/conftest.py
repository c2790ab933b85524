"""Configurations that many checks of a contract resolve alike are resolved once."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest

from medmtl.experiment.plan import fingerprint


@pytest.fixture(scope="session")
def resolved() -> dict[str, dict[str, Any]]:
    """What was resolved before, by the configuration as text."""
    return {}


@pytest.fixture
def resolved_once(resolved: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `check_arm` resolve a configuration only where no test has done so: that is nearly all of its time."""
    resolve = fingerprint.resolve

    def remember(config: Mapping[str, Any]) -> dict[str, Any]:
        text = repr(config)
        if text not in resolved:
            resolved[text] = resolve(config)
        return deepcopy(resolved[text])

    monkeypatch.setattr(fingerprint, "resolve", remember)
