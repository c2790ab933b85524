"""What a checkpoint names is built only if it is a network, detector or layout of known packages; nothing else runs."""

import inspect
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pytorch_lightning import Trainer
from pytorch_lightning.cli import LightningArgumentParser
from stranger_sample import strangers_run, with_key

from medmtl import load
from medmtl.callbacks.spectral import SpectralCallback
from medmtl.cli import main
from medmtl.data import layouts
from medmtl.data.datamodule import MultiTaskData
from medmtl.data.layouts import Layout
from medmtl.errors import RunError
from medmtl.models.segmenter import Segmenter
from medmtl.ood import detectors
from medmtl.ood.detectors import Detector
from medmtl.runs.folder import RunFolder
from medmtl.training.config_files import find_config
from medmtl.training.request import checked, known_config, parse_request, resumed_config
from medmtl.training.trust import TO_TRAIN, Checker, use_current_folder

UNET = {"spatial_dims": 3, "in_channels": 1, "out_channels": 1, "channels": [4, 8], "strides": [2]}
BODY = {"_code": "def forward(self, x): return x", "_modules": {}, "training": False}
GRAPH = {
    "class_path": "torch.fx.graph_module.reduce_graph_module",
    "init_args": {"body": BODY, "import_block": "open('marker', 'w')"},
}
POPEN = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "marker"]}}
# A module that lies in the current folder and leaves a trace when it is imported.
OWN = {"class_path": "strangers.Part"}

# Key of the configuration and what it is set to: what is not read to test and predict, and what is refused.
NOT_READ: dict[str, Any] = {
    "trainer.callbacks": [[OWN]],
    "trainer.strategy": [OWN],
    "config": ["strangers.yaml"],
}
CHECKED: dict[str, Any] = {
    "model.loss": [GRAPH, POPEN, OWN, "os.getcwd", {"class_path": "monai.losses.PerceptualLoss"}],
    "model.optimizer": [POPEN, OWN],
    "model.scheduler": [{"class_path": "builtins.eval"}, OWN, "strangers.part"],
    "model.finetune": [{"checkpoint": "x", "class_path": "strangers.Part"}],
    "data.splits": [OWN],
    "model.network": [
        GRAPH,
        POPEN,
        OWN,
        "strangers.Part",
        "strangers.yaml",
        "strangers",
        {"class_path": "monai.networks.nets.torch.fx.GraphModule"},
        {"class_path": "torch.nn.modules.module.warnings.catch_warnings"},
        {"class_path": "monai.networks.nets.resnet50"},
        {"class_path": "medmtl.training.trust.Checker"},
        {"class_path": "torch.nn.Sequential", "dict_kwargs": {"args": OWN}},
        {"class_path": "torch.nn.Sequential", "init_args": "strangers.yaml"},
        {"class_path": "monai.networks.nets.TorchVisionFCModel", "init_args": {"model_name": "resnet18"}},
        {"class_path": "monai.networks.nets.UNet", "init_args": {**UNET, "act": OWN}},
        {"class_path": "monai.networks.nets.UNet", "init_args": {**UNET, "act": ["PRELU", {"init": OWN}]}},
        {"class_path": "monai.networks.nets.UNet", "init_args": {**UNET, "act": "strangers.Part"}},
        {"class_path": "monai.networks.nets.UNet", "init_args": {**UNET, "act": "{class_path: strangers.Part}"}},
        {"class_path": "monai.networks.nets.UNet", "init_args": {**UNET, "act": "strangers"}},  # a file
        {"class_path": "monai.networks.nets.UNet", "init_args": {**UNET, "act.class_path": "strangers"}},
        {"class_path": "monai.networks.nets.UNet", "init_args": {**UNET, "act": "a" * 5000}},
        {"class_path": "torch.nn.TransformerEncoderLayer", "init_args": {"activation": "strangers.part"}},
    ],
    "model": ["strangers.yaml"],
    "model.ensemble": [OWN, "strangers.yaml"],
    "spectral.detector": [
        POPEN,
        OWN,
        "strangers.yaml",
        "Part",
        {"class_path": "medmtl.ood.detectors.ByTask", "init_args": {"detector": OWN}},
        {"class_path": "medmtl.ood.detectors.Fusion", "init_args": {"members": [OWN]}},
        {"class_path": "medmtl.ood.detectors.Fusion", "init_args": {"members": "strangers.yaml"}},
        {"class_path": "medmtl.ood.detectors.Spectral", "init_args": {"layers": [OWN]}},
        {"class_path": "medmtl.ood.detectors.Spectral", "init_args": {"unknown": 1}},
        {"class_path": "torch.nn.Identity"},
    ],
    "data.tasks": ["strangers.yaml", [OWN]],
    "data.tasks.LiverCT": ["strangers.yaml", OWN],
    "data.tasks.LiverCT.layout": [POPEN, OWN, "strangers.yaml", {"class_path": "torch.nn.Identity"}],
    "data.tasks.LiverCT.organ": [OWN],
    "data.tasks.More": [{"layout.class_path": "strangers.Part"}],
    "data.ood.OtherPhantom.layout": [OWN],
    "calibration.regions": [OWN],
    "wandb.tags": [OWN],
    "seed_everything": [OWN],
}


