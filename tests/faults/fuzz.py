"""Mutated inputs over the readers and commands, in this process: what is no error for users is a fault.

    python -m tests.faults.fuzz --inputs 5000 --seed 0 --seconds 600
    python -m tests.faults.fuzz --only checkpoint --seed 0 --first 117 --inputs 1   # one of them again

Prints each kind of fault once with its traceback, the slowest input and the peak memory; exits with 1 after a fault.
"""

import argparse
import contextlib
import io
import json
import logging
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import nibabel as nib
import numpy as np
import torch
import yaml

from medmtl.cli import main as medmtl
from medmtl.data.digests import Digests
from medmtl.data.layouts import recognise
from medmtl.data.layouts.lists import FileList
from medmtl.data.splits import apply_splits
from medmtl.data_tools.block import task_block
from medmtl.data_tools.facts import Request, look_at
from medmtl.data_tools.listing import list_folder
from medmtl.errors import MedMTLError
from medmtl.experiment.analysis.records import read_records
from medmtl.experiment.panels import describe_experiment
from medmtl.experiment.plan.fingerprint import data_of, resolve
from medmtl.experiment.plan.job import Job
from medmtl.experiment.plan.labels import read_arms
from medmtl.files import read_table
from medmtl.io.inputs import find_inputs
from medmtl.io.reader import read
from medmtl.ood_benchmark.cache import unpacked
from medmtl.predict.records import read_record, write_summary
from medmtl.results.benchmark import read_records as read_benchmark
from medmtl.runs.checkpoint import CHECKPOINT_KEY, read_checkpoint
from medmtl.runs.folder import RunFolder
from medmtl.training.config_files import read_yaml
from medmtl.training.trained import load_trained

