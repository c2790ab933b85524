"""Exported folders beside the run that they were exported from; `make bench` runs it.

Every test image of the run and every image of its OOD folders is predicted by the run and by a folder of each kind:
Dice of the masks, largest difference of the probabilities, and whether all that the verdicts say is the same. Then the
network and its feature maps, by torch and by onnxruntime, on windows of a real image, in interleaved pairs; and the
peak memory of a process that predicts one image with each. A bundle is predicted by `medmtl` here; what MONAI makes of
it without medmtl is compared with `--bundle-masks`, a folder that `python -m monai.bundle run` wrote of the same
images, which `--copy` copies into one folder under the names of task and file.
What was found is added to `bench.json`, after each image.
"""

import argparse
import json
import multiprocessing
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import nibabel
import numpy as np
import torch
from scipy.stats import bootstrap

import medmtl
from medmtl.cli import main as run_medmtl
from medmtl.data.working_space import prepare
from medmtl.export.graph import WithFeatures
from medmtl.export.record import Kind
from medmtl.io.inputs import find_inputs
from medmtl.io.reader import read
from medmtl.predict.model import Model
from medmtl.predict.prediction import Prediction
from medmtl.training.trained import load_trained

SAID = ("in_distribution", "nearest_task", "mask_reliable", "task")


def images(run: Path) -> Iterator[tuple[str, Path]]:
    """Task or folder, and file, of the test images and those of no task."""
    trained = load_trained(run / "checkpoints" / "best.ckpt", "cpu")
    trained.open_data()
    for name in trained.data.trained:
        for case in trained.data.cases(name, "test"):
            yield name, case.image_files[0]
    for name in trained.data.ood:
        for case in trained.data.listed(name):
            yield name, case.image_files[0]


