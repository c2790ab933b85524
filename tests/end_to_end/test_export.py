"""An exported run predicts as the run itself does: masks, probabilities, verdicts, reasons and warnings."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
import torch
import yaml
from exported_sample import change

import medmtl
from medmtl.cli import main
from medmtl.errors import ConfigError, RunError
from medmtl.predict.model import Model

KINDS = ("onnx", "program", "safetensors")
TOLERANCE = 1e-4  # of probabilities, logits and features


@pytest.fixture(scope="module")
def exported(trained: Path, made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A folder of folders, one a kind."""

    def export(folder: Path) -> None:
        for kind in KINDS:
            main(["export", "--run", str(trained), "--to", kind, "--output", str(folder / kind)])

    return made_once("exported", export)


@pytest.fixture(scope="module")
def model(trained: Path) -> Model:
    return medmtl.load(trained, device="cpu")


@pytest.fixture
def scans(phantoms: Path) -> list[Path]:
    """An image of each task, and one of none."""
    return [
        sorted((phantoms / name / part).glob("*.nii.gz"))[0]
        for name, part in (("LiverCT", "imagesTr"), ("KidneyT2", "imagesTr"), ("OtherPhantom", "imagesTs"))
    ]


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    """An ONNX folder that a test may change."""
    return Path(shutil.copytree(exported / "onnx", tmp_path / "copied"))


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_folder_gives_what_its_run_gives(
    exported: Path, model: Model, scans: list[Path], kind: str
) -> None:
    found = medmtl.load(exported / kind, device="cpu", trust=kind == "program")
    verdicts = set()
    for scan in scans:
        expected, got = model.predict(scan), found.predict(scan)
        np.testing.assert_array_equal(got.mask, expected.mask)
        np.testing.assert_allclose(got.probability, expected.probability, atol=TOLERANCE)
        assert got.scores == pytest.approx(expected.scores, rel=1e-3, abs=1e-3)
        for said in ("p_value", "in_distribution", "nearest_task", "mask_reliable", "reasons", "warnings", "classes"):
            assert getattr(got, said) == getattr(expected, said), said
        verdicts.add(got.in_distribution)
    assert None not in verdicts  # all was decided


@pytest.mark.parametrize("kind", ["onnx", "program"])
def test_a_graph_takes_any_number_of_windows_of_other_sizes(exported: Path, model: Model, kind: str) -> None:
    graph = medmtl.load(exported / kind, device="cpu", trust=True).predictor.network
    record = json.loads((exported / kind / "medmtl.json").read_text())["network"]
    step = record["multiple"]
    for shape in ((1, 1, 16, 16, 16), (5, 1, step, 3 * step, 2 * step)):
        windows = torch.randn(shape)
        with torch.inference_mode():
            np.testing.assert_allclose(graph(windows), model.predictor.network(windows), atol=TOLERANCE)


