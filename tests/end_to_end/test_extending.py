"""The pages of docs/extending: each example is checked by its own test, and used as the page says."""

import ast
import importlib
import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from medmtl.cli import main

FOLDER = Path(__file__).parents[2] / "docs" / "extending"
LONGEST = 25  # lines of code that an example may take
CHECKED = ("layout", "loss", "metric")


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
    """Call those of the page's commands that begin so."""
    for words in page.commands:
        if words[0] in commands:
            forget()
            main([*words, *(["--device", "cpu"] if words[0] == "predict" else [])])


def lay_scan(phantoms: Path) -> None:
    """One scan to predict, in the folder `scans`."""
    Path("scans").mkdir()
    shutil.copy(next((phantoms / "LiverCT" / "imagesTr").glob("*.nii.gz")), "scans")


@pytest.mark.parametrize("story", sorted(path.stem for path in FOLDER.glob("*.md") if path.stem != "README"))
def test_an_example_is_one_short_file(story: str) -> None:
    page = Page.of(story)
    tree = ast.parse(page.code)
    described = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            described |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = [line for number, line in enumerate(page.code.splitlines(), 1) if number not in described]
    assert len([line for line in lines if line.strip() and not line.strip().startswith("#")]) <= LONGEST


@pytest.mark.parametrize("story", CHECKED)
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
    Path("multitask.yaml").write_text(yaml.safe_dump(config))
    config["model"] |= page.config
    Path("weighted.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", "weighted.yaml", "--trainer.max_steps=2", "--data.batches=2"])
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


def test_a_layout_of_ones_own_is_checked_trained_and_tested(
    tiny: Path, phantoms: Path, lesions: Path, own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Page.of("layout")
    Path("my_layout.py").write_text(page.code)
    config = yaml.safe_load(tiny.read_text())
    page.config["Lesion"]["spacing"] = [8, 8, 8]
    config["data"]["tasks"] |= page.config
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
