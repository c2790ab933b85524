"""Prepared volumes on disk: the same training as in memory, never stale, shared, and read only where needed."""

import errno
import io
import json
import os
import pickle
import re
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from rich.console import Console
from safetensors.torch import load_file

from medmtl import progress
from medmtl.cli import main
from medmtl.data import caches as module
from medmtl.data.caches import Caches, OnDisk
from medmtl.data.case import Case, LabelFile
from medmtl.data.centres import Centres, find_foreground
from medmtl.data.classes import Classes
from medmtl.data.datamodule import MultiTaskData
from medmtl.data.layouts.folders import Folders
from medmtl.data.memory import available_bytes
from medmtl.data.patches import random_patch, seeded_patch
from medmtl.data.preprocessing import Preprocessing
from medmtl.data.store import Store
from medmtl.data.task import Task
from medmtl.data.tensor_file import read_tensors, write_tensors
from medmtl.data.transforms import LoadPair, LoadScan
from medmtl.errors import DataError

Volumes = dict[str, tuple[np.ndarray, np.ndarray]]
MR, CT = Preprocessing((1.5, 1.0, 1.25), None), Preprocessing((1.0, 1.0, 1.0), (-100.0, 100.0))


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("MEDMTL_CACHE", str(tmp_path / "cache"))
    return Store()


def volumes(cases: int = 6, shape: tuple[int, ...] = (14, 11, 9), values: int = 2) -> Volumes:
    """Noise, with labels of some values and one, 9, where nothing is known."""
    found = {}
    for number in range(cases):
        rng = np.random.default_rng(number)
        label = np.zeros(shape[:3], np.uint8)
        for value in range(1, values + 1):
            label[2 * value : 2 * value + 3, 2:6, 3:6] = value
        label[-3:] = 9
        found[f"case_{number}"] = (rng.normal(100, 20, shape).astype(np.float32), label)
    return found


def make_task(root: Path, kind: str, found: Volumes | None = None) -> Task:
    for case, (image, label) in (volumes() if found is None else found).items():
        for folder, voxels in (("images", image), ("labels", label)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            affine = np.diag([-1.2, 0.9, 2.0, 1])  # of a grid that is neither right-anterior-superior nor as spaced
            nibabel.save(nibabel.Nifti1Image(voxels, affine), root / folder / f"{case}.nii")
    layout = Folders(organs={"one": 1, "two": 2}, ignore=9)
    if kind == "organ":
        return Task(str(root), "CT", (1, 1, 1), ["one"], layout=layout)
    if kind == "channels":
        return Task(str(root), "MR", (1, 1, 1.3), ["one", "two"], channel=[1, 0], layout=layout)
    return Task(str(root), "MR", (1.5, 1, 1.2), classes={"one": "one", "two": "two"}, layout=layout)


def data_of(task: Task, cache: Any, stage: str = "fit", **options: Any) -> MultiTaskData:
    data = MultiTaskData({"T": task}, (8, 12, 6), batch_size=3, batches=6, cache=cache, **options)
    data.setup(stage)
    return data


def bits(value: Any) -> Any:
    """What is in a batch or scan, with affines, for comparison."""
    if isinstance(value, MetaTensor):
        return ["meta", bits(value.as_tensor()), bits(value.affine)]
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), tuple(value.shape), value.numpy().tobytes()]
    if isinstance(value, dict):
        return {str(key): bits(each) for key, each in value.items()}
    return str(value)


def epochs(data: MultiTaskData, number: int = 2) -> list[Any]:
    loader: Any = data.train_dataloader()
    found = []
    for epoch in range(number):
        loader.sampler.set_epoch(epoch)
        found += [bits(batch) for batch in loader]
    return found


