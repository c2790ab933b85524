"""The comparison of runs whose tasks have several classes, against numpy and scipy."""

import csv
import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_page import Page
from matplotlib.figure import Figure
from rich.console import Console
from scipy.stats import wilcoxon

from medmtl.experiment.analysis.compare import compare, print_comparison, write_compare
from medmtl.experiment.analysis.records import read_records
from medmtl.report.compare.figures import forest
from medmtl.report.compare.reading import classes_of, find_pair

NAMES = ("head", "tail")


def measured(seed: int, shift: float = 0.0, patients: int = 12) -> dict[str, dict[str, float]]:
    """Cases with the columns that a test writes for two classes."""
    rng = np.random.default_rng(seed)
    found = {}
    for index in range(patients):
        dice = np.clip(rng.uniform(0.5, 0.7, 2) + shift * rng.uniform(0.5, 1), 0, 1)
        row = {f"{name}/dice": float(value) for name, value in zip(NAMES, dice, strict=True)}
        row |= {f"{name}/{metric}": rng.uniform(1, 5) for name in NAMES for metric in ("hd95_mm", "asd_mm")}
        found[f"p{index:02}"] = {"dice": float(dice.mean()), **row, "foreground_dice": float(dice.max())}
    return found


def compared(folder: Path) -> dict[str, Any]:
    comparison = compare(read_records(folder))
    assert json.loads(json.dumps(comparison, allow_nan=False)) == comparison
    return comparison


def out_channels(count: int) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        config["model"]["network"]["init_args"]["out_channels"] = count

    return change


