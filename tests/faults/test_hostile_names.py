"""Names of tasks, cases, labels and folders are shown and written as they are: no markup, formula, YAML or new line."""

import csv
import json
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from shutil import which
from subprocess import run
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from pytorch_lightning.loggers import MLFlowLogger
from rich.table import Column, Table

import medmtl
from medmtl.cli import main
from medmtl.data.task import Task
from medmtl.data_tools.block import task_block
from medmtl.errors import DataError
from medmtl.files import read_table, write_table
from medmtl.runs.loggers import show_table
from medmtl.terminal import terminal

NAMES = (
    *("[/x]", "[bold]a[/]", ":smile:", "=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''=1"),
    *("a: b", "a #b", "a\n    root: /etc", "a\n---\nb: 1", "{a", "&a", "*a", "!!python/object:os.system", "yes", "1e3"),
    *("null", "a,b", 'a"b', "'", "\x1b[31m", "\u2028", "\x85", "😀", "ü", "%s", "$HOME", "<script>"),
)
FORMULA = tuple("=+-@\t\r")
IMAGE = np.arange(512, dtype=np.int16).reshape(8, 8, 8)


def test_one_place_prints_on_the_terminal() -> None:
    package = Path(medmtl.__file__).parent
    places = {path.name for path in package.rglob("*.py") if re.search(r"\bConsole\(", path.read_text("utf-8"))}
    assert places == {"terminal.py"}


@pytest.mark.parametrize("name", ["[/x]", "[bold]a[/]", ":smile:", "[link=x]"])
def test_the_terminal_shows_a_name_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("task", Column(name), title=name, caption=name)
    table.add_row(name, name)
    terminal(width=200).print(table)
    terminal().print(f"trained: runs/{name}", soft_wrap=True)
    assert capsys.readouterr().out.count(name) == 6


def test_an_error_is_one_line_whatever_a_name_holds() -> None:
    for name in NAMES:
        text = str(DataError(f"case {name} cannot be read", fix=f"correct {name}"))
        assert text.isprintable()
        assert len(text.splitlines()) == 1


def test_no_text_in_a_table_is_a_formula_and_all_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    numbers = [-1.5, -3, 0.25, float("-inf"), 1e-300, "-1.5", "+2", "-1e-3"]
    rows = [{"case": name, "=x": name * 2, "n": -1.5} for name in NAMES] + [{"case": number} for number in numbers]
    write_table(path, ["case", "=x", "n"], rows)
    header, *written = csv.reader(StringIO(path.read_bytes().decode(), newline=""))
    assert [len(row) for row in (header, *written)] == [3] * (len(rows) + 1)
    for row in (header, *written[: len(NAMES)]):
        assert not [cell for cell in row if cell.startswith(FORMULA) and cell != "-1.5"]
    assert [row[0] for row in written[len(NAMES) :]] == list(map(str, numbers))
    back = read_table(path)
    assert [row["case"] for row in back] == [str(row["case"]) for row in rows]
    assert [row["=x"] for row in back[: len(NAMES)]] == [name * 2 for name in NAMES]


def test_no_text_that_a_logger_gets_is_a_formula() -> None:
    texts = {}

    class Kept(MLFlowLogger):
        """Keeps what MLflow would get."""

        run_id = "run"
        experiment = SimpleNamespace(log_text=lambda run, text, name: texts.update({name: text}))

        def __init__(self) -> None:
            pass

    rows = [{"case": name, "dice": -0.5} for name in NAMES]
    show_table(SimpleNamespace(loggers=[Kept()], global_step=0), "test/cases", rows, {})
    _, *written = csv.reader(StringIO(texts["test/cases.csv"], newline=""))
    assert len(written) == len(NAMES)
    assert {row[1] for row in written} == {"-0.5"}
    assert not [row[0] for row in written if row[0].startswith(FORMULA)]


@pytest.mark.skipif(which("node") is None, reason="node, which runs the script of a page, is not installed")
def test_no_text_in_a_table_that_is_saved_from_a_page_is_a_formula() -> None:
    script = (Path(medmtl.__file__).parent / "report" / "page.js").read_text("utf-8")
    (plain,) = re.findall(r"const plain = .*;", script)
    cells = [*NAMES, "-1.5", "+2", "-1e-3", "-0.2 to 0.1", "+0.03 (0.01 to 0.05)"]
    asked = f"{plain} console.log(JSON.stringify({json.dumps(cells)}.map(plain)))"
    found = json.loads(run(["node", "--eval", asked], capture_output=True, check=True).stdout)
    for cell, shown in zip(cells, found, strict=True):
        number = re.fullmatch(r"[+-][\d.]+(e[+-]?\d+)?", cell) is not None
        assert shown == (f"'{cell}" if cell.startswith(FORMULA) and not number else cell)


@pytest.mark.parametrize("name", NAMES)
def test_label_names_of_a_dataset_are_no_yaml(name: str, write_task: Callable[..., Path]) -> None:
    labels = [np.where(IMAGE > 400, value, 0).astype(np.uint8) for value in (1, 2)]
    root = write_task({"a": (IMAGE, labels[0]), "b": (IMAGE, labels[1])}, labels=("background", "organ", name))
    described = json.loads((root / "dataset.json").read_text()) | {"modality": {"0": name, "1": name}}
    (root / "dataset.json").write_text(json.dumps(described))
    ((task, values),) = yaml.safe_load(task_block(root, modality="MR")).items()
    assert task == "TaskMR"
    assert set(values) == {"root", "modality", "classes", "spacing", "channel"}
    assert sorted(values["classes"].values()) == [1, 2]
    Task(**values)
    ((task, values),) = yaml.safe_load(task_block(root, modality="MR", organ=[name], name="T: #")).items()
    assert (task, values["organ"]) == ("T: #", [2])


def test_a_folder_that_looks_like_markup_is_checked(
    write_task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = (IMAGE > 400).astype(np.uint8)
    root = write_task({"[b]": (IMAGE, label), "=1+1": (IMAGE + 1, label)}, name="[x]")
    main(["data", "check", str(root), "--output", str(tmp_path / "[out]"), "--jobs", "1"])
    shown = capsys.readouterr().out
    assert "[x]: 2 labelled" in shown
    assert f"{tmp_path}/[out]/check.html" in shown
    assert [row["case"] for row in read_table(tmp_path / "[out]/check.csv")] == ["[b]", "=1+1"]
    assert "\n[x],'=1+1," in (tmp_path / "[out]/check.csv").read_text()
