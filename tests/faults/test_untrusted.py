"""A stranger's checkpoint or run folder: what it may and may not decide, and the table of it in the documentation."""

import ast
import inspect
import logging
import pkgutil
import re
import socket
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from stranger_sample import MARKER, MODULE, strangers_run

from medmtl import load
from medmtl.cli import main
from medmtl.data import layouts
from medmtl.errors import MedMTLError, RunError
from medmtl.models.finetune import load_weights
from medmtl.predict import records
from medmtl.results.prediction import PredictedCase
from medmtl.runs.folder import RunFolder
from medmtl.training.request import known_config, parse_request, resumed_config
from medmtl.training.trust import REFUSED, TO_TRAIN, Checker

PAGE = Path(__file__).parents[2] / "docs/explanation/trust.md"
OWN = {"class_path": f"{MODULE}.Part"}
POPEN = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", MARKER]}}
GRAPH = {
    "class_path": "torch.fx.graph_module.reduce_graph_module",
    "init_args": {
        "body": {"_code": "def forward(self, x): return x", "_modules": {}, "training": False},
        "import_block": f"open({MARKER!r}, 'w')",
    },
}
REFUSES, IGNORES = "refused in one line", "not read"


class Kind(NamedTuple):
    """What a stranger's file tries.

    Attributes:
        words: for the table.
        key: of the configuration.
        value: what it is set to.
        use: what `test`, `calibrate`, `ood`, `predict` and `medmtl.load` do with it.
        resume: what `fit --resume` does with it.
    """

    words: str
    key: str
    value: Any
    use: str = REFUSES
    resume: str = REFUSES


KINDS = (
    Kind("network: a class of a module that lies beside the checkpoint", "model.network", OWN),
    Kind("network: a function that runs text as code", "model.network", GRAPH),
    Kind("network: a program to start", "model.network", POPEN),
    Kind(
        "network: a class that loads a model by name",
        "model.network",
        {"class_path": "monai.networks.nets.TorchVisionFCModel", "init_args": {"model_name": "resnet18"}},
    ),
    Kind("network: the name of a configuration file", "model.network", f"{MODULE}.yaml"),
    Kind("network: a class that is no network", "model.network", {"class_path": "medmtl.data.layouts.MSD"}),
    Kind("detector: a class of a module that lies beside the checkpoint", "spectral.detector", OWN),
    Kind("detector: a program to start", "spectral.detector", POPEN),
    Kind(
        "detector within a detector: a class of a module that lies beside the checkpoint",
        "spectral.detector",
        {"class_path": "medmtl.ood.detectors.ByTask", "init_args": {"detector": OWN}},
    ),
    Kind("layout: a class of a module that lies beside the checkpoint", "data.tasks.LiverCT.layout", OWN),
    Kind("layout: a program to start", "data.tasks.LiverCT.layout", POPEN),
    Kind("other checkpoints to test together with this one", "model.ensemble", {"checkpoints": ["../other.ckpt"]}),
    Kind("loss: a class of a module that lies beside the checkpoint", "model.loss", OWN),
    Kind("loss: a function that runs text as code", "model.loss", GRAPH),
    Kind("loss: a function of Python", "model.loss", {"class_path": "os.system"}),
    Kind("loss: a module of Python that acts on import", "model.loss", {"class_path": "this.Loss"}),
    Kind(
        "loss: a class that loads code from a folder or from the network",
        "model.loss",
        {"class_path": "monai.losses.PerceptualLoss", "init_args": {"network_type": "radimagenet_resnet50"}},
    ),
    Kind("optimizer: a program to start", "model.optimizer", POPEN),
    Kind("scheduler: a function of Python", "model.scheduler", {"class_path": "builtins.eval"}),
    Kind("callback of any kind", "trainer.callbacks", [OWN], IGNORES),
    Kind(
        "logger that writes elsewhere",
        "trainer.logger",
        {"class_path": "pytorch_lightning.loggers.CSVLogger", "init_args": {"save_dir": "/elsewhere"}},
        IGNORES,
    ),
    Kind("strategy or launcher", "trainer.strategy", OWN, IGNORES),
    Kind("folder that is written to", "trainer.default_root_dir", {"class_path": f"{MODULE}.Part"}, IGNORES),
    Kind("another configuration to read", "config", f"{MODULE}.yaml", IGNORES, IGNORES),
)


