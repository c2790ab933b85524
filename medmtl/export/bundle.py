"""The files of a MONAI Bundle: configurations, documents and scripts, as the Model Zoo wants them."""

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medmtl.errors import ConfigError
from medmtl.export.carried import CARRIED, carried_files
from medmtl.export.facts import RunFacts
from medmtl.export.license import own_license
from medmtl.export.options import Options
from medmtl.export.record import Record
from medmtl.files import write_text
from medmtl.training.trust import TO_USE

META_SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
NEEDED = ("nibabel", "scipy", "pytorch-ignite")  # beside MONAI, torch and numpy
MASK = "mask"  # after the name of an image, in that of its mask
CONFIGS = "configs"
SCRIPTS = f'''"""What this bundle runs: see `{CARRIED.removeprefix("scripts.")}/export/bundle_transforms.py`.

The modules in `carried` are those of medmtl, under the licence beside this file; medmtl need not be installed.
"""

from {CARRIED}.export.bundle_transforms import SegmentWithVerdict, Verdictd

__all__ = ["SegmentWithVerdict", "Verdictd"]
'''


def check_bundled(network: dict[str, Any]) -> None:
    """Check that MONAI can build a network.

    Args:
        network: its class and arguments.

    Raises:
        ConfigError: its class is of the user's own, or of medmtl.
    """
    for path in _classes(network):
        if not path.startswith(tuple(f"{package}." for package in TO_USE if package != "medmtl")):
            raise ConfigError(f"{path} is no class of MONAI or torch, which a bundle is built of", fix="use --to onnx")


def write_bundle(folder: Path, record: Record, facts: RunFacts, options: Options, page: str) -> None:
    """Write all but weights, state and record.

    Args:
        folder: of the bundle.
        record: of the folder.
        facts: of the run.
        options: of the command.
        page: the card.
    """
    files = {
        f"{CONFIGS}/metadata.json": json.dumps(metadata(record, facts, options), indent=4) + "\n",
        f"{CONFIGS}/inference.json": json.dumps(inference(record), indent=4) + "\n",
        "docs/README.md": page.partition("---\n\n")[2],
        "docs/data_license.txt": "".join(f"{name}: {own.licence}\n" for name, own in facts.data.items()),
        "scripts/__init__.py": SCRIPTS,
        "scripts/LICENSE": own_license(),
        **{f"{CARRIED.replace('.', '/')}/{name}": text for name, text in carried_files().items()},
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)


def metadata(record: Record, facts: RunFacts, options: Options) -> dict[str, Any]:
    """The content of `configs/metadata.json`."""
    names = ", ".join(record.tasks)
    modalities = "/".join(dict.fromkeys(task.modality for task in record.tasks.values()))
    tested = facts.report.get("tasks", {})
    tensor = {"type": "image", "dtype": "float32", "value_range": []}
    size = [f"{record.network.multiple}*n" if record.network.multiple else side for side in record.windows.size]
    return {
        "schema": META_SCHEMA,
        "version": "1.0.0",
        "changelog": {"1.0.0": f"exported from run {record.name} by medmtl {record.versions['medmtl']}"},
        "monai_version": _version("monai"),
        "pytorch_version": _version("torch").partition("+")[0],
        "numpy_version": _version("numpy"),
        "required_packages_version": {name: _version(name) for name in NEEDED},
        "name": record.name,
        "task": f"segmentation of {names} in {modalities}",
        "description": "One 3-D network for several tasks, which are recognised from the image, with a verdict on "
        "whether the image is like those of the training, and on whether its mask can be relied on.",
        "authors": options.authors or "not stated",
        "copyright": "see LICENSE",
        "data_source": "; ".join(f"{name}: {own.reference}" for name, own in facts.data.items()),
        "data_type": "nibabel",
        "image_classes": f"{modalities}, as stored: the bundle prepares images itself",
        "label_classes": "; ".join(f"{name}: {own.organ}" for name, own in facts.data.items()),
        "pred_classes": "; ".join(f"{value} {meaning}" for value, meaning in _values(record).items()),
        "eval_metrics": {
            f"test_dice_{name}": round(own["dice"]["mean"], 4)
            for name, own in tested.items()
            if own.get("dice", {}).get("mean") is not None
        },
        "intended_use": "research; no medical device, see docs/README.md",
        "references": [own.reference for own in facts.data.values()],
        "network_data_format": {
            "inputs": {
                "image": {
                    **tensor,
                    "format": "magnitude",
                    "modality": modalities,
                    "num_channels": record.network.channels,
                    "spatial_shape": size,
                    "is_patch_data": True,
                    "channel_def": {str(number): "image" for number in range(record.network.channels)},
                }
            },
            "outputs": {
                "pred": {
                    **tensor,
                    "format": "segmentation",
                    "num_channels": 1,
                    "spatial_shape": size,
                    "is_patch_data": True,
                    "channel_def": _values(record),
                }
            },
        },
    }