def test_the_record_meets_its_schema_and_says_how_to_prepare_images(exported: Path, trained: Path) -> None:
    record = json.loads((exported / "onnx" / "medmtl.json").read_text())
    schema = json.loads((exported / "onnx" / "medmtl.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(record, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**record, "more": 1}, schema)
    config = yaml.safe_load((trained / "config.yaml").read_text())
    for name, task in config["data"]["tasks"].items():
        assert record["tasks"][name]["spacing"] == task["spacing"]
        assert record["tasks"][name]["modality"] == task["modality"]
    assert record["tasks"]["LiverCT"]["window"] == [-160, 240]
    assert record["windows"]["size"] == config["data"]["patch_size"]
    text = json.dumps(record)
    assert str(trained) not in text
    assert config["data"]["tasks"]["LiverCT"]["root"] not in text  # where data lie is nobody's business


def test_the_graph_of_onnx_holds_all_weights_and_names_its_outputs(exported: Path) -> None:
    graph = onnx.load(exported / "onnx" / "network.onnx")
    onnx.checker.check_model(graph)
    assert [each.name for each in graph.graph.output] == ["logits", "features.model.0", "features.model.1.submodule"]
    assert {each.name for each in (exported / "onnx").iterdir()} >= {"network.onnx", "state.npz", "medmtl.json"}
    assert not list((exported / "onnx").glob("*.data"))


def test_predict_takes_an_exported_folder_and_other_commands_ask_for_the_run(
    exported: Path, scans: list[Path], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(exported / "onnx")
    main(["predict", "--run", folder, "--input", str(scans[0]), "--output", "out"])
    record = json.loads(next(Path("out").glob("*.json")).read_text())
    assert record["model"]["digest"] == json.loads((exported / "onnx" / "medmtl.json").read_text())["digest"]
    for command in ("test", "calibrate", "ood"):
        with pytest.raises(SystemExit):
            main([command, "--run", folder])
        (said,) = capsys.readouterr().err.splitlines()[-1:]
        assert "is an exported folder, which is for `medmtl predict`: name the run" in said


def test_an_export_replaces_nothing_that_it_was_not_told_to(trained: Path, exported: Path, tmp_path: Path) -> None:
    command = ["export", "--run", str(trained), "--to", "safetensors", "--output"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all I have")
    for flags in ([], ["--overwrite"]):
        with pytest.raises(SystemExit):
            main([*command, str(tmp_path / "mine"), *flags])
    assert [each.name for each in tmp_path.iterdir()] == ["mine"]
    shutil.copytree(exported / "onnx", tmp_path / "old")
    with pytest.raises(SystemExit):
        main([*command, str(tmp_path / "old")])
    main([*command, str(tmp_path / "old"), "--overwrite"])
    assert not (tmp_path / "old" / "network.onnx").exists()


def test_alpha_of_an_exported_folder_can_be_chosen(exported: Path, trained: Path, scans: list[Path]) -> None:
    for alpha in (0.3, 0.7):
        one, other = (medmtl.load(each, device="cpu", alpha=alpha) for each in (trained, exported / "safetensors"))
        assert one.predict(scans[2]).in_distribution == other.predict(scans[2]).in_distribution


def test_a_graph_computes_in_32_bit_and_says_what_is_not_installed(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="computes in 32 bit"):
        medmtl.load(exported / "onnx", precision="bf16")
    for package, kind in (("onnxruntime", "onnx"), ("safetensors.torch", "safetensors")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(ConfigError, match=r"is not installed: .* -m pip install .*onnx"):
                medmtl.load(exported / kind)


def test_what_was_changed_since_the_export_is_refused(copied: Path) -> None:
    whole = (copied / "medmtl.json").read_bytes()
    (copied / "medmtl.json").write_bytes(whole.replace(b'"alpha": 0.5', b'"alpha": 0.6'))
    with pytest.raises(RunError, match="is not what was written"):
        medmtl.load(copied)
    (copied / "medmtl.json").write_bytes(whole[:-100])
    with pytest.raises(RunError, match="is no record of an exported folder"):
        medmtl.load(copied)
    (copied / "medmtl.json").write_bytes(whole)
    for name in ("state.npz", "network.onnx"):
        kept = (copied / name).read_bytes()
        damaged = bytearray(kept)
        damaged[len(kept) // 2] ^= 1
        (copied / name).write_bytes(damaged)
        with pytest.raises(RunError, match=f"{name} is not what was written"):
            medmtl.load(copied)
        (copied / name).unlink()
        with pytest.raises(RunError, match=f"lacks {name}"):
            medmtl.load(copied)
        (copied / name).write_bytes(kept)
    medmtl.load(copied)


def test_a_strangers_folder_runs_no_code_and_reads_nothing_elsewhere(exported: Path, copied: Path) -> None:
    record = json.loads((copied / "medmtl.json").read_text())
    for name in ("../secret.onnx", str(copied / "network.onnx")):
        change(copied, network={"file": name})
        with pytest.raises(RunError, match="names a file outside the folder"):
            medmtl.load(copied)
    (copied.parent / "secret.onnx").write_bytes((copied / "network.onnx").read_bytes())
    (copied / "link.onnx").symlink_to(copied.parent / "secret.onnx")
    change(copied, network={"file": "link.onnx"})
    with pytest.raises(RunError, match="names a file outside the folder"):
        medmtl.load(copied)
    for path in ("os.system", "strangers.Part", "torch.hub.load"):
        builds = {"class_path": path, "init_args": {}}
        change(copied, network={**record["network"], "builds": builds})
        with pytest.raises(RunError, match="which is not used from a file"):
            medmtl.load(copied)
    detector = {"class": "system", "options": {}}
    change(copied, network=record["network"], verdict={"detector": detector})
    with pytest.raises(RunError, match="is none of medmtl"):
        medmtl.load(copied)
    with pytest.raises(RunError, match="reading one may run its author's code: add --trust"):
        medmtl.load(exported / "program")


def test_arrays_are_never_unpickled(copied: Path, tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "marker",)

    np.savez(copied / "state.npz", **{"ood/bank/signatures/model.0": np.array([Harm()], dtype=object)})
    change(copied)
    with pytest.raises(RunError, match="holds no arrays that load safely"):
        medmtl.load(copied)
    assert not (tmp_path / "marker").exists()


def test_a_graph_that_names_other_files_is_refused(copied: Path) -> None:
    graph = onnx.load(copied / "network.onnx")
    onnx.save_model(graph, copied / "network.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    change(copied)
    with pytest.raises(RunError, match="names other files, which are not read"):
        medmtl.load(copied)


@pytest.mark.parametrize(
    ("layers", "outputs", "said"),
    [
        (["forward", "model.0"], ["logits", "a", "b"], r"is a graph from \['window'\] to \['logits', 'features"),
        (["forward"], ["logits", "features.model.0"], "holds a network that cannot be used .*forward"),
        ([""], ["logits", "features.model.0"], "holds a network that cannot be used"),
        (["model.0"], ["logits"], r"outputs cannot be \['logits'\]"),
    ],
)
def test_a_graph_without_the_outputs_or_layers_that_are_named_is_refused(
    copied: Path, layers: list[str], outputs: list[str], said: str
) -> None:
    path = copied / "medmtl.json"
    content = json.loads(path.read_text())
    if len(outputs) == 1 + len(layers):
        change(copied, network={"layers": layers, "outputs": outputs})
    else:
        content["network"] |= {"layers": layers, "outputs": outputs}
        path.write_text(json.dumps(content))
    with pytest.raises(RunError, match=said):
        medmtl.load(copied, device="cpu")


def test_a_device_that_is_not_there_is_no_damage_of_a_graph(copied: Path) -> None:
    with pytest.raises(ConfigError, match=r"device 'gpu' .*: use cpu"):
        medmtl.load(copied, device="gpu")
