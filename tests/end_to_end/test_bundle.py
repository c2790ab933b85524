"""A bundle runs in MONAI without medmtl, and gives the masks and verdicts of the run that it was exported from."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata
from monai.data import MetaTensor

import medmtl
from medmtl.cli import main
from medmtl.errors import ConfigError
from medmtl.export.bundle import check_bundled
from medmtl.export.carried import carried_files
from medmtl.predict.prediction import Prediction

# What MONAI's schema of 2024-07-25 requires, in our words: its URL cannot be reached from a test.
REQUIRED = {
    **dict.fromkeys(("schema", "version", "monai_version", "pytorch_version", "numpy_version"), "string"),
    **dict.fromkeys(("task", "description", "authors", "copyright"), "string"),
    "required_packages_version": "object",
    "network_data_format": "object",
}
OPTIONAL = {
    **dict.fromkeys(("data_source", "data_type", "image_classes", "label_classes", "pred_classes"), "string"),
    **dict.fromkeys(("changelog", "eval_metrics", "supported_apps"), "object"),
    "intended_use": "string",
    "references": "array",
}
IMAGE = {"type": "string", "format": "string", "num_channels": "integer", "spatial_shape": "array", "dtype": "string"}
SAID = (
    "in_distribution",
    "p_value",
    "nearest_task",
    "mask_reliable",
    "mask_disagreement",
    "volume_ml",
    "nearest_image",
)


@pytest.fixture(scope="module")
def bundle(trained: Path, made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    return made_once("bundle", lambda folder: main(["export", f"--run={trained}", "--to=bundle", f"--output={folder}"]))


@pytest.fixture
def images(phantoms: Path, tmp_path: Path) -> Path:
    """A folder of an image of a task, and of one of none, in another storage order."""
    folder = tmp_path / "images"
    folder.mkdir()
    known = nibabel.load(sorted((phantoms / "LiverCT" / "imagesTr").glob("*.nii.gz"))[0])
    nibabel.save(known.slicer[::-1], folder / "known.nii.gz")
    other = nibabel.load(sorted((phantoms / "OtherPhantom" / "imagesTs").glob("*.nii.gz"))[0])
    nibabel.save(other, folder / "other.nii")
    return folder


@pytest.fixture
def expected(images: Path, trained: Path) -> dict[str, Prediction]:
    """Image -> what the run says of it."""
    model = medmtl.load(trained, device="cpu")
    return {path.name.partition(".")[0]: model.predict(path) for path in sorted(images.iterdir())}


@pytest.fixture
def without_medmtl(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As where medmtl is not installed: `import medmtl` fails."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "medmtl", None)
        patch.setattr(sys, "path", list(sys.path))
        yield
        for name in [name for name in sys.modules if name.partition(".")[0] == "scripts"]:
            del sys.modules[name]


def run_bundle(bundle: Path, images: Path, masks: Path, **more: object) -> ConfigWorkflow:
    """As `python -m monai.bundle run` does."""
    workflow = ConfigWorkflow(
        str(bundle / "configs" / "inference.json"),
        workflow_type="infer",
        bundle_root=str(bundle),
        dataset_dir=str(images),
        output_dir=str(masks),
        **more,
    )
    workflow.initialize()
    workflow.run()
    assert not workflow.check_properties()  # all that MONAI asks of an inference
    workflow.finalize()
    return workflow


def test_monai_writes_the_masks_and_verdicts_of_the_run(
    expected: dict[str, Prediction], bundle: Path, images: Path, tmp_path: Path, without_medmtl: None
) -> None:
    workflow = run_bundle(bundle, images, tmp_path / "masks")
    assert len({each.in_distribution for each in expected.values()} - {None}) >= 1
    for name, own in expected.items():
        mask = nibabel.load(tmp_path / "masks" / f"{name}_mask.nii.gz")
        np.testing.assert_array_equal(np.asarray(mask.dataobj), own.mask)
        np.testing.assert_allclose(mask.affine, own.affine, atol=1e-6)
        verdict = json.loads((tmp_path / "masks" / f"{name}_verdict.json").read_text())
        for said in SAID:
            assert verdict[said] == getattr(own, said), said
        assert verdict["volume_ml"] == pytest.approx(own.volume_ml)
        assert verdict["reasons"] == list(own.reasons)
        assert verdict["warnings"] == list(own.warnings)
    (last,) = workflow.evaluator.state.output
    assert last["pred"].meta["verdict"] == verdict  # in the metadata of the mask, too


def test_a_bundle_gives_its_mask_to_a_program_that_runs_its_parts(
    expected: dict[str, Prediction], bundle: Path, images: Path, without_medmtl: None
) -> None:
    """As MONAI Label does for 3D Slicer: network, transforms and inferer one by one, without evaluator and batches."""
    sys.path.insert(0, str(bundle))
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser.config.update({"bundle_root": str(bundle)})
    network = parser.get_parsed_content("network_def", instantiate=True)
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    data = {"image": str(images / "known.nii.gz")}
    for transform in parser.get_parsed_content("preprocessing").transforms:
        data = transform(data)
    found = parser.get_parsed_content("inferer")(data["image"][None], network.eval())[0]
    assert isinstance(found, MetaTensor)
    np.testing.assert_array_equal(found[0].numpy(), expected["known"].mask)
    assert json.loads(found.meta["verdict"])["p_value"] == expected["known"].p_value
    labels = json.loads((bundle / "configs" / "metadata.json").read_text())["network_data_format"]["outputs"]["pred"]
    assert labels["channel_def"] == {"0": "background", "1": "organ"}


def test_a_bundle_reads_and_writes_outside_itself_unless_told(bundle: Path) -> None:
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser.config.update({"bundle_root": str(bundle)})
    for key, name in (("dataset_dir", "images"), ("output_dir", "masks")):
        assert parser.get_parsed_content(key) == str(bundle.parent / name)


def test_medmtl_predicts_with_a_bundle(expected: dict[str, Prediction], bundle: Path, images: Path) -> None:
    found, own = medmtl.load(bundle, device="cpu").predict(images / "other.nii"), expected["other"]
    np.testing.assert_array_equal(found.mask, own.mask)
    assert (found.p_value, found.reasons) == (own.p_value, own.reasons)


def test_metadata_meet_what_monai_requires(bundle: Path, tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {
            **{key: {"type": kind} for key, kind in {**REQUIRED, **OPTIONAL}.items()},
            "network_data_format": {
                "type": "object",
                "required": ["inputs", "outputs"],
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": {
                        "type": "object",
                        "properties": {key: {"type": kind} for key, kind in IMAGE.items()},
                        "required": [*IMAGE, "value_range"],
                    },
                },
            },
        },
        "required": list(REQUIRED),
    }
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema))
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(file))
    broken = tmp_path / "metadata.json"
    broken.write_text(json.dumps({"schema": "x"}))
    with pytest.raises(ValueError, match="required property"):
        verify_metadata(meta_file=str(broken), filepath=str(file))


def test_the_card_says_what_the_run_measured(bundle: Path, trained: Path) -> None:
    text = (bundle / "MODEL_CARD.md").read_text()
    _, header, page = text.split("---\n", 2)
    facts = yaml.safe_load(header)
    assert facts["license"] == "other"
    assert facts["pipeline_tag"] == "image-segmentation"
    report = json.loads((trained / "report" / "report.json").read_text())
    results = {each["dataset"]["name"]: each["metrics"][0]["value"] for each in facts["model-index"][0]["results"]}
    for task, own in report["tasks"].items():
        assert results[task] == pytest.approx(own["dice"]["mean"], abs=1e-4)
        assert f"{own['dice']['mean']:.3f}" in page
    alarms = report["ood"]["false_alarms"]
    assert f"{alarms['people_flagged']} of {alarms['people']} patients" in page
    assert "at most 50 % of in-distribution images" in page
    assert "digital phantoms" not in page  # the folders of the tasks are named, see `tests/export/test_card.py`
    for section in ("Use", "Data", "Preparation", "Accuracy", "Calibration", "Detection", "Licence and citation"):
        assert f"## {section}" in page
    assert (bundle / "docs" / "README.md").read_text().startswith("# ")
    assert "No licence of these weights" in (bundle / "LICENSE").read_text()


def test_the_card_takes_no_figures_of_a_test_with_other_thresholds(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    report = json.loads((run / "report" / "report.json").read_text())
    report["ood"]["verdict"]["threshold"] += 0.1  # calibrated again since
    (run / "report" / "report.json").write_text(json.dumps(report))
    (tmp_path / "licence.txt").write_text("For research.\n")
    output, licence = tmp_path / "folder", tmp_path / "licence.txt"
    main(["export", f"--run={run}", "--to=safetensors", f"--output={output}", f"--license={licence}"])
    page = (output / "MODEL_CARD.md").read_text()
    assert "Not measured: the run was not tested" in page
    assert f"{report['tasks']['LiverCT']['dice']['mean']:.3f}" not in page
    assert (output / "LICENSE").read_text() == "For research.\n"


def test_what_a_bundle_carries_needs_monai_torch_numpy_and_scipy_alone() -> None:
    imported = set()
    for text in carried_files().values():
        for line in text.splitlines():
            words = line.split()
            if line.startswith(("import ", "from ")) and len(words) > 1:
                imported.add(words[1].partition(".")[0])
    others = imported - set(sys.stdlib_module_names) - {"scripts"}
    assert others - {"the"} <= {"monai", "torch", "numpy", "scipy", "nibabel"}


def test_a_network_of_ones_own_module_is_no_bundle() -> None:
    check_bundled({"class_path": "monai.networks.nets.UNet", "init_args": {}})
    for path in ("mine.Network", "medmtl.models.segmenter.Segmenter"):
        with pytest.raises(ConfigError, match="no class of MONAI or torch"):
            check_bundled({"class_path": "torch.nn.Sequential", "init_args": {"args": [{"class_path": path}]}})
