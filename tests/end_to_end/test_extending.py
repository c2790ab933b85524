"""The pages of docs/extending: each example is checked by its own test, and used as the page says."""

import ast
import csv
import importlib
import json
import math
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
import yaml
from matplotlib.figure import Figure
from matplotlib.text import Text

from medmtl.cli import main
from medmtl.runs.checkpoint import read_checkpoint

FOLDER = Path(__file__).parents[2] / "docs" / "extending"
LONGEST = 25  # lines of code that an example may take
BENCHMARK = {"severities": [5], "cases": 1, "alpha": 0.5, "processes": 1}  # as little as says something
STORIES = ("arm", "detector", "layout", "loss", "metric", "shift")


@dataclass(frozen=True)
class Page:
    """An extension story.

    Attributes:
        name: of the user's module.
        code: of the user's file.
        test: the user's test of it.
        config: what is written into a configuration.
        commands: what is called, without `medmtl`.
    """

    name: str
    code: str
    test: str
    config: dict
    commands: list[list[str]]

    @classmethod
    def of(cls, story: str) -> "Page":
        text = (FOLDER / f"{story}.md").read_text()
        blocks = re.findall(r"```(\w*)\n(.*?)```", text, flags=re.DOTALL)
        code, test = [block for kind, block in blocks if kind == "python"]
        (config,) = [yaml.safe_load(block) for kind, block in blocks if kind == "yaml"]
        lines = [line.split() for kind, block in blocks if not kind for line in block.splitlines()]
        assert {words[0] for words in lines} == {"medmtl"}
        assert code.startswith(f"# my_{story}.py\n")
        assert test.startswith(f"# test_my_{story}.py\n")
        return cls(f"my_{story}", code, test, config, [words[1:] for words in lines])


