"""Text is UTF-8, with or without a byte-order mark, in every locale; what is not says so in one line."""

import ast
import codecs
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import medmtl
from medmtl.cli import main
from medmtl.data.layouts import FileList
from medmtl.data.layouts.layout import read_object
from medmtl.data.splits import read_splits
from medmtl.errors import MedMTLError
from medmtl.experiment.plan.base import read_base
from medmtl.experiment.plan.protocol import Protocol
from medmtl.files import read_table, read_text, write_table, write_text
from medmtl.io.inputs import find_inputs
from medmtl.training.config_files import read_yaml

HERE = "files.py"  # the one module that opens text
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "configuration": ("config.yaml", read_yaml),
    "base of an experiment": ("config.yaml", lambda path: read_base(Protocol(base=str(path)))),
    "configuration of data check": ("config.yaml", lambda path: main(["data", "check", "--config", str(path)])),
    "configuration of ood": ("config.yaml", lambda path: main(["ood", "--run", "none", "--config", str(path)])),
    "splits": ("splits.json", read_splits),
    "dataset": ("dataset.json", lambda path: read_object("task T", path, "")),
    "list of cases": ("cases.csv", lambda path: FileList().read("task T", path.parent)),
    "list of images": ("list.csv", find_inputs),
    "list of images as JSON": ("list.json", find_inputs),
}


def _opens_text(node: ast.AST) -> bool:
    """Whether a call opens a file as text: `open` without a mode of bytes, `read_text`, `write_text` of a path, ..."""
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in ("read_text", "write_text"):
        return isinstance(node.func, ast.Attribute)
    if name not in ("open", "fdopen"):
        return False
    constants = [each.value for each in (*node.args, *(key.value for key in node.keywords)) if hasattr(each, "value")]
    return not any(isinstance(each, str) and "b" in each and len(each) <= 3 for each in constants)


@pytest.mark.parametrize(
    ("source", "is_text"),
    [
        ("open(path)", True),
        ("path.open('w', newline='')", True),
        ("path.read_text()", True),
        ("beside.write_text(text)", True),
        ("path.open('rb')", False),
        ("open(path, mode='wb')", False),
        ("write_text(path, text)", False),
        ("path.read_bytes()", False),
    ],
)
def test_what_opens_text_is_recognised(source: str, is_text: bool) -> None:
    assert any(map(_opens_text, ast.walk(ast.parse(source)))) == is_text


def test_no_module_but_one_opens_text() -> None:
    package = Path(medmtl.__file__).parent
    found = []
    for path in package.rglob("*.py"):
        if path != package / HERE:
            tree = ast.parse(path.read_bytes())
            found += [f"{path.relative_to(package)}:{node.lineno}" for node in ast.walk(tree) if _opens_text(node)]
    assert [place for place in found if "/lock.py:" not in place] == []  # what is locked stays empty


@pytest.mark.parametrize("reader", READERS)
def test_what_is_not_utf8_is_refused_in_one_line(
    reader: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, read = READERS[reader]
    path = tmp_path / name
    path.write_bytes("# Größe\n".encode("latin-1"))
    with pytest.raises((MedMTLError, SystemExit)) as error:
        read(path)
    said = capsys.readouterr().err if isinstance(error.value, SystemExit) else str(error.value)
    assert str(path) in said
    assert "UTF-8" in said
    assert len(said.splitlines()) == 1


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    for name, content, read in (
        ("a.yaml", "data: 1\n", read_yaml),
        ("b.json", '{"a": 1}', lambda path: read_object("task T", path, "")),
        ("c.json", json.dumps({"T": {"train": ["ä"], "val": [], "test": []}}), read_splits),
        ("d.csv", "a,b\n1,ß\n", read_table),
    ):
        plain, marked = tmp_path / name, tmp_path / f"marked-{name}"
        plain.write_bytes(content.encode())
        marked.write_bytes(codecs.BOM_UTF8 + content.encode())
        assert read(marked) == read(plain)


def test_names_that_are_not_utf8_can_be_written(tmp_path: Path) -> None:
    name = os.fsdecode(b"gr\xf6\xdfe")  # what `os.listdir` gives for such a file
    write_text(tmp_path / "page.html", name)
    write_table(tmp_path / "table.csv", ["case"], [{"case": name}])
    assert read_text(tmp_path / "page.html") == "gr\\udcf6\\udcdfe"
    assert read_table(tmp_path / "table.csv") == [{"case": "gr\\udcf6\\udcdfe"}]


def test_commands_need_no_locale(write_task: Callable[..., Path], tmp_path: Path) -> None:
    """Names and configurations with umlauts, under an ASCII locale which Python does not replace by itself."""
    label = np.zeros((8, 8, 8), np.uint8)
    label[2:5, 2:5, 2:5] = 1
    volumes = {
        f"bäuche_{number}": (np.arange(512, dtype=np.int16).reshape(8, 8, 8) + number, label) for number in range(3)
    }
    root = write_task(volumes, name="Größe", labels=("background", "Größe"))
    config = tmp_path / "größe.yaml"
    block = f"Größe: {{root: {json.dumps(str(root))}, modality: MR, organ: [Größe], spacing: [1, 1, 1]}}"
    config.write_text(f"# für Bäuche\ndata: {{tasks: {{{block}}}}}\n", encoding="utf-8")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "medmtl", "data", "check", "--config", "größe.yaml", "--jobs", "1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert "Größe" in done.stdout.decode()
    rows = read_table(tmp_path / "data-check/größe/check.csv")
    assert [row["case"] for row in rows] == list(volumes)
