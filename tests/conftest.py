"""What all tests share: phantoms made once, small folders of given arrays, and the real corpora where they exist."""

import json
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from matplotlib.figure import Figure
from monai.networks.nets import UNet
from numpy.typing import ArrayLike, NDArray

from medmtl.data.phantoms.phantoms import write_phantoms
from medmtl.runs.lock import locked
from medmtl.startup import importing

pytest_plugins = ("case_sample",)  # test cases, for results and pages

# One thread, here and in the processes that tests start, so that two workers of pytest have a core each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)
# torch makes its pool anew at its first use after a fork, and fails where two threads are the first at once.
os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    with importing():  # the modules of the tests import everything
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not Path(os.environ.get("MEDMTL_DATA") or "-").is_dir():
        skip = pytest.mark.skip(reason="MEDMTL_DATA is not set: real corpora are not tested")
        for item in items:
            if item.get_closest_marker("real_data"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """A folder that one worker of pytest makes and all may read: `made_once(name, make)`, with `make(folder)`."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name: str, make: Callable[[Path], None]) -> Path:
        with locked(shared / f"{name}.lock", wait=True):
            if not (shared / f"{name}.made").exists():
                make(shared / name)
                (shared / f"{name}.made").touch()
        return shared / name

    return made


@pytest.fixture(scope="session")
def phantom_store(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A cache folder as `$MEDMTL_CACHE` names it, that holds three labelled cases of every phantom task."""
    return made_once("cache", lambda folder: write_phantoms(folder / "phantoms-v1", cases=3))


@pytest.fixture
def phantoms(phantom_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the phantom data sets; roots such as `phantom:LiverCT` mean the folders within it."""
    monkeypatch.setenv("MEDMTL_CACHE", str(phantom_store))
    return phantom_store / "phantoms-v1"


@pytest.fixture(scope="session")
def blank() -> bytes:
    """A picture with nothing on it."""
    stream = BytesIO()
    Figure((1, 1)).savefig(stream, format="png", dpi=10)
    return stream.getvalue()


@pytest.fixture
def undrawn(blank: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let figures come out blank in a test itself: drawing them is half of its time.

    What runs of a whole session or module draw, such as `trained`, is real, and so is what other processes draw.
    """
    monkeypatch.setattr(Figure, "savefig", lambda self, stream, **_: stream.write(blank))


@pytest.fixture
def coarse(tmp_path: Path) -> Callable[[Path], Path]:
    """Write a configuration at three times its working spacing, which makes whole volumes quick: `coarse(config)`."""

    def write(config: Path) -> Path:
        content = yaml.safe_load(config.read_text())
        content["data"]["patch_size"] = [32, 32, 32]
        for task in content["data"]["tasks"].values():
            task["spacing"] = [3 * size for size in task["spacing"]]
        path = tmp_path / config.name
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return write


@pytest.fixture
def real_data() -> Path:
    """Folder of the real corpora; for tests marked `real_data`."""
    return Path(os.environ["MEDMTL_DATA"])


def save_nifti(path: Path, voxels: ArrayLike, affine: ArrayLike) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(voxels), np.asarray(affine, dtype=float)), path)
    return path


@pytest.fixture
def save_volume(tmp_path: Path) -> Callable[..., Path]:
    """Write voxels as a NIfTI file of the test's folder: `save_volume(name, voxels, affine)`."""

    def save(name: str, voxels: ArrayLike, affine: ArrayLike = np.eye(4)) -> Path:  # noqa: B008
        return save_nifti(tmp_path / name, voxels, affine)

    return save


@pytest.fixture
def write_task(tmp_path: Path) -> Callable[..., Path]:
    """Write arrays as a Medical Segmentation Decathlon folder.

    `write_task({case: (image, label or None)}, name=, affine=, labels=)`; images without a label are test images.
    """

    def write(
        volumes: Mapping[str, tuple[NDArray, NDArray | None]],
        name: str = "Task",
        affine: ArrayLike = np.eye(4),  # noqa: B008
        labels: Sequence[str] = ("background", "organ"),
    ) -> Path:
        root = tmp_path / name
        save = partial(save_nifti, affine=affine)
        training, test = [], []
        for case, (image, label) in volumes.items():
            if label is None:
                save(root / f"imagesTs/{case}.nii.gz", image)
                test.append(f"./imagesTs/{case}.nii.gz")
                continue
            save(root / f"imagesTr/{case}.nii.gz", image)
            save(root / f"labelsTr/{case}.nii.gz", label)
            training.append({"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"})
        described = {
            "name": name,
            "labels": {str(value): organ for value, organ in enumerate(labels)},
            "training": training,
            "test": test,
        }
        root.mkdir(exist_ok=True)
        (root / "dataset.json").write_text(json.dumps(described))
        return root

    return write


@pytest.fixture
def small_unet() -> Callable[[], UNet]:
    """A small MONAI UNet with fixed random weights, in evaluation mode."""

    def make() -> UNet:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = UNet(3, 1, 1, channels=(8, 12, 16), strides=(2, 2), num_res_units=1, norm="instance")
        return network.eval()

    return make