@pytest.fixture(autouse=True)
def untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test here may run the stranger's code, import its module, or open a connection."""

    def connect(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "ood.yaml").write_text("detectors: [Spectral]\nshifts: []\n")
    monkeypatch.syspath_prepend(str(tmp_path))  # as `python -m medmtl` does
    monkeypatch.setattr(socket.socket, "connect", connect)
    yield
    assert not list(tmp_path.rglob(MARKER))
    assert MODULE not in sys.modules


# With a configuration of one detector, which is parsed sooner than that of all.
USING = (
    ("test",),
    ("calibrate",),
    ("ood", "--config", "ood.yaml"),
    ("predict", "--input", "x.nii.gz", "--output", "out"),
)


def ends(command: tuple[str, ...], run: RunFolder, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a command ends."""
    with pytest.raises(SystemExit) as ended:
        main([*command, "--run", str(run.path)])
    assert ended.value.code in (1, 2)
    return capsys.readouterr().err.splitlines()[-1]


def check_refused(kind: Kind, line: str) -> None:
    assert re.search(rf"(best\.ckpt|config\.yaml) sets {kind.key.partition('.')[0]}\.", line), line
    assert line.endswith("which is not used from a file: add --trust (in Python: trust=True) if you trust its origin")


@pytest.mark.parametrize("kind", KINDS, ids=[kind.words for kind in KINDS])
def test_no_command_builds_what_a_strangers_run_names(
    tmp_path: Path, kind: Kind, capsys: pytest.CaptureFixture[str]
) -> None:
    run = strangers_run(tmp_path, (kind.key, kind.value))
    before = set(sys.modules)
    if kind.use == REFUSES:
        for command in USING:
            check_refused(kind, ends(command, run, capsys))
        with pytest.raises(RunError, match="which is not used from a file"):
            load(run.path, device="cpu")
    else:  # what then is done with the rest is the test below
        stored = yaml.safe_dump(known_config(run.best))
        assert not any(word in stored for word in (MODULE, MARKER, "import_block", "class_path: os", "/elsewhere"))
    if kind.resume == REFUSES:
        check_refused(kind, ends(("fit", "--resume"), run, capsys))
    else:
        assert MODULE not in resumed_config(run)
    assert not {"this", "antigravity", "torchvision"} & (set(sys.modules) - before)


def test_what_is_not_read_of_a_strangers_run_is_in_nobodys_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ignored = [(kind.key, kind.value) for kind in KINDS if kind.use == IGNORES]
    # Where a command ends that has built all that it needs.
    run = strangers_run(tmp_path, *ignored, ("data.tasks.LiverCT.root", "nowhere"))
    for command in USING:
        line = ends(command, run, capsys)
        assert "nowhere is not a folder" in line or "x.nii.gz does not exist" in line
    assert load(run.path, device="cpu").tasks


def test_a_strangers_checkpoint_beside_ones_own_is_read_for_its_weights_alone(tmp_path: Path) -> None:
    """As fine-tuning and ensembles do."""
    (tmp_path / "good").mkdir()
    network = load(strangers_run(tmp_path / "good").path, device="cpu").predictor.network
    load_weights(network, strangers_run(tmp_path, ("model.network", OWN), ("model.loss", GRAPH)).best)


def test_a_strangers_run_does_not_connect_to_weights_and_biases(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = strangers_run(tmp_path, ("wandb.mode", "online"))
    for command in ("test", "calibrate"):
        argv = parse_request([command, "--run", str(run.path)]).argv
        assert yaml.safe_load(argv[1].partition("=")[2])["wandb"]["mode"] == "offline"
    assert "add --wandb.mode online" in caplog.text


def test_folders_that_a_checkpoint_names_are_shown_before_they_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, "medmtl")
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "dataset.json").write_text("no JSON")
    run = strangers_run(
        tmp_path, *((f"data.tasks.{task}.root", str(secret)) for task in ("LiverCT", "KidneyT2")), ("data.ood", {})
    )
    for command in USING[:3]:
        caplog.clear()
        with pytest.raises(SystemExit):
            main([*command, "--run", str(run.path)])
        assert "is not readable JSON" in capsys.readouterr().err  # what reading them says
        assert any(f"LiverCT from {secret}" in message for message in caplog.messages), caplog.messages


# Layouts of a checkpoint, and files of a data set, that lead elsewhere.
ELSEWHERE = {
    "list of the layout": ("FileList", {"file": "../cases.csv"}, {}),
    "absolute list of the layout": ("FileList", {"file": "/etc/passwd"}, {}),
    "folder of the layout": ("Bids", {"derivative": "../../other"}, {}),
    "pattern of the layout": ("Folders", {"images": "../{case}"}, {}),
    "dataset.json": ("MSD", {}, {"dataset.json": '{"training": [{"image": "../x.nii.gz", "label": "y.nii.gz"}]}'}),
    "dataset.json of nnU-Net": (
        "NNUNet",
        {},
        {
            "dataset.json": '{"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii",'
            ' "dataset": {"a": {"images": ["/etc/x.nii"], "label": "a.nii"}}}'
        },
    ),
    "name of a case": (
        "NNUNet",
        {},
        {
            "dataset.json": '{"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii",'
            ' "dataset": {"../a": {"images": ["x.nii"], "label": "a.nii"}}}'
        },
    ),
    "list": ("FileList", {}, {"cases.csv": "image,label\n../x.nii.gz,y.nii.gz\n"}),
    "name in a list": ("FileList", {}, {"cases.csv": "name,image,label\n../a,x.nii.gz,x.nii.gz\n", "x.nii.gz": ""}),
}


@pytest.mark.parametrize(("layout", "options", "files"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_no_file_name_of_a_data_set_or_of_its_layout_leads_elsewhere(
    tmp_path: Path, layout: str, options: dict[str, Any], files: dict[str, str]
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "cases.csv").write_text("image\nsecret.nii.gz\n")
    for name, content in files.items():
        (root / name).write_text(content)
    with pytest.raises(MedMTLError, match=r"leaves the folder|within the root|without a folder|below `derivatives`"):
        layouts.read_corpus("Task", root, getattr(layouts, layout)(**options))


def test_a_record_that_leads_elsewhere_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json").write_text("{}")
    for name, expected in (("figures/a.png", True), ("../secret.png", False), ("/etc/passwd", False)):
        record = object.__new__(PredictedCase)
        object.__setattr__(record, "files", {"picture": name})
        monkeypatch.setattr(PredictedCase, "from_dict", lambda *_, record=record: record)
        assert (records.read_record(tmp_path, "a") is not None) == expected


# Words by which a library loads code or weights from a file or from the network.
LOADERS = {"load_url", "load_state_dict_from_url", "from_pretrained", "import_module", "load_module", "urlopen"}


def test_no_accepted_class_loads_from_a_hub_or_a_file_by_an_argument() -> None:
    """Of the classes that are accepted, those that mention a loader have it behind an argument that is switched off."""
    found = {}
    for package in ("monai.networks", "monai.losses", "monai.optimizers"):
        assert package in TO_TRAIN
        home = import_module(package)
        for info in pkgutil.walk_packages(home.__path__, f"{package}."):
            if info.name.startswith(REFUSED):
                continue
            source = inspect.getsource(import_module(info.name))
            for node in ast.walk(ast.parse(source)):
                if not isinstance(node, ast.ClassDef):
                    continue
                names = {str(getattr(each, "attr", getattr(each, "id", ""))) for each in ast.walk(node)}
                if names & LOADERS:
                    found[f"{info.name}.{node.name}"] = names & LOADERS
    for path in found:
        module, _, name = path.rpartition(".")
        owner = getattr(import_module(module), name)
        if not issubclass(owner, torch.nn.Module):
            continue
        switches = [each for each in inspect.signature(owner).parameters if each.startswith("pretrained")]
        assert switches, f"{path} loads by {found[path]}: add its module to REFUSED"
        spec = {"class_path": path, "init_args": dict.fromkeys(switches, True)}
        checked = Checker("x", TO_TRAIN).value(spec, torch.nn.Module, "model.network")
        assert not any(checked["init_args"][switch] for switch in switches)


def table() -> list[str]:
    """The table of the documentation."""
    rows = [
        "| what the file names | `test`, `calibrate`, `ood`, `predict`, `medmtl.load` | `fit --resume` |",
        "|---|---|---|",
    ]
    return [*rows, *(f"| {kind.words} | {kind.use} | {kind.resume} |" for kind in KINDS)]


def test_the_documentation_has_the_table_of_what_was_tried() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = lines.index(table()[0])
    assert lines[start : start + len(KINDS) + 2] == table()
    assert lines[start + len(KINDS) + 2] == ""
