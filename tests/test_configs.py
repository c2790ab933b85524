"""Every shipped configuration is found by its bare name, parses, and trains and tests briefly."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from empty_figures import leave_figures_empty

from medmtl.cli import main
from medmtl.ood_benchmark.options import Options
from medmtl.training.config_files import find_config

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
EXPERIMENTS = [config for config in CONFIGS if config.stem.startswith("experiment")]
BENCHMARKS = [config for config in CONFIGS if config.stem.startswith("ood-benchmark")]
REAL = ("-open", "-classes")  # ends of the names of those that read the open corpora
DOWNLOADED = [config for config in CONFIGS if config.stem.endswith("-msd")]  # trained in tests/doctor, on stand-ins

# Two steps on small patches (see `coarse`): that every value is accepted and every room works with every other.
BRIEFLY = [
    "--trainer.max_epochs=1",
    "--trainer.enable_progress_bar=false",
    "--data.batches=2",
    "--data.batch_size=1",
    "--wandb.mode=disabled",
]


@pytest.fixture
def few_real_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `$MEDMTL_DATA`, where it is set, name a copy of the real corpora with the first three cases of each.

    One to train, one to validate and one to test; the three sarcoma tasks still share their patients.
    """
    for described in Path(os.environ.get("MEDMTL_DATA") or tmp_path).glob("*/dataset.json"):
        content = json.loads(described.read_text())
        content |= {part: content.get(part, [])[:3] for part in ("training", "test")}
        files = [case.values() if isinstance(case, dict) else [case] for case in content["training"] + content["test"]]
        for name in (name for case in files for name in case):
            copy = tmp_path / "few" / described.parent.name / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(described.parent / name, copy)
        (tmp_path / "few" / described.parent.name / "dataset.json").write_text(json.dumps(content))
    if (tmp_path / "few").is_dir():
        monkeypatch.setenv("MEDMTL_DATA", str(tmp_path / "few"))


@pytest.mark.parametrize("name", [config.name for config in CONFIGS])
def test_a_bare_name_is_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config(name).read_text() == (CONFIGS[0].parent / name).read_text()
    Path(name).write_text("{}")
    assert find_config(name) == Path(name)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(config, id=config.stem, marks=[pytest.mark.real_data] if config.stem.endswith(REAL) else [])
        for config in CONFIGS
        if config not in (*EXPERIMENTS, *BENCHMARKS, *DOWNLOADED)
    ],
)
@pytest.mark.usefixtures("few_real_cases", "undrawn")
def test_it_trains_and_tests_briefly(
    config: Path, coarse: Callable[[Path], Path], phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if config.stem.endswith(REAL):  # those of the other configuration are of five tasks and layers, too
        leave_figures_empty(monkeypatch)
    path = coarse(config)
    main(["fit", "--config", str(path), *BRIEFLY])
    main(["test", "--config", str(path), "--wandb.mode=disabled", "--trainer.enable_progress_bar=false"])
    report = json.loads(Path("runs", config.stem, "report", "report.json").read_text())
    assert list(report["tasks"]) == list(yaml.safe_load(config.read_text())["data"]["tasks"])
    assert 0 <= report["ood"]["scores"]["spectral"]["auroc"] <= 1


@pytest.mark.parametrize("config", BENCHMARKS, ids=lambda config: config.stem)
def test_a_benchmark_names_every_option(config: Path) -> None:
    assert set(yaml.safe_load(config.read_text())) == {option.name for option in fields(Options)}


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        # five dedicated, five pre-trained and fine-tuned, one for all
        ("experiment-quick", 16),
        # that, two more modes of transfer, a union and five fine-tuned from it; by sizes and folds
        pytest.param("experiment", (16 + 10 + 6) * 4 * 5, marks=pytest.mark.real_data),
    ],
)
def test_an_experiment_is_planned_in_full_for_a_seed(
    name: str, runs: int, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["experiment", "--config", f"{name}.yaml", "--dry_run", "--seeds=[0]"])
    assert len(list(Path("runs", name, "configs").iterdir())) == runs


@pytest.mark.real_data
def test_the_quick_experiment_runs_on_the_real_corpora_by_one_flag(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["experiment", "--config", "experiment-quick.yaml", "--base", "multitask-open.yaml", "--dry_run"])
    config = yaml.safe_load(Path("runs/experiment-quick/configs/multitask-seed0.yaml").read_text())
    assert next(iter(config["data"]["tasks"])) == "HippocampusMR"