def test_arms_are_compared_on_each_class(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    arms = {"dedicated": measured(0), "multitask": measured(0, shift=0.1)}
    for number, (arm, values) in enumerate(arms.items()):
        write_run(arm, {"Hippocampus": values}, config=out_channels(3 + number))
    found = compared(tmp_path)
    assert (found["refused"], found["missing"]) == ([], [])
    assert list(found["classes"]) == ["Hippocampus"]
    assert list(found["classes"]["Hippocampus"]) == list(NAMES)
    p_values = []
    for name, row in found["classes"]["Hippocampus"].items():
        one, other = (np.array([case[f"{name}/dice"] for case in values.values()]) for values in arms.values())
        assert row["arms"]["dedicated"]["dice"]["mean"] == pytest.approx(one.mean())
        (pair,) = (pair for pair in row["pairs"] if pair["metric"] == "dice")
        assert (pair["a"], pair["b"]) == ("multitask", "dedicated")
        assert pair["difference"] == pytest.approx((other - one).mean())
        assert pair["p"] == pytest.approx(wilcoxon(other - one, method="exact").pvalue)
        assert pair["verdict"] == "better"
        p_values.append((pair["p"], pair["p_holm"]))
    # The two classes are one family: twice the smaller, and at least that for the other.
    (low, low_holm), (high, high_holm) = sorted(p_values)
    assert (low_holm, high_holm) == (pytest.approx(2 * low), pytest.approx(max(2 * low, high)))
    assert set(found["tasks"]["Hippocampus"]["arms"]["multitask"]) == set(found["metrics"])


def test_files_page_and_terminal_show_classes(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    write_run("dedicated", {"Hippocampus": measured(0)})
    write_run("multitask", {"Hippocampus": measured(1), "Liver": {"l1": 0.5, "l2": 0.6}})
    comparison, page = write_compare(tmp_path)
    html = Page(page.read_text())
    assert html.open == []
    mean = comparison["classes"]["Hippocampus"]["tail"]["arms"]["multitask"]["dice"]["mean"]
    assert "corrected over all classes of all tasks" in html.words
    assert f"{mean:.3f}" in html.words
    with (tmp_path / "compare" / "compare.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    found = [row for row in rows if (row["task"], row["arm"]) == ("Hippocampus/tail", "multitask")]
    assert [row["metric"] for row in found] == ["dice", "hd95_mm", "asd_mm"]
    assert float(found[0]["mean"]) == mean
    console = Console(file=StringIO(), width=160)
    print_comparison(console, comparison)
    assert "Hippocampus/head" in console.file.getvalue()  # type: ignore[attr-defined]


def test_latex_table_and_figures_show_classes_beneath_their_task(
    tmp_path: Path, write_run: Callable[..., Path], blank: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Figure, "savefig", lambda self, stream, **_: stream.write(blank))
    arms = {"dedicated": measured(0), "multitask": measured(0, shift=0.1)}
    for arm, values in arms.items():
        write_run(arm, {"Hippocampus": values, "Liver": {"l1": 0.5, "l2": 0.6}})
    comparison, _ = write_compare(tmp_path)
    drawn = {path.stem for path in (tmp_path / "compare/figures").glob("classes-*")}
    assert drawn == {f"classes-{kind}-Hippocampus" for kind in ("arm-means", "forest-dice", "forest-hd95_mm")}
    heads, cells = [], {}
    for line in (tmp_path / "compare/compare.tex").read_text().split("\\midrule\n")[1].splitlines():
        head, *rest = (cell.strip().removesuffix(r" \\") for cell in line.split(" & "))
        if head and rest:
            heads.append(head)
        if rest:
            cells[heads[-1], rest[0]] = rest[1:]
    assert heads == ["Hippocampus", r"\quad head", r"\quad tail", "Liver", "mean over tasks"]
    for name in NAMES:
        values = [case[f"{name}/dice"] for case in arms["multitask"].values()]
        dice, _, calibration = cells[rf"\quad {name}", "multi-task training"]
        assert dice.startswith(rf"\textbf{{{np.mean(values):.3f} ")
        assert calibration == "--"
    assert "Indented: the classes" in (tmp_path / "compare/compare.tex").read_text()
    assert comparison["tasks"].keys() == {"Hippocampus", "Liver"}


def test_the_figures_of_classes_have_a_row_a_class_and_say_whose(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    for number, arm in enumerate(("dedicated", "multitask")):
        write_run(arm, {"Hippocampus": measured(number)})
    comparison = compared(tmp_path)
    (task,) = classes_of(comparison).values()
    figure = forest(task, "dice", of="classes of Hippocampus")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == list(NAMES)
    assert figure.get_suptitle() == "Paired differences in Dice, classes of Hippocampus"
    found = [float(point) for marks in axes.collections for point, _ in marks.get_offsets()]
    pairs = [find_pair(row, "multitask", "dedicated", "dice") for row in comparison["classes"]["Hippocampus"].values()]
    assert found == pytest.approx([pair["difference"] for pair in pairs if pair is not None])


def test_where_one_run_has_one_output_for_all_classes_arms_are_compared_by_the_foreground(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    classed = measured(0)
    shared = {case: {"dice": 0.6, "hd95_mm": 3.0} for case in classed}
    write_run("dedicated", {"Hippocampus": shared})
    write_run("multitask", {"Hippocampus": classed, "Liver": {"l1": 0.5}})
    found = compared(tmp_path)
    assert "classes" not in found
    assert any(note.startswith("Hippocampus: not all runs tell the same classes apart") for note in found["notes"])
    row = found["tasks"]["Hippocampus"]
    foreground = np.array([case["foreground_dice"] for case in classed.values()])
    assert row["arms"]["multitask"]["dice"]["mean"] == pytest.approx(foreground.mean())
    assert row["arms"]["dedicated"]["dice"]["mean"] == pytest.approx(0.6)
    assert row["arms"]["multitask"]["hd95_mm"]["mean"] is None
    (pair,) = (pair for pair in row["pairs"] if pair["metric"] == "dice")
    assert pair["difference"] == pytest.approx(foreground.mean() - 0.6)


def test_without_classes_a_comparison_has_none(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    write_run("dedicated", {"Liver": {"l1": 0.5, "l2": 0.6}})
    assert "classes" not in compared(tmp_path)
    _, page = write_compare(tmp_path)
    assert "all classes of all tasks" not in Page(page.read_text()).words
    assert not list((tmp_path / "compare/figures").glob("classes-*"))
    assert "quad" not in (tmp_path / "compare/compare.tex").read_text()