@pytest.mark.parametrize("kind", ["organ", "classes", "channels"])
def test_a_training_from_disk_sees_the_patches_and_volumes_of_one_from_memory_bit_for_bit(
    kind: str, tmp_path: Path, store: Store
) -> None:
    task = make_task(tmp_path / "T", kind, volumes(shape=(14, 11, 9, 2)) if kind == "channels" else None)
    memory = data_of(task, "memory")
    assert not store.entries()
    for disk in (data_of(task, "disk"), data_of(task, "disk", workers=int(kind == "organ"))):  # made, then found
        assert epochs(disk) == epochs(memory)
        for loader in ("val_dataloader", "calibration_dataloader"):
            scans = [[bits(scan) for scan in getattr(data, loader)()] for data in (disk, memory)]
            assert scans[0] == scans[1]
            assert len(scans[0]) == 1
    assert len(store.entries()) == 4 + 1  # training and validation


def test_prepared_volumes_are_found_again_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task(tmp_path / "T", "classes")
    first = epochs(data_of(task, "disk"))
    monkeypatch.setattr(LoadPair, "__call__", lambda *_: pytest.fail("prepared again"))
    assert epochs(data_of(task, "disk")) == first


@pytest.mark.parametrize("changed", ["images", "labels"])
def test_a_file_that_changed_under_its_size_and_time_is_prepared_anew(tmp_path: Path, changed: str) -> None:
    task = make_task(tmp_path / "T", "organ")
    before = epochs(data_of(task, "disk"))
    for path in (tmp_path / "T" / changed).iterdir():
        state, content = path.stat(), bytearray(path.read_bytes())
        voxels = np.frombuffer(content, np.float32 if changed == "images" else np.uint8, offset=352)
        voxels[:] = voxels[::-1].copy()
        path.write_bytes(content)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)
    after = epochs(data_of(task, "disk"))
    assert after != before
    assert after == epochs(data_of(task, "memory"))


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    first = next(name for name in header if name != "__metadata__")
    if how == "removed":
        path.unlink()
    elif how == "shape":
        header[first]["shape"] = [10**9]
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    else:
        contents = {
            "empty": b"",
            "cut short": content[:-1],
            "cut in its header": content[:40],
            "longer": content + b"\0",
            "other text": b"x" * len(content),
            "zeros": bytes(len(content)),
            "no object": (2).to_bytes(8, "little") + b"[]",
            "nothing in it": (2).to_bytes(8, "little") + b"{}",
            "nested": (10**5).to_bytes(8, "little") + b"[" * 10**5,
        }
        path.write_bytes(contents[how])


HOW = ("removed", "shape", "empty", "cut short", "cut in its header", "longer", "other text", "zeros", "no object")