def cases(groups: Mapping[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(key, value, id=f"{key}-{number}")
        for key, values in groups.items()
        for number, value in enumerate(values)
    ]


Change = Callable[[str, Any], Path]


@pytest.fixture
def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Change:
    """Set a key of a run's configuration, in its checkpoints and in its file: `changed(key, value)` is the run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # as `python -m medmtl` does
    return lambda key, value: strangers_run(tmp_path, (key, value)).path


@pytest.fixture(autouse=True)
def untouched(tmp_path: Path) -> Any:
    """No test here may leave the trace of code that ran."""
    yield
    assert not (tmp_path / "marker").exists()
    assert "strangers" not in sys.modules


@pytest.mark.parametrize(("key", "value"), cases(CHECKED))
def test_what_is_not_accepted_is_refused_in_one_line_that_names_it(changed: Change, key: str, value: Any) -> None:
    run = changed(key, value)
    before = set(sys.modules)
    for command in ("test", "calibrate"):
        with pytest.raises(RunError, match=r"best\.ckpt (sets|holds no configuration)") as refused:
            parse_request([command, "--run", str(run)])
        assert "\n" not in str(refused.value)
    if key.partition(".")[0] in ("calibration", "wandb"):  # of no use to predict
        assert load(run, device="cpu").tasks
    else:
        with pytest.raises(RunError):
            load(run, device="cpu")
    with pytest.raises(RunError):
        parse_request(["fit", "--run", str(run), "--resume"])
    added = {name.partition(".")[0] for name in set(sys.modules) - before}
    assert added <= {"monai", "torch", "medmtl", "encodings"}  # the last: of Python, for UTF-8


@pytest.mark.parametrize(("key", "value"), cases(NOT_READ))
def test_what_is_not_read_is_left_out(changed: Change, key: str, value: Any) -> None:
    run = changed(key, value)
    for command in ("test", "calibrate"):
        argv = parse_request([command, "--run", str(run)]).argv
        assert not any("strangers" in argument or "import_block" in argument for argument in argv)
    model = load(run, device="cpu")
    assert set(model.tasks) == {"LiverCT", "KidneyT2"}
    if key == "trainer.callbacks":
        with pytest.raises(RunError, match=r"config\.yaml sets trainer"):
            parse_request(["fit", "--run", str(run), "--resume"])


def test_the_front_door_refuses_as_well(changed: Change, capsys: pytest.CaptureFixture[str]) -> None:
    run = changed("model.network", POPEN)
    image = ["--input", "x.nii.gz", "--output", "out"]
    for command in (["test"], ["calibrate"], ["ood"], ["predict", *image], ["fit", "--resume"]):
        with pytest.raises(SystemExit) as ended:
            main([*command, "--run", str(run)])
        assert ended.value.code == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert "model.network" in said
        assert "subprocess.Popen" in said
        assert "--trust" in said


@pytest.mark.parametrize(
    "command", [["test"], ["calibrate"], ["fit", "--resume", "--trainer.max_steps=99"]], ids=" ".join
)
def test_hyperparameters_of_a_checkpoint_are_not_built(
    changed: Change, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = changed("data.tasks.LiverCT.root", "nowhere")  # where the command ends, once the classes are built
    for path in (run / "checkpoints").glob("*.ckpt"):
        checkpoint = torch.load(path, weights_only=True)
        torch.save({**checkpoint, "hyper_parameters": {"network": OWN, "loss": OWN}}, path)
    with pytest.raises(SystemExit):
        main([*command, "--run", str(run)])
    assert "LiverCT: the data root nowhere is not a folder" in capsys.readouterr().err


def test_with_trust_a_class_of_one_s_own_is_built(
    tmp_path: Path, changed: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ownnet.py").write_text("from monai.networks.nets import UNet\n\nclass Net(UNet):\n    pass\n")
    network = {"class_path": "ownnet.Net", "init_args": {**UNET, "norm": "instance", "dropout": 0.05}}
    run = changed("model.network", network)
    with pytest.raises(RunError, match=r"ownnet\.Net"):
        load(run, device="cpu")
    model = load(run, device="cpu", trust=True)
    assert type(model.predictor.network).__name__ == "Net"
    assert known_config(run / "checkpoints" / "best.ckpt", trust=True)["model"]["network"] == network
    assert yaml.safe_load(resumed_config(RunFolder(run), trust=True))["model"]["network"] == network
    parse_request(["test", "--run", str(run), "--trust"])
    sys.modules.pop("ownnet")


def test_weights_and_biases_stay_offline_unless_the_command_says_so(
    changed: Change, caplog: pytest.LogCaptureFixture
) -> None:
    run = changed("wandb.mode", "online")
    first = {
        flags: yaml.safe_load(parse_request(["test", "--run", str(run), *flags]).argv[1].partition("=")[2])
        for flags in ((), ("--trust",))
    }
    assert [config["wandb"]["mode"] for config in first.values()] == ["offline", "online"]
    assert "add --wandb.mode online" in caplog.text


def test_pretrained_weights_are_not_fetched_for_a_checkpoint_has_its_own() -> None:
    spec = {"class_path": "monai.networks.nets.FlexibleUNet", "init_args": {"backbone": "resnet18", "pretrained": True}}
    checked = Checker("x").section("model", {"network": spec}, Segmenter)
    assert checked["network"]["init_args"] == {"backbone": "resnet18", "pretrained": False}


@pytest.mark.parametrize(
    "network",
    [
        {
            "class_path": "monai.networks.nets.UNet",
            "init_args": {**UNET, "act": ["PRELU", {"init": 0.2}], "norm": None},
        },
        {"class_path": "monai.networks.nets.DynUNet", "init_args": {"norm_name": ["GROUP", {"num_groups": 8}]}},
        {"class_path": "monai.networks.nets.SwinUNETR", "init_args": {"downsample": "mergingv2", "spatial_dims": 3}},
        {"class_path": "torch.nn.Conv3d", "init_args": {"in_channels": 1, "out_channels": 1, "kernel_size": 1}},
        {"class_path": "torch.nn.TransformerEncoder", "init_args": {"encoder_layer": {"class_path": "torch.nn.ReLU"}}},
        "torch.nn.Identity",
    ],
)
def test_networks_of_monai_and_torch_are_accepted_as_they_are(network: Any) -> None:
    checked = Checker("x").section("model", {"network": network}, Segmenter)["network"]
    assert checked == (network if isinstance(network, dict) else {"class_path": network})


def test_a_training_resumes_with_parts_of_torch_monai_and_medmtl() -> None:
    model = {
        "network": {"class_path": "monai.networks.nets.UNet", "init_args": UNET},
        "loss": {
            "class_path": "medmtl.losses.WeightedSum",
            "init_args": {"losses": [{"class_path": "monai.losses.DiceLoss", "init_args": {"sigmoid": True}}]},
        },
        "optimizer": {"class_path": "monai.optimizers.Novograd", "init_args": {"lr": 0.1}},
        "scheduler": {"class_path": "pytorch_lightning.cli.ReduceLROnPlateau", "init_args": {"monitor": "loss"}},
        "finetune": {"checkpoint": "runs/a/checkpoints/best.ckpt", "layers": "head"},
    }
    assert Checker("x", TO_TRAIN).section("model", model, Segmenter) == model
    trainer = {"accelerator": "cpu", "precision": "16-mixed", "strategy": "ddp", "max_time": "00:00:10:00"}
    assert Checker("x", TO_TRAIN).section("trainer", trainer, Trainer) == trainer


def test_a_loss_that_is_not_installed_is_no_obstacle_to_predicting_with_trust(changed: Change) -> None:
    run = changed("model.loss", {"class_path": "not_installed.Loss", "init_args": {"weight": 2}})
    assert load(run, device="cpu", trust=True).tasks
    with pytest.raises(RunError, match=r"sets model\.loss to 'not_installed\.Loss'"):
        load(run, device="cpu")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, which Python does not find modules in by itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(tmp_path))])
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    return tmp_path


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["--run=runs/x"], False),
        (["--a.b=other.Loss"], False),
        (["a: ownloss.Loss"], True),
        (['--layout={"class_path":"ownloss.Loss"}'], True),
        (None, True),
    ],
)
def test_modules_of_the_current_folder_are_found_where_the_user_names_them(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, given: list[str] | None, found: bool
) -> None:
    (workplace / "ownloss.py").write_text("import ownhelper")
    (workplace / "ownhelper.py").touch()
    (workplace / "yaml.py").write_text("open('marker', 'w')")
    use_current_folder(given)
    for name in ("ownloss", "ownhelper", "yaml"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert (find_spec("ownloss") is not None) == found
    if found:
        import_module("ownloss")  # with what it imports
    import_module("yaml")  # a file of the folder never takes the place of an installed module
    for name in ("ownloss", "ownhelper"):
        sys.modules.pop(name, None)


def test_a_module_that_nobody_names_does_not_stand_in_for_a_library_that_is_not_installed(workplace: Path) -> None:
    (workplace / "ood.py").touch()
    (workplace / "strangers.py").write_text("open('marker', 'w')")
    use_current_folder(["report: runs/ood.html", "--trainer.devices=1"])
    with pytest.raises(ImportError):
        import_module("strangers")


def test_python_may_be_started_not_to_use_the_current_folder(workplace: Path) -> None:
    (workplace / "strangers.py").touch()
    program = "from medmtl.training.trust import use_current_folder; use_current_folder(); import strangers"
    ended = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert "No module named 'strangers'" in ended.stderr


def test_names_of_layers_and_arguments_are_words() -> None:
    for name in ('x"), print("y', "a.b", "a b", 1):
        inner = {"class_path": "torch.nn.ModuleDict", "init_args": {"modules": {name: {"class_path": "torch.nn.ReLU"}}}}
        for network in (inner, {"class_path": "torch.nn.ReLU", "init_args": {name: True}}):
            with pytest.raises(RunError, match=r"x sets model\.network"):
                Checker("x").section("model", {"network": network}, Segmenter)
    traced = {"class_path": "monai.networks.nets.NetAdapter", "init_args": {"node_name": "x"}}
    with pytest.raises(RunError, match="NetAdapter"):
        Checker("x").section("model", {"network": traced}, Segmenter)


def test_the_benchmark_does_not_read_a_configuration_that_nobody_named(
    changed: Change, capsys: pytest.CaptureFixture[str]
) -> None:
    run = changed("data.tasks.LiverCT.root", "nowhere")
    Path("ood-benchmark.yaml").write_text("detectors: [{class_path: strangers.Part}]")
    with pytest.raises(SystemExit):
        main(["ood", "--run", str(run)])
    assert "LiverCT: the data root nowhere is not a folder" in capsys.readouterr().err


# Keys of a saved experiment, and keys of its base.
SAVED: dict[str, Any] = {
    "arms": [
        ["dedicated", "strangers.Part"],
        [OWN],
        [{"class_path": "medmtl.training.trust.Checker"}],
        "strangers.yaml",
    ],
    "overrides": [
        {"model.network": OWN},
        {"model.network": OWN, "model": {}},
        {"model": {"network": OWN}},
        {"model.loss": GRAPH},
        {"model.network.init_args": {"act": OWN}},
        {"more": OWN},
        {"trainer.callbacks": [OWN]},
        "strangers.yaml",
    ],
    "finetune_overrides": [{"model.optimizer": POPEN}, {"model.loss": OWN}],
    "cluster": [{"slurm_setup": ["touch marker"]}, "strangers.yaml"],
    "config": ["strangers.yaml"],
    "steps": [OWN],
    "launcher": [OWN],
}
BASE_KEYS = ("model.network", "model.loss", "model.optimizer", "data.tasks.LiverCT.layout", "spectral.detector")
OF_BASE: dict[str, Any] = {key: CHECKED[key] for key in BASE_KEYS} | {
    "trainer.callbacks": NOT_READ["trainer.callbacks"]
}
EXPERIMENT = {"base": "base.yaml", "arms": ["multitask"], "steps": 4, "validations": 2}


def write_saved(base: Mapping[str, Any], **keys: Any) -> None:
    Path("study").mkdir()
    Path("study/experiment.yaml").write_text(yaml.safe_dump({**EXPERIMENT, **keys}))
    Path("base.yaml").write_text(yaml.safe_dump(base))


@pytest.mark.parametrize(("key", "value"), [*cases(SAVED), *cases(OF_BASE)])
def test_a_saved_experiment_names_nothing_that_is_not_accepted(
    changed: Change, capsys: pytest.CaptureFixture[str], key: str, value: Any
) -> None:
    run = changed("seed_everything", 0)
    text = (run / "config.yaml").read_text()
    base = yaml.safe_load(with_key(text, key, value) if key in OF_BASE else text)
    write_saved(
        {name: base[name] for name in ("data", "model", "spectral", "trainer")},
        **({key: value} if key in SAVED else {}),
    )
    with pytest.raises(SystemExit):
        main(["experiment", "--run", "study", "--dry-run"])
    said = capsys.readouterr().err.splitlines()[-1]
    assert "study/experiment.yaml" in said
    assert "--trust" in said
    assert not Path("study/configs").exists()


def test_a_saved_experiment_of_arms_and_classes_of_medmtl_goes_on(changed: Change) -> None:
    base = yaml.safe_load((changed("seed_everything", 0) / "config.yaml").read_text())
    base = {name: base[name] for name in ("data", "model", "calibration", "spectral", "scaling")}
    base["model"]["finetune"] = None
    arm = {"class_path": "medmtl.experiment.plan.arms.Transfer", "init_args": {"key": "heads", "layers": "head"}}
    write_saved(
        base, arms=["multitask", arm], overrides={"data.foreign": {}, "model.optimizer.init_args.lr": 0.1}, cluster={}
    )
    main(["experiment", "--run", "study", "--dry-run"])
    assert len(list(Path("study/configs").iterdir())) == 5


@pytest.mark.parametrize("value", ["strangers.yaml", [1], 5])
@pytest.mark.parametrize("section", ["spectral", "scaling", "wandb"])
def test_a_section_that_is_no_mapping_is_refused_in_one_line(changed: Change, section: str, value: Any) -> None:
    with pytest.raises(RunError, match=rf"best\.ckpt sets {section} to"):
        parse_request(["test", "--run", str(changed(section, value))])


def _first_weight(checkpoint: dict[str, Any]) -> None:
    weights = checkpoint["state_dict"]
    weights[next(iter(weights))] = "x"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda checkpoint: checkpoint.update(callbacks="x"),
        lambda checkpoint: checkpoint.update(state_dict=[1]),
        lambda checkpoint: checkpoint["callbacks"].update(SpectralCallback={"fitted": 5}),
        lambda checkpoint: checkpoint["callbacks"].update(ScalingCallback={"single": 5}),
        lambda checkpoint: checkpoint.update(config="!!python/object/apply:builtins.open [marker, w]"),
        _first_weight,
    ],
)
def test_a_damaged_checkpoint_is_refused_in_one_line(changed: Change, spoil: Callable[[dict[str, Any]], None]) -> None:
    best = RunFolder(changed("seed_everything", 0)).best
    checkpoint = torch.load(best, weights_only=True)
    spoil(checkpoint)
    torch.save(checkpoint, best)
    with pytest.raises(RunError) as refused:
        load(best, device="cpu")
    assert "\n" not in str(refused.value)


def builtin(base: type, package: Any) -> list[Any]:
    """Classes of a package that are built without arguments, or with those that they need."""
    needed = {
        "Fusion": {"members": ["Spectral", "KNN"]},
        "OutputScore": {"output": "entropy"},
        "Folders": {"images": "a/{case}", "labels": "b/{case}"},
        "FileList": {"file": "cases.csv"},
    }
    found = [each for _, each in sorted(vars(package).items()) if inspect.isclass(each) and issubclass(each, base)]
    return [
        pytest.param({"class_path": each.__name__, "init_args": needed.get(each.__name__, {})}, id=each.__name__)
        for each in found
        if not inspect.isabstract(each)
    ]


def _written(section: str, owner: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """A section as `medmtl fit` writes it into a checkpoint, with all defaults."""
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(owner, section)
    written = yaml.safe_load(parser.dump(parser.parse_object({section: dict(values)}), skip_none=False))
    return dict(written[section])


@pytest.mark.parametrize("detector", builtin(Detector, detectors))
def test_every_built_in_detector_is_accepted(detector: dict[str, Any]) -> None:
    written = _written("spectral", SpectralCallback, {"layers": ["model.1"], "detector": detector})
    assert Checker("x").section("spectral", written, SpectralCallback) == written


@pytest.mark.parametrize("layout", builtin(Layout, layouts))
def test_every_built_in_layout_is_accepted(layout: dict[str, Any]) -> None:
    task = {"root": "x", "modality": "CT", "organ": [1], "spacing": [1, 1, 1], "layout": layout}
    written = _written("data", MultiTaskData, {"tasks": {"A": task}, "patch_size": [8, 8, 8]})
    assert Checker("x").section("data", written, MultiTaskData) == written


CONFIGS = sorted(path for path in find_config("multitask.yaml").parent.glob("multitask*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_is_accepted(path: Path) -> None:
    config = {key: value for key, value in yaml.safe_load(path.read_text()).items() if key != "run"}
    assert checked(config, Checker("x", TO_TRAIN)) == config


def test_a_training_reads_no_checkpoint_with_code_that_lies_in_its_folder(changed: Change) -> None:
    Path("own.yaml").write_text("run: x")
    assert "--weights_only=true" in parse_request(["fit", "--config", "own.yaml", "--run", "empty"]).argv