OLD = Path(__file__).parents[1] / "fixtures" / "old-0.1" / "checkpoints" / "best.ckpt"
HANG = 10.0  # seconds; more is a fault
_NUMBERS = (0, -1, 1, 7, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan"), 1e-320)
_TEXTS = "|x|0|-1|nan|[/x]|=1|../x|/etc/passwd|\0|\ud800|a\nb|%s|{}|class_path|$HOME|${NOPE}|~nobody/x|phantom:No|(|"
_NESTED = ([], [[]], [1], ["x"], [None], {}, {"": None}, {"x": 1}, {"class_path": "os.system", "init_args": {"x": 1}})
ODD: tuple[Any, ...] = (None, True, False, *_NUMBERS, *_TEXTS.split("|"), "ü" * 300, "2001-99-99", *_NESTED)
SPLITS = {"T": {"train": ["a", "b"], "val": ["c"], "test": ["d"]}, "U": {"train": ["e"], "val": ["f"], "test": []}}
RECORD = {
    **{"schema": 2, "case": "a", "input": "a.nii.gz", "mask": "a.nii.gz", "in_distribution": True, "p_value": 0.5},
    **{"alpha": 0.05, "nearest_task": "T", "ood_score": 0.1, "scores": {"spectral": 0.1, "entropy": None}, "task": "T"},
    **{"preprocessing": "x", "volume_ml": 1.0, "model": {"name": "b", "digest": "c", "medmtl": "1"}, "warnings": ["w"]},
    **{"seconds": {"inference": 0.1}, "reasons": ["r"], "files": {"mask": "a.nii.gz"}, "request": {"path": "/a"}},
    **{"labels": {"x": 1}, "volumes_ml": {"x": 1.0}, "mask_reliable": None, "nearest_image": "T/a"},
}
CELL = {
    **{"experiment": "e", "arm": "multitask", "task": None, "seed": 0, "fold": None, "cases": None},
    "budget": {"notion": "steps", "steps": 6, "batch_size": 2, "validations": 2},
}
JOB = {
    **{"name": "a", "folder": "f", "run": "r", "config": "c.yaml", "steps": 6, "needs": None, "fingerprint": "ab"},
    "cell": CELL,
}
ARMS = {"multitask": {"label": "multi-task", "look": {"marker": "o", "dashes": [0, [5, 2]], "shade": "#000000"}}}
BINS = {"count": [1, 2], "positives": [0, 1], "probability": [0.1, 1.2], "squared_error": 0.1}
RUN = {"experiment": {"fingerprint": "ab", "finished": True, "steps": 6, "cell": CELL}, "fit": {"versions": {"a": "1"}}}
FACTS = {
    **{"dataset": "T", "case": "a", "patient": "p", "dice": 0.5},
    "views": [{"preprocessing": "x", "outputs": {"entropy": 0.1}, "shape": {"parts": 1.0}, "voxels": {"l": 8.0}}],
}
TABLE = "detector,group,condition,severity,task,case,patient,score,dice,p_value,rejected\nd,near,T,0,T,a,a,0.5,,0.1,1\n"


def mutated(value: Any, draw: random.Random) -> Any:
    """A copy of what JSON or YAML holds in which some places hold something else, are gone, or are elsewhere."""
    value = deepcopy(value)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        holder = {"": value}
        places = [(holder, "")]
        for here, key in places:
            child = here[key]
            keys = child if isinstance(child, dict) else range(len(child) if isinstance(child, list) else 0)
            places += [(child, each) for each in keys]
        here, key = draw.choice(places[1:] or places)
        change = draw.randrange(6)
        if change == 0 and here is not holder:
            del here[key]
        elif change == 1 and isinstance(here, dict) and here is not holder:
            here[str(draw.choice(ODD))] = here.pop(key)
        elif change == 2:
            here[key] = [here[key], deepcopy(here[key])]
        elif change == 3:
            there, other = draw.choice(places)
            here[key] = deepcopy(there[other])
        else:
            here[key] = draw.choice(ODD)
        value = holder[""]
    return value


def torn(content: bytes, draw: random.Random) -> bytes:
    """Bytes of which some are flipped, cut out, repeated or replaced."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 5))):
        start = draw.randrange(len(data) + 1)
        end = min(start + draw.choice((1, 1, 2, 8, 40)), len(data))
        change = draw.randrange(4)
        if change == 0 and start < len(data):
            data[start] ^= 1 << draw.randrange(8)
        elif change == 1:
            del data[start:end]
        elif change == 2:
            data[start:start] = data[start:end]
        else:
            data[start:end] = draw.randbytes(end - start)
    return bytes(data)


@dataclass
class Fuzz:
    """The inputs, made once in a folder, and what reads them mutated.

    Attributes:
        folder: for everything that is written.
    """

    folder: Path
    loaded: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        grid = np.indices((8, 8, 8))
        for number in range(4):
            image = (grid.sum(0) + 10 * number).astype(np.int16)
            label = (image > 15 + 10 * number).astype(np.uint8)
            for part, voxels in (("imagesTr", image), ("labelsTr", label)):
                path = self.folder / "Ball" / part / f"c_{number}.nii.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
                other = path.with_name(f"c_{number}_0000.nii.gz" if part == "imagesTr" else path.name)
                shutil.copy(path, self._made(self.folder / "Dataset001_Ball" / part) / other.name)
        names = [f"c_{number}.nii.gz" for number in range(4)]
        pairs = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names]
        self.msd = {"labels": {"0": "background", "1": "ball"}, "modality": {"0": "MRI"}, "training": pairs, "test": []}
        (self.folder / "Ball" / "dataset.json").write_text(json.dumps(self.msd))
        self.nnunet = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "ball": 1}, "numTraining": 4}
        self.nnunet |= {"file_ending": ".nii.gz"}
        files = {"image": "Ball/imagesTr", "label": "Ball/labelsTr"}
        self.rows = [{**{key: f"{part}/{name}" for key, part in files.items()}, "name": name} for name in names]
        self.config = {
            "data": {
                "tasks": {
                    "Ball": {"root": str(self.folder / "Ball"), "modality": "MR", "organ": [1], "spacing": [1.0] * 3}
                },
                **{"patch_size": [8, 8, 8], "batch_size": 2, "batches": 1},
            },
            "model": {
                "network": {
                    "class_path": "monai.networks.nets.UNet",
                    "init_args": {
                        **{"spatial_dims": 3, "in_channels": 1, "out_channels": 1, "channels": [2, 4], "strides": [2]},
                    },
                },
                "loss": {"class_path": "monai.losses.DiceCELoss", "init_args": {"sigmoid": True}},
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
                "scheduler": {"class_path": "torch.optim.lr_scheduler.OneCycleLR", "init_args": {"max_lr": 0.01}},
            },
            **{"spectral": {"layers": ["model.0"]}, "seed_everything": 0, "wandb": {"mode": "disabled"}},
            "trainer": {"accelerator": "cpu", "max_steps": 1, "enable_progress_bar": False},
        }
        self.checkpoint = read_checkpoint(OLD)

    @staticmethod
    def _made(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def write(self, name: str, content: Any, draw: random.Random) -> Path:
        """A file with mutated content: of JSON or YAML by its values, or by its bytes."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        values = not isinstance(content, str)
        changed = mutated(content, draw) if values and draw.random() < 0.8 else content
        if path.suffix == ".yaml":
            text = yaml.safe_dump(changed, sort_keys=False) if values else changed
        else:
            text = json.dumps(changed) if values else changed
        data = text.encode("utf-8", "surrogatepass")
        path.write_bytes(data if values and changed is not content else torn(data, draw))
        return path

    def record(self, draw: random.Random) -> None:
        """What `predict` reads of an earlier command."""
        found = read_record(self.write("a.json", RECORD, draw).parent, "a")
        if found is not None:
            write_summary(self.folder / "summary.csv", [found], [])

    def splits(self, draw: random.Random) -> None:
        """A split file."""
        apply_splits(self.write("splits.json", SPLITS, draw), {"T": {each: each for each in "abcd"}})

    def job(self, draw: random.Random) -> None:
        """What an experiment plans."""
        Job.read(self.write("job.json", JOB, draw))

    def arms(self, draw: random.Random) -> None:
        """How arms are called and drawn."""
        read_arms(self.write("arms.json", ARMS, draw))

    def digests(self, draw: random.Random) -> None:
        """The cache of digests."""
        image = self.folder / "Ball/imagesTr/c_0.nii.gz"
        with Digests(self.write("data.json", {str(image): [1, 2, "ab"]}, draw)) as digests:
            digests._file(image)

    def experiment(self, draw: random.Random) -> None:
        """A finished run of an experiment, as `compare` and `dashboard` read it."""
        home = self.folder / "study"
        contents: dict[str, Any] = {
            "runs/a/run.json": RUN,
            "runs/a/splits.json": {"T": SPLITS["T"]},
            "runs/a/config.yaml": {"data": {"tasks": {"T": {"root": "x"}}}},
            "runs/a/report/report.json": {"metrics": {"dice": {"label": "Dice", "higher_is_better": True}}},
            "runs/a/report/bins.json": {"T": {"a": {"band": BINS}}},
            "jobs/a.json": JOB,
            "configs/a.yaml": {"data": {"tasks": {"T": {}}}, "wandb": {"group": "e", "tags": ["8cases"]}},
            "compare/compare.json": {"metrics": {"mine": {"label": "Mine", "unit": "", "digits": 3}}},
        }
        for name, content in contents.items():
            path = self._made((home / name).parent) / Path(name).name
            path.write_text(json.dumps(content))
        table = "dataset,case,patient,expected,dice\nT,a,a,in,0.9\n"
        (home / "runs/a/report/cases.csv").write_text(table)
        chosen = draw.choice([*contents, "runs/a/report/cases.csv"])
        self.write(f"study/{chosen}", contents.get(chosen, table), draw)
        with contextlib.suppress(MedMTLError):
            read_records(home)
        describe_experiment("x", "y", home)

    def manifest(self, draw: random.Random) -> None:
        """A run's manifest."""
        RunFolder(self.write("run.json", RUN, draw).parent).read_manifest()

    def observation(self, draw: random.Random) -> None:
        """A cached observation of `ood`, which is computed again where it is damaged."""
        arrays = {"facts": json.dumps(mutated(FACTS, draw)), "0.histogram": np.ones(4), "0.l.mean": np.ones(2)}
        with contextlib.suppress(KeyError, ValueError):
            unpacked({**arrays, "0.l.gram": np.ones((2, 2))})

    def tables(self, draw: random.Random) -> None:
        """Tables that are read back."""
        path = self.write("ood.csv", TABLE, draw)
        read_benchmark(path)
        with contextlib.suppress(ValueError):
            read_table(path)

    def dataset(self, draw: random.Random) -> None:
        """`dataset.json` of both kinds, as `data import`, `data check` and `fit` list it."""
        root, content = draw.choice((("Ball", self.msd), ("Dataset001_Ball", self.nnunet)))
        copy = self.folder / "copy" / root
        if not copy.exists():
            shutil.copytree(self.folder / root, copy)
        self.write(f"copy/{root}/dataset.json", content, draw)
        recognise(copy).read("task T", copy)
        task_block(copy)

    def check(self, draw: random.Random) -> None:
        """The command `data check` on such a folder."""
        with contextlib.suppress(MedMTLError):
            self.dataset(draw)
        root = draw.choice(list((self.folder / "copy").iterdir()))
        medmtl(["data", "check", str(root), "--jobs", "1", "--output", str(self.folder / "checked")])

    def listed(self, draw: random.Random) -> None:
        """Lists of images and of cases, as CSV and JSON."""
        mark = draw.choice(",;\t")
        lines = [mark.join(row) for row in ([*self.rows[0]], *(list(row.values()) for row in self.rows))]
        name, content = draw.choice((("cases.json", self.rows), ("cases.csv", "\n".join(lines))))
        path = self.write(name, content, draw)
        with contextlib.suppress(MedMTLError):
            FileList(name).read("task T", self.folder)
        for one in find_inputs(path)[:2]:
            with contextlib.suppress(MedMTLError):
                read(one)

    def image(self, draw: random.Random) -> None:
        """NIfTI files with mutated headers, as `predict` and `data check` read them."""
        whole = nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(6, 5, 4), np.eye(4)).to_bytes()
        data = torn(whole[:348], draw) if draw.random() < 0.7 else whole[:348]
        path = self.folder / "scan.nii"
        path.write_bytes(data + (whole[348:] if draw.random() < 0.7 else torn(whole[348:], draw)))
        with contextlib.suppress(MedMTLError):
            for one in find_inputs(path):
                read(one)
        for case in list_folder(self.folder / "Ball").corpus.cases[:1]:
            look_at(Request("T", self.folder, type(case)(case.name, case.patient, (path,), case.labels), None))

    def predict(self, draw: random.Random) -> None:
        """The command `predict` over a folder, or a list, of which one image is damaged; and once more beside that."""
        folder = self._made(self.folder / "scans")
        for path in [*folder.glob("*"), *(self.folder / "out").glob("*")]:
            if draw.random() < 0.5:
                path.unlink(missing_ok=True)
        shutil.copy(self.folder / "Ball/imagesTr/c_1.nii.gz", folder / "good.nii.gz")
        whole = nib.Nifti1Image(np.indices((8, 7, 6)).sum(0).astype(np.int16), np.eye(4)).to_bytes()
        (folder / draw.choice(("a.nii", "b.nii.gz", "c.hdr", "d.nrrd", "e.mha", "f.mgz"))).write_bytes(
            torn(whole, draw)
        )
        rows = [{"image": path.name, "name": path.name, "task": None} for path in sorted(folder.glob("*.nii*"))]
        where = self.write("scans/list.json", rows, draw) if draw.random() < 0.5 else folder
        for record in list((self.folder / "out").glob("*.json"))[:1]:
            record.write_text(json.dumps(mutated(json.loads(record.read_text()), draw)))
        volume = draw.choice(("0", "1", "all"))
        output = ["--output", str(self.folder / "out"), "--volume", volume, "--device", "cpu"]
        medmtl(["predict", "--ckpt_path", str(OLD), "--input", str(where), *output])

    def resume(self, draw: random.Random) -> None:
        """The command `fit --resume` in a run folder of which one file is damaged."""
        run, short = self.folder / "kept", ["--trainer.accelerator=cpu", "--data.workers=0"]
        if not run.is_dir():
            lasting = {**self.config, "model": {**self.config["model"], "scheduler": None}}
            (self.folder / "kept.yaml").write_text(yaml.safe_dump(lasting))
            with contextlib.suppress(SystemExit):
                medmtl(["fit", "--config", str(self.folder / "kept.yaml"), "--run", str(run), *short])
        copy = self.folder / "resumed"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run, copy)
        chosen = draw.choice([path for path in sorted(copy.rglob("*")) if path.is_file()])
        if chosen.suffix in (".json", ".yaml") and draw.random() < 0.7:
            kept = read_yaml(chosen)
            text = yaml.safe_dump(mutated(kept, draw)) if chosen.suffix == ".yaml" else json.dumps(mutated(kept, draw))
            chosen.write_bytes(text.encode("utf-8", "surrogatepass"))
        else:
            chosen.write_bytes(torn(chosen.read_bytes(), draw))
        medmtl(["fit", "--run", str(copy), "--resume", "--trainer.max_steps=2", *short])

    def configuration(self, draw: random.Random) -> None:
        """A configuration, checked and built as `experiment` does."""
        content = read_yaml(self.write("config.yaml", self.config, draw))
        data_of(resolve(content))

    def fit(self, draw: random.Random) -> None:
        """The command `fit`, a step long, or as far as it gets."""
        path = self.write("config.yaml", self.config, draw)
        short = ["--trainer.max_steps=1", "--data.batches=1", "--data.workers=0", "--trainer.accelerator=cpu"]
        shutil.rmtree(self.folder / "run", ignore_errors=True)
        medmtl(["fit", "--config", str(path), "--run", str(self.folder / "run"), *short])

    def loaded_checkpoint(self, draw: random.Random) -> None:
        """The configuration within a checkpoint, as every command that uses one loads it."""
        text = self.checkpoint[CHECKPOINT_KEY]
        changed: Any = yaml.safe_dump(mutated(yaml.safe_load(text), draw), sort_keys=False)
        if draw.random() < 0.1:
            changed = draw.choice((torn(text.encode(), draw).decode("utf-8", "replace"), *ODD))
        path = self.folder / "best.ckpt"
        torch.save({**self.checkpoint, CHECKPOINT_KEY: changed}, path)
        load_trained(path)

    @property
    def targets(self) -> dict[str, tuple[Callable[[random.Random], None], int]]:
        """Name -> what reads, and its share of the inputs."""
        return {
            **{"record": (self.record, 6), "splits": (self.splits, 4), "job": (self.job, 4), "arms": (self.arms, 4)},
            **{"digests": (self.digests, 3), "experiment": (self.experiment, 8), "manifest": (self.manifest, 2)},
            **{"observation": (self.observation, 4), "tables": (self.tables, 4), "dataset": (self.dataset, 10)},
            **{"check": (self.check, 3), "listed": (self.listed, 10), "image": (self.image, 16)},
            **{
                "configuration": (self.configuration, 10),
                **{"fit": (self.fit, 2), "resume": (self.resume, 1), "predict": (self.predict, 5)},
                "checkpoint": (self.loaded_checkpoint, 10),
            },
        }


