"""The pages of docs/extending: each example is checked by its own test, and used as the page says."""

import ast
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
    """An empty current folder, in which modules are found."""
    monkeypatch.syspath_prepend(workplace)
    yield workplace
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]


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
            main([*words, *(["--device", "cpu"] if words[0] == "predict" else [])])


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
    (own_folder / f"{page.name}.py").write_text(page.code)
    found: dict = {}
    exec(compile(page.test, f"test_{page.name}.py", "exec"), found)
    found[f"test_{page.name}"]()


def test_a_loss_of_ones_own_trains(tiny: Path, trained: Path, phantoms: Path, own_folder: Path) -> None:
    page = Page.of("loss")
    (own_folder / f"{page.name}.py").write_text(page.code)
    config = yaml.safe_load(tiny.read_text())
    config["trainer"]["log_every_n_steps"] = 1
    (own_folder / "multitask.yaml").write_text(yaml.safe_dump(config))
    (own_folder / "scans").mkdir()
    shutil.copy(next((phantoms / "LiverCT" / "imagesTr").glob("*.nii.gz")), own_folder / "scans")
    run(page, "fit", "test", "predict")
    assert yaml.safe_load((own_folder / "runs/topk/config.yaml").read_text())["model"]["loss"] == {
        "class_path": "my_loss.TopKCrossEntropy",
        "init_args": {"share": 0.2},
    }
    assert "train/loss" in (own_folder / "runs/topk/metrics.csv").read_text().splitlines()[0]
    assert len([*(own_folder / "masks").glob("*_mask.nii.gz")]) == 1
    # The block of the page trains, too.
    config["model"] |= page.config
    (own_folder / "weighted.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", "weighted.yaml", "--trainer.max_steps=2", "--data.batches=2"])


def test_a_layout_of_ones_own_trains(tiny: Path, phantoms: Path, lesions: Path, own_folder: Path) -> None:
    page = Page.of("layout")
    (own_folder / f"{page.name}.py").write_text(page.code)
    config = yaml.safe_load(tiny.read_text())
    page.config["Lesion"]["spacing"] = [8, 8, 8]
    config["data"]["tasks"] |= page.config
    (own_folder / "lesions.yaml").write_text(yaml.safe_dump(config))
    run(page, "fit")
    split = json.loads((own_folder / "runs/lesions/splits.json").read_text())["Lesion"]
    parts = [part for part, cases in split.items() for case in cases if case.startswith("anna")]
    assert len(parts) == 2
    assert len(set(parts)) == 1