@pytest.mark.parametrize("how", [*HOW, "nothing in it", "nested"])
def test_a_damaged_file_is_made_again_at_the_start_and_within_a_training(
    how: str, tmp_path: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    task = make_task(tmp_path / "T", "classes", volumes(4))
    started = data_of(task, "disk", val=0.25, test=0.25)
    good = epochs(started, 1)
    for data in (started, data_of(task, "disk", val=0.25, test=0.25)):
        for path in store.entries():
            damage(path, how)
        assert epochs(data, 1) == good
    said = [record.getMessage() for record in caplog.records if "is damaged (" in record.getMessage()]
    assert bool(said) == (how != "removed")
    assert all(str(store.folder) in each and each.endswith("), and made again") for each in said)


def test_volumes_of_one_content_share_a_file_and_keep_their_names(tmp_path: Path, store: Store) -> None:
    found = volumes(1)
    task = make_task(tmp_path / "T", "organ", {f"copy_{number}": found["case_0"] for number in range(6)})
    data = data_of(task, "disk")
    data.train_dataloader()
    assert [item["case"] for item in data.training_cache("T")] == data.splits["T"]["train"]
    assert len(store.entries()) == 1


def test_whatever_decides_a_prepared_volume_names_it_and_nothing_else(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{number}.nii" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]))
    case = Case("a", "p", (paths[0], paths[1]), (LabelFile(paths[2]),), (0, 1))
    pair = LoadPair(MR, Classes({"one": frozenset({1}), "two": frozenset({2})}), 9)
    scan = LoadScan([MR], pair.classes, 9)
    name = store.about(case, pair)
    for same in (replace(case, name="b"), replace(case, patient="q")):
        assert store.about(same, pair) == name
    assert store.about(case, LoadPair(MR._replace(head="T"), pair.classes, 9)) == name
    others = [
        store.about(replace(case, channels=(1, 0)), pair),
        store.about(replace(case, labels=(LabelFile(paths[1]),)), pair),
        store.about(replace(case, labels=(LabelFile(paths[2], 1),)), pair),
        store.about(case, scan),
        *(store.about(case, LoadScan(each, pair.classes, 9)) for each in ([CT], [MR, CT], [CT, MR])),
        store.about(case, LoadScan([MR], None)),
        store.about(case, LoadPair(CT, pair.classes, 9)),
        store.about(case, LoadPair(MR._replace(spacing=(1.5, 1.0, 1.0)), pair.classes, 9)),
        store.about(case, LoadPair(MR, pair.classes, 8)),
        store.about(case, LoadPair(MR, pair.classes.merge(), 9)),
        store.about(case, LoadPair(MR, Classes({"two": frozenset({2}), "one": frozenset({1})}), 9)),
    ]
    monkeypatch.setattr("medmtl.data.store.version", lambda name: "0" if name == "monai" else "1")
    others.append(Store().about(case, pair))
    monkeypatch.setattr("medmtl.data.store.version", lambda name: "1")
    others.append(Store().about(case, pair))
    monkeypatch.setattr("torch.get_num_threads", lambda: 99)
    others.append(Store().about(case, pair))
    found = {store.path(each) for each in (name, *others)}
    assert len(found) == 1 + len(others)


def test_a_case_that_changes_while_it_is_prepared_is_not_kept(tmp_path: Path, store: Store) -> None:
    make_task(tmp_path / "T", "organ", volumes(2))
    image, other = sorted((tmp_path / "T" / "images").iterdir())
    case = Case("a", "a", (image,), (LabelFile(tmp_path / "T/labels/case_0.nii"),))
    load = LoadPair(CT, Classes.of_organ([1]), 9)
    path = store.path(store.about(case, load))
    image.write_bytes(other.read_bytes())
    with pytest.raises(DataError, match=r"case a: its files have changed .*start again"):
        store.make(path, case, load)
    assert not store.entries()


def test_a_full_disk_is_one_line_that_names_the_folder_and_how_to_choose_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    data = data_of(make_task(tmp_path / "T", "organ"), "disk")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left.*MEDMTL_CACHE") as error:
        data.train_dataloader()
    assert error.value.filename == str(store.folder)
    assert not list(store.folder.glob("*.safetensors"))


def _run(task: Task, start: Any) -> int:
    start.wait()
    return len(epochs(data_of(task, "disk"), 1))


def test_two_processes_make_the_same_files_at_once(tmp_path: Path, store: Store) -> None:
    task = make_task(tmp_path / "T", "classes", volumes(12))
    fork = get_context("fork")
    start = fork.Barrier(2)
    runs = [fork.Process(target=_run, args=(task, start)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    assert [run.exitcode for run in runs] == [0, 0]
    assert epochs(data_of(task, "disk")) == epochs(data_of(task, "memory"))
    assert not [path for path in store.folder.iterdir() if path.name.startswith(".")]


def test_other_libraries_read_the_files(tmp_path: Path, store: Store) -> None:
    data = data_of(make_task(tmp_path / "T", "classes"), "disk")
    data.train_dataloader()
    items = {bits(item["image"])[2]: item for item in data.training_cache("T")}
    for path in store.entries():
        found = load_file(path)
        item = items.pop(found["image"].numpy().tobytes())
        assert {name: bits(tensor) for name, tensor in found.items()} == {
            name: bits(value) for name, value in item.items() if name != "case"
        }
    assert not items


def test_tensors_of_any_shape_come_back_and_writing_into_them_leaves_the_file(tmp_path: Path) -> None:
    kept = {
        "byte": torch.arange(3, dtype=torch.uint8),
        "none": torch.empty(0, dtype=torch.int32),
        "number": torch.tensor(0.5),
        "turned": torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
        "wide": torch.tensor([[1.5]], dtype=torch.float64),
        "mask": torch.tensor([True, False]),
    }
    write_tensors(tmp_path / "a", kept, "some")
    found = read_tensors(tmp_path / "a")
    assert {name: bits(each) for name, each in found.items()} == {
        name: bits(each.contiguous()) for name, each in kept.items()
    }
    found["turned"].zero_()
    assert torch.equal(read_tensors(tmp_path / "a")["turned"], kept["turned"])


def resident(pattern: str) -> int:
    """Bytes of a mapped file that are in this process's memory."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.endswith(pattern):
            return 1024 * next(int(each.split()[1]) for each in lines if each.startswith("Rss:"))
    raise AssertionError(pattern)


def anonymous() -> int:
    text = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", text)[1])


def test_a_patch_reads_its_part_of_a_large_volume_and_no_more(tmp_path: Path) -> None:
    image = torch.rand(1, 256, 256, 256)
    label = torch.zeros(image.shape, dtype=torch.uint8)
    label[:, 100:150, 100:150, 100:150] = 1
    path = tmp_path / "large"
    write_tensors(path, {"image": image, "label": label, **find_foreground(image, label)}, "large")
    del image, label
    draw, size = random_patch((16, 16, 16), 0.5), path.stat().st_size
    seeded_patch(draw, tensors := read_tensors(path), Centres(tensors, (16, 16, 16)), 0)  # what is loaded once
    del tensors
    before = anonymous()
    for seed in range(20):
        tensors = read_tensors(path)
        seeded_patch(draw, tensors, Centres(tensors, (16, 16, 16)), seed)
        assert resident(str(path)) < size / 5  # the system maps some pages around those that are touched
        assert anonymous() - before < 16e6  # the image alone has 67e6
    assert size > 80e6


def test_cases_stay_in_memory_unless_they_need_more_than_half_of_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    task = make_task(tmp_path / "T", "organ")
    memory = data_of(task, "memory")
    memory.train_dataloader(), memory.val_dataloader()
    indices = sum(item["foreground"].numel() * 4 for item in memory.training_cache("T"))
    needed = sum(memory._caches["T", part].size for part in ("train", "val")) - indices
    for free, on_disk in ((2.2 * needed, False), (1.8 * needed, True), (None, False)):
        monkeypatch.setattr("medmtl.data.caches.available_bytes", lambda free=free: free)
        data_of(task, "auto").train_dataloader()
        assert bool(store.entries()) == on_disk
        store.clear()


GROUPS: dict[str, tuple[dict[str, str], int | None]] = {
    "no limit": ({"proc/self/cgroup": "0::/\n"}, 8000),
    "no groups": ({}, 8000),
    "version 2": (
        {
            "proc/self/cgroup": "0::/job/step\n",
            "sys/fs/cgroup/job/step/memory.max": "max\n",
            "sys/fs/cgroup/job/step/memory.stat": "inactive_file 1\n",
            "sys/fs/cgroup/job/memory.max": "4096000\n",
            "sys/fs/cgroup/job/memory.current": "3072000\n",
            "sys/fs/cgroup/job/memory.stat": "anon 5\ninactive_file 102400\nactive_file 102400\n",
        },
        1200,
    ),
    "a container of version 1": (
        {
            "proc/self/cgroup": "5:cpu:/x\n4:memory:/docker/1\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "2048000\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "1024000\n",
            "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 0\ntotal_active_file 512000\n",
        },
        1500,
    ),
    "a group that is full": (
        {
            "proc/self/cgroup": "0::/job\n",
            "sys/fs/cgroup/job/memory.max": "10\n",
            "sys/fs/cgroup/job/memory.current": "20\n",
            "sys/fs/cgroup/job/memory.stat": "inactive_file 0\nactive_file 0\n",
        },
        0,
    ),
    "no numbers": ({"proc/meminfo": "MemTotal: 5 kB\n"}, None),
}


@pytest.mark.parametrize("name", GROUPS)
def test_free_memory_is_that_of_the_machine_or_of_the_group_that_allows_less(name: str, tmp_path: Path) -> None:
    files, expected = GROUPS[name]
    for path, text in ({"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n"} | files).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert available_bytes(tmp_path) == (None if expected is None else 1024 * expected)


def test_a_command_lists_and_clears_what_is_kept(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*options: str) -> str:
        main(["data", "cache", *options])
        return capsys.readouterr().out

    assert said() == f"prepared volumes: 0 in {store.folder}, 0 MB\n"
    data = data_of(make_task(tmp_path / "T", "organ", volumes(6, (60, 60, 60))), "disk")
    good = epochs(data, 1)
    (store.folder / ".1-ab.left.safetensors").write_bytes(b"x")
    os.utime(store.folder / ".1-ab.left.safetensors", (0, 0))
    (store.folder / ".2-ab.written.safetensors").write_bytes(b"x")
    size = round(sum(path.stat().st_size for path in store.folder.iterdir() if path.suffix == ".safetensors") / 1e6)
    assert size > 2
    assert said() == f"prepared volumes: 5 in {store.folder}, {size} MB\n"
    assert said("--clear") == f"cleared: 5 in {store.folder}, {size} MB\n"
    assert [path.name for path in store.folder.iterdir()] == [".2-ab.written.safetensors"]
    assert epochs(data, 1) == good  # a training goes on


def test_prepared_volumes_are_for_their_owner_alone(tmp_path: Path, store: Store) -> None:
    data_of(make_task(tmp_path / "T", "organ"), "disk").train_dataloader()
    assert store.folder.stat().st_mode & 0o077 == 0


def test_so_are_they_where_the_first_cannot_be_prepared(tmp_path: Path, store: Store) -> None:
    make_task(tmp_path / "T", "organ", volumes(2))
    case = Case("a", "a", (tmp_path / "T/images/case_0.nii",), (LabelFile(tmp_path / "T/labels/none.nii"),))
    with pytest.raises((DataError, OSError)):
        OnDisk([case], LoadPair(CT, Classes.of_organ([1]), 9), store, lambda _: None)
    assert store.folder.stat().st_mode & 0o077 == 0


def test_a_file_that_cannot_be_opened_just_now_stays(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of(make_task(tmp_path / "T", "organ"), "disk")
    data.train_dataloader()

    def full(*_: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Path, "open", full)
    for path in store.entries():
        with pytest.raises(OSError, match="Too many open files"):
            store.read(path)
    monkeypatch.undo()
    assert all(store.read(path) for path in store.entries())


def test_it_can_go_to_another_process(tmp_path: Path, store: Store) -> None:
    data = data_of(make_task(tmp_path / "T", "organ"), "disk")
    data.train_dataloader()
    there = pickle.loads(pickle.dumps(data.training_cache("T")))
    for path in store.entries():
        path.unlink()
    assert bits(there[0]["image"]) == bits(data.training_cache("T")[0]["image"])


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_an_error_while_loading_gives_the_terminal_back(where: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100)
    monkeypatch.setattr(progress, "terminal", lambda stderr: console)
    caches = Caches({("T", "train"): ([], LoadPair(MR, Classes({"one": frozenset({1})}), 9))}, where)
    caches._line.total = 2

    def broken(cases: Any, load: Any, *rest: Any) -> Any:
        rest[-1]()
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "InMemory" if where == "memory" else "OnDisk", broken)
    with pytest.raises(KeyboardInterrupt):
        _ = caches["T", "train"]
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert stream.getvalue().count(hidden) == stream.getvalue().count(shown) == 1
