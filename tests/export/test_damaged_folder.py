"""An exported folder of unknown origin ends in one line, whatever its files hold."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from exported_sample import change, export, source
from safetensors.torch import load_file, save_file

import medmtl
from medmtl.errors import ConfigError, RunError
from medmtl.exported import Kind


@pytest.fixture
def made(tmp_path: Path) -> Callable[[Kind], Path]:
    return lambda kind: export(tmp_path / "folder", source(), kind)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        *(("windows", "batch", value) for value in (0, -1)),
        *(("windows", "overlap", value) for value in (1, -0.1, 7)),
        ("windows", "size", [0, 8, 8]),
        *(("verdict", "alpha", value) for value in (0, 1, -3)),
        ("network", "channels", 0),
        ("network", "multiple", 0),
        *(("task", "spacing", value) for value in ([0, 2, 2], [2, -1, 2])),
        *(("task", "channels", value) for value in ([], [-1])),
        ("task", "window", [5, 5]),
    ],
)
def test_numbers_outside_their_domain_are_refused(
    made: Callable[[Kind], Path], part: str, key: str, value: object
) -> None:
    folder = made("safetensors")
    content = json.loads((folder / "medmtl.json").read_text())
    content.pop("digest")
    (content["tasks"]["Organ"] if part == "task" else content[part])[key] = value
    (folder / "medmtl.json").write_text(json.dumps({"digest": "", **content}))
    with pytest.raises(RunError, match=rf"medmtl\.json is no record .*{key} cannot be"):
        medmtl.load(folder, device="cpu")


def test_weights_that_are_none_are_refused(made: Callable[[Kind], Path]) -> None:
    folder = made("bundle")
    weights = torch.load(folder / "models" / "model.pt", weights_only=True)
    for content in ([1, 2], 3, {"weight": 1}, {1: weights["weight"]}, {**weights, "bias": None}, {}):
        torch.save(content, folder / "models" / "model.pt")
        change(folder)
        with pytest.raises(RunError, match=r"model\.pt cannot be used"):
            medmtl.load(folder, device="cpu")


def test_weights_of_another_network_are_refused(made: Callable[[Kind], Path]) -> None:
    folder = made("safetensors")
    weights = load_file(folder / "network.safetensors")
    save_file({name: torch.cat([each, each]) for name, each in weights.items()}, folder / "network.safetensors")
    change(folder)
    with pytest.raises(RunError, match=r"network\.safetensors cannot be used"):
        medmtl.load(folder, device="cpu")


def test_an_encrypted_state_is_no_fault_of_the_device(made: Callable[[Kind], Path]) -> None:
    folder = made("safetensors")
    content = bytearray((folder / "state.npz").read_bytes())
    with zipfile.ZipFile(folder / "state.npz") as archive:
        first = archive.infolist()[0].header_offset
    content[first + 6] |= 1  # as encrypted entries are marked, here and in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (folder / "state.npz").write_bytes(content)
    change(folder)
    with pytest.raises(RunError, match=r"state\.npz holds no arrays that load safely .*encrypted"):
        medmtl.load(folder, device="cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda:77", "cpu:x", ""])
def test_a_device_that_is_not_there_is_no_damage(made: Callable[[Kind], Path], device: str) -> None:
    folder = made("safetensors")
    (folder / "network.safetensors").unlink()  # the device is looked at first
    with pytest.raises(ConfigError, match="use cpu"):
        medmtl.load(folder, device=device)


def test_a_link_in_a_circle_is_a_file_that_is_lacking(made: Callable[[Kind], Path]) -> None:
    folder = made("safetensors")
    (folder / "state.npz").unlink()
    (folder / "state.npz").symlink_to("state.npz")
    with pytest.raises(RunError, match=r"lacks state\.npz"):
        medmtl.load(folder, device="cpu")