def unique(dataset: str, path: Path) -> str:
    """The name of a copied image; files of several tasks have the same names."""
    return f"{dataset}-{path.name.removesuffix('.gz').removesuffix('.nii')}"


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Of two masks; two empty ones agree."""
    both = int((one > 0).sum()) + int((other > 0).sum())
    return 2 * int(((one > 0) & (one == other)).sum()) / both if both else 1.0


def compared(expected: Prediction, found: Prediction) -> dict[str, Any]:
    """A prediction beside that of the run."""
    return {
        "dice": dice(expected.mask, found.mask),
        "probability": float(np.abs(expected.probability - found.probability).max()),
        "p_value": abs((expected.p_value or 0) - (found.p_value or 0)),
        "ood_score": abs((expected.ood_score or 0) - (found.ood_score or 0)),
        "same": all(getattr(expected, said) == getattr(found, said) for said in SAID),
        "reasons": expected.reasons == found.reasons,
    }


def pairs_of(model: Model, graph: Model, path: Path, pairs: int) -> np.ndarray:
    """Seconds of onnxruntime over those of torch, for the windows of one image, `(pairs,)`."""
    task = next(iter(model.tasks.values()))
    image = prepare(read(find_inputs(path)[0]).image, task.preprocessing).as_tensor()[None]
    side = model.predictor.patch_size
    windows = torch.nn.functional.interpolate(image, side).repeat(model.predictor.window_batch, 1, 1, 1, 1)
    bare = WithFeatures(model.predictor, model.observer.tap.modules if model.observer else []).eval()
    ratios = []
    with torch.inference_mode():
        for number in range(pairs + 2):
            start = time.perf_counter()
            bare(windows)
            middle = time.perf_counter()
            graph.predictor.network(windows)
            if number > 1:  # the first ones warm up
                ratios.append((time.perf_counter() - middle) / (middle - start))
    return np.array(ratios)


def peak_gb(folder: Path, path: Path, threads: int) -> float:
    """The most memory of a process that predicts an image."""
    torch.set_num_threads(threads)
    medmtl.load(folder, device="cpu", trust=True).predict(path)
    # That of `getrusage` is no less than what the process had that started this one.
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024 / 1e9


def of_bundle(folder: Path, name: str, expected: Prediction) -> dict[str, Any]:
    """What MONAI wrote for an image, beside the prediction of the run."""
    said = json.loads((folder / f"{name}_verdict.json").read_text())
    mask = np.asarray(nibabel.load(folder / f"{name}_mask.nii.gz").dataobj)
    return {
        "dice": dice(expected.mask, mask),
        "p_value": abs((expected.p_value or 0) - (said["p_value"] or 0)),
        "ood_score": abs((expected.ood_score or 0) - (said["ood_score"] or 0)),
        "same": all(getattr(expected, key) == said[key] for key in SAID),
        "reasons": list(expected.reasons) == said["reasons"],
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    parser.add_argument("--run", type=Path, help="run to export; without it one is trained for a moment")
    parser.add_argument("--folders", type=Path, help="exported folders, named by their kinds; made if need be")
    parser.add_argument("--bundle-masks", type=Path, help="what `python -m monai.bundle run` wrote")
    parser.add_argument("--copy", type=Path, metavar="DIR", help="copy the images there, and do nothing else")
    parser.add_argument("--kinds", nargs="+", choices=get_args(Kind), default=get_args(Kind))
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.copy is not None:
        given.copy.mkdir(parents=True)
        for dataset, path in images(given.run):
            shutil.copyfile(path, given.copy / f"{unique(dataset, path)}.nii.gz")
        return
    with TemporaryDirectory() as folder:
        run, folders = given.run or Path(folder, "run"), given.folders or Path(folder, "exported")
        if given.run is None:
            run_medmtl(["fit", "--config=multitask.yaml", f"--run={run}", "--trainer.max_epochs=1", "--data.batches=2"])
        for kind in given.kinds:
            if not (folders / kind).is_dir():
                run_medmtl(["export", f"--run={run}", f"--to={kind}", f"--output={folders / kind}"])
        model = medmtl.load(run, device="cpu")
        others = {kind: medmtl.load(folders / kind, device="cpu", trust=True) for kind in given.kinds}
        found: dict[str, list[dict[str, Any]]] = {}
        every = list(images(run))
        spawn = multiprocessing.get_context("spawn")
        row: dict[str, Any] = {"threads": given.threads, "peak_gb": {}}
        if "onnx" in others:
            ratios = pairs_of(model, others["onnx"], every[0][1], given.pairs)
            ends = bootstrap((ratios,), np.median, random_state=0).confidence_interval
            row["onnxruntime_of_torch"] = {"median": float(np.median(ratios)), "interval": list(map(float, ends))}
        for kind, place in {"run": run, **{kind: folders / kind for kind in others}}.items():
            with spawn.Pool(1) as pool:
                row["peak_gb"][kind] = pool.apply(peak_gb, (place, every[0][1], given.threads))
        for dataset, path in every:
            expected = model.predict(path)
            for kind, other in others.items():
                found.setdefault(kind, []).append(compared(expected, other.predict(path)))
            if given.bundle_masks is not None:
                found.setdefault("monai.bundle", []).append(
                    of_bundle(given.bundle_masks, unique(dataset, path), expected)
                )
            row["kinds"] = {kind: summary(cases) for kind, cases in found.items()}
            rows = json.loads(given.out.read_text()) if given.out.is_file() else {}
            given.out.write_text(json.dumps({**rows, "exported": row}, indent=1) + "\n")
            print(dataset, path.name, {kind: cases[-1] for kind, cases in found.items()}, flush=True)
    print(json.dumps(row, indent=1))


def summary(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """The worst of all images."""
    return {
        "images": len(cases),
        "least_dice": min(case["dice"] for case in cases),
        "same_verdicts": sum(case["same"] for case in cases),
        "same_reasons": sum(case["reasons"] for case in cases),
        **{
            f"largest_{key}": max(case.get(key, 0.0) for case in cases)
            for key in ("probability", "p_value", "ood_score")
        },
    }


if __name__ == "__main__":
    main()