def inference(record: Record) -> dict[str, Any]:
    """The content of `configs/inference.json`."""
    assert record.network.builds is not None
    largest = max(value for task in record.tasks.values() for own in task.classes.values() for value in own)
    transforms = {"_target_": "Compose"}
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "beside": "$os.path.dirname(os.path.abspath(@bundle_root))",  # images and masks are the user's: not within
        "dataset_dir": "$os.path.join(@beside, 'images')",
        "output_dir": "$os.path.join(@beside, 'masks')",
        "files": "*.nii*",
        "task": None,
        "modality": None,
        "alpha": None,
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": _targets(record.network.builds),
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            **transforms,
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image", "reader": "NibabelReader"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
            ],
        },
        "datalist": "$[{'image': path} for path in sorted(glob.glob(os.path.join(@dataset_dir, @files)))]",
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {
            "_target_": "scripts.SegmentWithVerdict",
            "bundle_root": "@bundle_root",
            "task": "@task",
            "modality": "@modality",
            "alpha": "@alpha",
        },
        "postprocessing": {
            **transforms,
            "transforms": [
                {"_target_": "scripts.Verdictd", "keys": "pred", "output_dir": "@output_dir"},
                {
                    "_target_": "SaveImaged",
                    "keys": "pred",
                    "output_dir": "@output_dir",
                    "output_postfix": MASK,
                    "output_dtype": "uint8" if largest < 256 else "uint16",
                    "separate_folder": False,
                    "resample": False,
                    "print_log": False,
                },
            ],
        },
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "$@bundle_root + '/models/model.pt'",
                "load_dict": {"model": "@network"},
            }
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "initialize": ["$setattr(torch.backends.cudnn, 'benchmark', False)"],
        "run": ["$@evaluator.run()"],
    }


def _values(record: Record) -> dict[str, str]:
    """Label value of a mask -> what it means, in every task that has it."""
    found: dict[str, dict[str, None]] = {"0": {"background": None}}
    for name, task in record.tasks.items():
        known = task.known.classes
        for own, value in zip(known.names, known.written, strict=True):
            found.setdefault(str(value), {})["organ" if task.organ else f"{name} {own}"] = None
    return {value: ", ".join(meanings) for value, meanings in sorted(found.items(), key=lambda item: int(item[0]))}


def _targets(spec: Any) -> Any:
    """Classes as MONAI's configurations name them."""
    if isinstance(spec, dict) and "class_path" in spec:
        return {"_target_": spec["class_path"], **_targets(spec.get("init_args") or {})}
    if isinstance(spec, dict):
        return {name: _targets(each) for name, each in spec.items()}
    return [_targets(each) for each in spec] if isinstance(spec, list) else spec


def _classes(spec: Any) -> list[str]:
    """All classes that a network is built of."""
    if isinstance(spec, list):
        return [path for each in spec for path in _classes(each)]
    if not isinstance(spec, dict):
        return []
    own = [spec["class_path"]] if "class_path" in spec else []
    return own + [path for each in spec.values() for path in _classes(each)]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "any"