@dataclass
class Result:
    """What was found.

    Attributes:
        inputs: how many were read, by target.
        refused: how many of them with an error for users.
        faults: one traceback of each kind, with the input that makes it.
        times: how often each kind was found.
        slowest: seconds and name of the slowest input.
        peak_mb: of this process.
    """

    inputs: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    faults: dict[str, str] = field(default_factory=dict)
    times: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, str] = (0.0, "")
    peak_mb: float = 0.0


class Hang(BaseException):
    """An input that takes too long."""


def run(inputs: int, seed: int, seconds: float, only: str | None = None, first: int = 0) -> Result:
    """Read mutated inputs until their number or the time is reached.

    Args:
        inputs: at most.
        seed: of the inputs; each depends on it, its number and its target alone.
        seconds: at most; an input that has begun is finished.
        only: a single target.
        first: number of the first input.
    """
    result, end = Result(), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder, _quiet():
        fuzz = Fuzz(Path(folder))
        targets = fuzz.targets
        order = [name for name, (_, share) in targets.items() for _ in range(share)]
        for number in range(first, first + inputs):
            if time.monotonic() > end:
                break
            draw = random.Random(f"{seed}:{number}")
            name = draw.choice(order)
            _one(result, only or name, number, targets[only or name][0], draw)
    result.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return result


