"""The pages of the reference, made from the code, have every command, key and column."""

import pydoc
import re
from collections.abc import Iterator
from dataclasses import dataclass

import columns
import pytest
import yaml
from columns import files
from comparison_sample import make_comparison
from doc_pages import ROOT
from generated import PAGES, PUBLIC, classes, commands, configuration
from signatures import fields_of, options_of, table

from medmtl.cli import COMMANDS
from medmtl.data.task import Task
from medmtl.experiment.analysis.compare import arm_rows, pair_rows
from medmtl.ood import detectors
from medmtl.ood.shifts import SHIFTS
from medmtl.predict.records import COLUMNS
from medmtl.training.request import SECTIONS

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
NAMED = ("data.tasks", "data.ood", "far", "near")  # mappings of described values whose keys a user chooses
FREE = ("overrides", "finetune_overrides", "cluster", "classes", "missing")  # and of any values


@dataclass
class Sample:
    """A class as a reader meets it.

    Args:
        size: of a voxel in mm.
        share: share of patients.
        names: what is listed.
    """

    size: tuple[float, float, float]
    share: float = 0.2
    names: list[str] | None = None


def keys(content: dict, place: str = "") -> Iterator[str]:
    """The keys of a configuration, those of classes left out, and names that a user chooses being NAME."""
    for key, value in content.items():
        name = f"{place}.{key}".lstrip(".")
        if place in NAMED:
            name = f"{place}.NAME"
        if isinstance(value, dict) and value and "class_path" not in value and key not in FREE:
            yield from keys(value, name)
        else:
            yield name


@pytest.fixture(scope="module")
def configured() -> str:
    return configuration()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_every_key_of_a_shipped_configuration_is_described(config: str, configured: str) -> None:
    for key in keys(yaml.safe_load(config.read_text())):
        assert f"| `{key}` |" in configured, key


def test_every_key_of_a_run_is_described_with_its_meaning(configured: str) -> None:
    for section, owner in SECTIONS.items():
        for option in options_of(owner):
            (row,) = [line for line in configured.splitlines() if line.startswith(f"| `{section}.{option.name}` |")]
            assert option.meaning
            assert row.rstrip("| ").endswith(option.meaning.replace("|", "\\|").replace("<", "&lt;").rstrip("| "))
    spacing = next(line for line in configured.splitlines() if "`data.tasks.NAME.spacing`" in line)
    assert "| required | mm |" in spacing


def test_type_default_and_unit_are_those_of_the_signature() -> None:
    assert [option[:4] for option in options_of(Sample)] == [
        ("size", "tuple[float, float, float]", "required", "mm"),
        ("share", "float", "0.2", "0 to 1"),
        ("names", "list[str] | None", "None", ""),
    ]
    assert "| `names` | `list[str] | None` | `None` |  | what is listed. |" in table(options_of(Sample))
    assert {option.name for option in options_of(Task)} == {"root", *Task.__match_args__} - {"head"}


def test_every_command_has_its_help() -> None:
    page = commands()
    for command in COMMANDS:
        assert f"## medmtl {command}\n" in page
    for command in ("fit", "predict", "data check", "data import", "experiment", "dashboard"):
        assert re.search(rf"^ *usage: medmtl (\[options\] )?{command}\b", page, flags=re.MULTILINE), command
    for option in ("--config", "--on-ood", "--fix-affine", "--dry-run", "--model.outputs", "--trainer.max_epochs"):
        assert option in page


def test_every_detector_and_shift_is_described() -> None:
    page = classes()
    for name in ("ByTask", "Spectral", "ML1ACE", "NNUNet", "Platt"):
        assert f"### {name}\n" in page
    assert "### Detector\n" not in page  # it is abstract
    for name in SHIFTS:
        assert f"| `{name}` |" in page


def test_every_column_of_a_table_is_described() -> None:
    page = files()
    for name in (*COLUMNS, *detectors.SCORES, "hd95_mm", "brier"):
        assert f"| `{name}` |" in page, name
    assert all(field.meaning for field in fields_of(columns.PredictedCase))
    comparison = make_comparison()
    assert {key for row in arm_rows(comparison) for key in row} == set(columns.OF_AN_ARM)
    assert {key for row in pair_rows(comparison) for key in row} == set(columns.OF_A_PAIR)


def test_every_package_whose_names_are_listed_says_what_it_exports() -> None:
    page = PAGES["reference/python.md"]()
    for name in PUBLIC:
        assert f"\n::: {name}\n" in page
        found = pydoc.locate(name)
        assert isinstance(found, type) or found.__all__


def test_generated_pages_are_not_written_by_hand_as_well() -> None:
    assert not [page for page in PAGES if (ROOT / "docs" / page).exists()]
