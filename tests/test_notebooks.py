"""The notebooks are stored without outputs and run from the first cell to the last.

A kernel is a fork of this process, and so are workers that it starts: each would take five seconds to import what the
tests have imported already. The first notebook draws its report; the others show their own plots and blank files.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest
from forked_process import FORKING, ForkedProcess
from ipykernel.kernelapp import IPKernelApp
from jupyter_client.provisioning import local_provisioner
from nbclient import NotebookClient

import medmtl.training.command  # noqa: F401  # for the kernels
from medmtl.experiment.run import launchers
from medmtl.training.config_files import find_config

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
# What the cell tagged "parameters" is replaced with, and how many pictures the notebook shows.
BRIEFLY = {
    "01-quickstart": ("EPOCHS = 1\nBATCHES = 2", 5),
    "02-experiment": ('STEPS = 2\nARMS = ["dedicated", "multitask"]\nTASKS = 2', 4),
    "03-calibration": ("EPOCHS = 1\nBATCHES = 2", 3),
    "04-ood-benchmark": ("EPOCHS = 1\nBATCHES = 2\nSEVERITIES = [1, 5]\nCASES = 1", 3),
    "05-predict-new-scans": ("EPOCHS = 1\nBATCHES = 2", 1),
    "06-several-classes": ("EPOCHS = 1\nBATCHES = 2", 1),
}


def start_kernel(command: list[str], env: Mapping[str, str], cwd: str, **_: object) -> ForkedProcess:
    """Start a kernel as `jupyter_client.launcher.launch_kernel` does, in a fork."""
    process = ForkedProcess(_serve, command[command.index("-f") + 1], env, cwd)
    assert process.pid is not None
    os.setpgid(process.pid, process.pid)  # a kernel is stopped with all its processes
    return process


def _serve(connection: str, environment: Mapping[str, Any], folder: str) -> None:
    os.environ.update(environment)
    os.chdir(folder)
    asyncio.set_event_loop(asyncio.new_event_loop())  # that of the client is a copy here
    IPKernelApp.launch_instance(["-f", connection, "--matplotlib=inline"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(
    path: Path,
    coarse: Callable[[Path], Path],
    phantoms: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setattr(local_provisioner, "launch_kernel", start_kernel)
    monkeypatch.setattr(launchers, "subprocess", FORKING)
    if path != NOTEBOOKS[0]:
        request.getfixturevalue("undrawn")
    coarse(find_config("multitask.yaml"))  # found before the shipped one, which test_configs.py trains
    notebook = nbformat.read(path, as_version=4)
    parameters, shown = BRIEFLY[path.stem]
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = parameters
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    pictures = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == shown