def _one(result: Result, name: str, number: int, target: Callable[[random.Random], None], draw: random.Random) -> None:
    result.inputs[name] += 1
    started = time.monotonic()
    kept = signal.signal(signal.SIGALRM, _hang)
    signal.setitimer(signal.ITIMER_REAL, 3 * HANG)
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            target(draw)
    except (MedMTLError, SystemExit) as error:
        result.refused += not isinstance(error, SystemExit) or error.code not in (0, None)
        if isinstance(error, SystemExit) and "Traceback" in output.getvalue():
            _fault(result, name, number, RuntimeError(output.getvalue()[-2000:]))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        _fault(result, name, number, error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, kept)
    result.slowest = max(result.slowest, (time.monotonic() - started, f"{name} {number}"))


def _fault(result: Result, name: str, number: int, error: BaseException) -> None:
    frames = [each for each in traceback.extract_tb(error.__traceback__) if "/medmtl/" in each.filename]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    kind = f"{type(error).__name__} at {place}"
    result.times[kind] += 1
    if kind not in result.faults:
        result.faults[kind] = f"{name} {number}\n" + "".join(traceback.format_exception(error, limit=-6))


def _hang(_number: int, _frame: FrameType | None) -> None:
    raise Hang(f"more than {3 * HANG:.0f} s")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--only", help="a single target")
    options = parser.parse_args()
    started = time.monotonic()
    found = run(options.inputs, options.seed, options.seconds, options.only, options.first)
    for kind, text in found.faults.items():
        sys.stdout.write(f"--- {kind}, {found.times[kind]} times; first {text}\n")
    seconds, slowest = found.slowest
    counts = ", ".join(f"{name} {count}" for name, count in found.inputs.most_common())
    sys.stdout.write(
        f"{found.inputs.total()} inputs in {time.monotonic() - started:.0f} s, seed {options.seed} ({counts})\n"
        f"{found.refused} refused in one line, {found.times.total()} faults of {len(found.faults)} kinds\n"
        f"slowest: {slowest}, {seconds:.1f} s; peak memory: {found.peak_mb:.0f} MB\n"
    )
    raise SystemExit(bool(found.faults) or seconds > HANG)


if __name__ == "__main__":
    main()