@pytest.fixture
def own_folder(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder; what is imported from it is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield workplace
    forget()


def forget() -> None:
    """Forget the modules of one's own, as a new process would."""
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture
def lesions(phantoms: Path, own_folder: Path) -> Path:
    """Phantom cases of three patients in the layout of the page on layouts, two visits of one of them."""
    source, folder = phantoms / "LiverCT", own_folder / "lesions"
    cases = json.loads((source / "dataset.json").read_text())["training"]
    for case, visit in zip([*cases, cases[0]], ("anna/first", "ben/first", "carl/first", "anna/second"), strict=True):
        (folder / visit).mkdir(parents=True)
        shutil.copy(source / case["image"], folder / visit / "image.nii.gz")
        shutil.copy(source / case["label"], folder / visit / "tumour.nii.gz")
    return folder


def run(page: Page, *commands: str) -> None:
    """Call those of the page's commands that begin so, each as a new process would."""
    for words in page.commands:
        if words[0] in commands:
            forget()
            expanded = [name for word in words for name in (map(str, Path().glob(word)) if "*" in word else [word])]
            main([*expanded, *(["--device", "cpu"] if words[0] == "predict" else [])])


@pytest.fixture
def drawn(blank: bytes, monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The words of every figure that is drawn, without the figure."""
    figures: list[set[str]] = []

    def save(figure: Figure, stream: BytesIO, **_: object) -> None:
        figures.append({text.get_text() for text in figure.findobj(Text)})
        stream.write(blank)

    monkeypatch.setattr(Figure, "savefig", save)
    return figures


@pytest.fixture
def multitask(trained: Path, own_folder: Path) -> Path:
    """A trained run where the pages name one, to be changed."""
    return shutil.copytree(trained, own_folder / "runs" / "multitask")


def rows(path: str) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with Path(path).open(newline="") as stream:
        return list(csv.DictReader(stream))


def lay_scan(phantoms: Path) -> None:
    """One scan to predict, in the folder `scans`."""
    Path("scans").mkdir()
    shutil.copy(next((phantoms / "LiverCT" / "imagesTr").glob("*.nii.gz")), "scans")


def test_every_page_is_tested() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.md") if path.stem != "README") == sorted(STORIES)


@pytest.mark.parametrize("story", STORIES)
def test_an_example_is_one_short_file(story: str) -> None:
    page = Page.of(story)
    tree = ast.parse(page.code)
    described = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            described |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = [line for number, line in enumerate(page.code.splitlines(), 1) if number not in described]
    assert len([line for line in lines if line.strip() and not line.strip().startswith("#")]) <= LONGEST


@pytest.mark.parametrize("story", STORIES)
def test_an_example_passes_its_own_test(story: str, own_folder: Path, lesions: Path) -> None:
    page = Page.of(story)
    sys.path.insert(0, str(own_folder))
    (own_folder / f"{page.name}.py").write_text(page.code)
    found: dict = {}
    exec(compile(page.test, f"test_{page.name}.py", "exec"), found)
    found[f"test_{page.name}"]()


def test_a_loss_of_ones_own_trains_and_is_needed_for_nothing_else(tiny: Path, phantoms: Path, own_folder: Path) -> None:
    page = Page.of("loss")
    Path("my_loss.py").write_text(page.code)
    config = yaml.safe_load(tiny.read_text())
    config["trainer"]["log_every_n_steps"] = 1
    config["data"]["ood"] = {}
    Path("multitask.yaml").write_text(yaml.safe_dump(config))
    run(page, "fit")
    assert yaml.safe_load(Path("runs/topk/config.yaml").read_text())["model"]["loss"] == {
        "class_path": "my_loss.TopKCrossEntropy",
        "init_args": {"share": 0.2},
    }
    assert "train/loss" in Path("runs/topk/metrics.csv").read_text().splitlines()[0]
    Path("my_loss.py").unlink()
    lay_scan(phantoms)
    run(page, "test", "predict")
    assert Path("runs/topk/report/report.json").is_file()
    assert len([*Path("masks").glob("*_mask.nii.gz")]) == 1


def test_a_loss_of_ones_own_is_a_part_of_a_weighted_sum(tiny: Path, phantoms: Path, own_folder: Path) -> None:
    page = Page.of("loss")
    Path("my_loss.py").write_text(page.code)
    config = yaml.safe_load(tiny.read_text())
    config["model"] |= page.config
    Path("sum.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", "sum.yaml", "--run", "runs/sum"])
    losses = yaml.safe_load(Path("runs/sum/config.yaml").read_text())["model"]["loss"]["init_args"]["losses"]
    assert "my_loss.TopKCrossEntropy" in [each["class_path"] for each in losses]
    assert Path("runs/sum/checkpoints/best.ckpt").is_file()


@pytest.mark.usefixtures("laid_out")
def test_a_layout_of_ones_own_is_checked_trained_and_tested(
    tiny: Path, phantoms: Path, lesions: Path, own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Page.of("layout")
    Path("my_layout.py").write_text(page.code)
    config = yaml.safe_load(tiny.read_text())
    page.config["Lesion"]["spacing"] = [8, 8, 8]
    config["data"] |= {"tasks": page.config, "ood": {}}
    config["spectral"]["layers"] = []
    Path("lesions.yaml").write_text(yaml.safe_dump(config))
    lay_scan(phantoms)
    run(page, "data", "fit", "test", "predict")
    split = json.loads(Path("runs/lesions/splits.json").read_text())["Lesion"]
    parts = [part for part, cases in split.items() for case in cases if case.startswith("anna")]
    assert len(parts) == 2
    assert len(set(parts)) == 1
    report = json.loads(Path("runs/lesions/report/report.json").read_text())
    assert report["tasks"]["Lesion"]["dice"]["mean"] >= 0
    assert "Lesion" in Path("runs/lesions/report/report.html").read_text()
    assert len([*Path("masks").glob("*_mask.nii.gz")]) == 1
    forget()
    with pytest.raises(SystemExit) as stopped:
        main(["test", "--run", "runs/lesions"])
    assert stopped.value.code == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("medmtl: error:")]
    assert "my_layout.Visits" in line
    assert "--trust" in line


def test_a_metric_of_ones_own_is_computed_and_shown(tiny: Path, phantoms: Path, own_folder: Path) -> None:
    page = Page.of("metric")
    Path("my_metric.py").write_text(page.code)
    config = yaml.safe_load(tiny.read_text())
    config["data"]["ood"] = {}
    Path("overconfidence.yaml").write_text(yaml.safe_dump(config | page.config))
    lay_scan(phantoms)
    run(page, "fit", "test")
    Path("my_metric.py").unlink()
    run(page, "predict")
    report = json.loads(Path("runs/overconfidence/report/report.json").read_text())
    (tested,) = [row for row in rows("runs/overconfidence/metrics.csv") if row["test/mean/oe_band"]]
    for region in ("band", "whole"):
        pooled = report["tasks"]["LiverCT"]["calibration"][region]
        assert 0 < pooled["oe"] < pooled["ece"]  # overconfident bins alone, times their confidence
        assert pooled["oe"] == pytest.approx(float(tested[f"test/LiverCT/oe_{region}"]))
        (case,) = [row for row in rows("runs/overconfidence/report/cases.csv") if row["dataset"] == "LiverCT"]
        assert float(case[f"oe_{region}"]) == pytest.approx(pooled["oe"])  # of the only test case
    html = Path("runs/overconfidence/report/report.html").read_text()
    assert re.search(r"<th[^>]*>OE\b", html)
    assert f"{report['mean']['calibration']['band']['oe']:.4f}" in html
    assert len([*Path("masks").glob("*_mask.nii.gz")]) == 1


def test_a_detector_of_ones_own_is_compared_and_gives_verdicts(
    multitask: Path, phantoms: Path, drawn: list[set[str]], own_folder: Path
) -> None:
    page = Page.of("detector")
    Path("my_detector.py").write_text(page.code)
    Path("detectors.yaml").write_text(yaml.safe_dump(page.config | BENCHMARK))
    lay_scan(phantoms)
    run(page, "ood")
    summary = json.loads(Path("runs/multitask/ood/ood.json").read_text())
    assert summary["scores"]["channel_z"]["label"] == "channel z-score"
    assert summary["verdict"]["detector"] == "channel_z"
    scores = [float(row["score"]) for row in rows("runs/multitask/ood/ood.csv") if row["detector"] == "channel_z"]
    assert len(scores) == sum(summary["images"].values())
    assert all(math.isfinite(score) and score > 0 for score in scores)
    assert "channel z-score" in Path("runs/multitask/ood/ood.html").read_text()
    assert any("channel z-score" in word for figure in drawn for word in figure)
    run(page, "calibrate", "test", "predict")
    fitted = read_checkpoint(multitask / "checkpoints/best.ckpt")["callbacks"]["SpectralCallback"]
    report = json.loads(Path("runs/multitask/report/report.json").read_text())
    (case,) = [json.loads(path.read_text()) for path in Path("masks").glob("*.json")]
    assert fitted["detector"] == "channel_z"
    assert report["ood"]["verdict"]["score"] == "channel_z"
    assert case["ood_score"] == case["scores"]["channel_z"] > 0
    assert case["p_value"] is not None
    assert "channel z-score" in Path("runs/multitask/report/report.html").read_text()


def test_a_shift_of_ones_own_is_scored_and_shown(multitask: Path, drawn: list[set[str]], own_folder: Path) -> None:
    page = Page.of("shift")
    Path("my_shift.py").write_text(page.code)
    Path("stripes.yaml").write_text(yaml.safe_dump(page.config | BENCHMARK | {"severities": [1, 5]}))
    run(page, "ood")
    summary = json.loads(Path("runs/multitask/ood/ood.json").read_text())
    assert summary["shifts"]["stripes"]["strengths"] == [0.05, 0.1, 0.2, 0.3, 0.4]
    found = [row for row in rows("runs/multitask/ood/ood.csv") if row["condition"] == "stripes"]
    assert {(row["task"], row["severity"]) for row in found} == {
        (task, severity) for task in ("LiverCT", "KidneyT2") for severity in ("1", "5")
    }
    assert all(math.isfinite(float(row["score"])) for row in found)
    heat_map, dark, curves = drawn[:3]
    assert "stripes   1" in heat_map
    assert "stripes   1" in dark
    assert "stripes" in curves
    assert "From weak to strong" in Path("runs/multitask/ood/ood.html").read_text()


def test_an_arm_of_ones_own_is_trained_and_compared_again_without_its_module(
    tiny: Path, phantoms: Path, own_folder: Path, forked: None
) -> None:
    page, metric = Page.of("arm"), Page.of("metric")
    Path("my_arm.py").write_text(page.code)
    Path("my_metric.py").write_text(metric.code)  # is compared as well
    Path("multitask.yaml").write_text(yaml.safe_dump(yaml.safe_load(tiny.read_text()) | metric.config))
    small = {"arms": page.config["arms"][1:], "steps": 12, "validations": 2, "at_once": 2}
    overrides = {"data.ood": {}, "spectral.layers": []}
    Path("heads.yaml").write_text(yaml.safe_dump(page.config | small | {"overrides": overrides}))
    lay_scan(phantoms)
    run(page, "experiment")
    compared = Path("runs/heads/compare")
    first = json.loads((compared / "compare.json").read_text())
    assert {arm: about["label"] for arm, about in first["arms"].items()} == {
        "multitask": "multi-task training",
        "multitask_head": "multi-task, head fine-tuned",
    }
    assert first["arms"]["multitask_head"]["look"] != first["arms"]["multitask"]["look"]
    pairs = {(pair["a"], pair["b"]) for pair in first["tasks"]["LiverCT"]["pairs"]}
    assert pairs == {("multitask_head", "multitask")}
    for page_or_table in ("compare.html", "compare.tex"):
        for label in ("multi-task, head fine-tuned", "OE in the band"):
            assert label in (compared / page_or_table).read_text()
    listed = {(row["arm"], row["metric"]) for row in rows("runs/heads/compare/compare.csv")}
    assert {arm for arm, _ in listed} == {arm for arm, found in listed if found == "oe_band"} == set(first["arms"])
    Path("my_arm.py").unlink()
    Path("my_metric.py").unlink()
    run(page, "compare", "predict")
    assert json.loads((compared / "compare.json").read_text()) == first
    assert len([*Path("masks").glob("*_mask.nii.gz")]) == 1
