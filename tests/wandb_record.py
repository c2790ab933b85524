"""A reader of the record that wandb keeps of a run on disk, `run-<id>.wandb`.

The file is a log in LevelDB's format, of protobuf messages `Record` (wandb/proto/wandb_internal.proto): a header of 7
bytes, then blocks of 32 KiB counted from the start of the file. A block holds chunks, each with a header of CRC-32,
length and type, and a message is one chunk or is cut into a first, middle ones and a last. What is left of a block
that has no room for another header is zeros.
"""

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wandb
from wandb.proto import wandb_internal_pb2

FILE_HEADER = struct.Struct("<4sHB")  # ":W&B", magic number, version
CHUNK_HEADER = struct.Struct("<IHB")  # CRC-32 of type and data, bytes of data, type
MAGIC = (b":W&B", 0xBEE1, 0)
BLOCK = 32 * 1024
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class WandbRun:
    """What a run told W&B.

    Attributes:
        folder: the run's folder, `offline-run-...`.
        id: the run's id.
        started: when it began, in nanoseconds since 1970.
        group: its group.
        job_type: its job type.
        tags: its tags.
        config: its configuration.
        artifacts: what tables consist of: name -> file on disk.
        history: what was logged, a dict for each call; images are dicts that name files below `files/`.
    """

    folder: Path
    id: str = ""
    started: int = 0
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[dict[str, Path]] = field(default_factory=list)

    def values(self, key: str) -> list[Any]:
        """What was logged under a name, in order."""
        return [row[key] for row in self.history if key in row]

    def images(self, key: str) -> list[bytes]:
        """The images that were logged under a name, in order, from the run's own files."""
        return [
            (self.folder / "files" / name).read_bytes() for logged in self.values(key) for name in logged["filenames"]
        ]

    def tables(self, key: str) -> list[dict[str, Any]]:
        """The tables that were logged under a name: `columns` and `data`; a picture is the path of its file."""
        assert len(self.values(key)) == sum(f"{key}.table.json" in artifact for artifact in self.artifacts)
        found = []
        for artifact in self.artifacts:
            if f"{key}.table.json" in artifact:
                table = json.loads(artifact[f"{key}.table.json"].read_text())
                table["data"] = [[_file(value, artifact) for value in row] for row in table["data"]]
                found.append(table)
        return found


def read_runs(folder: Path) -> dict[str, WandbRun]:
    """The offline runs below `wandb` in a run folder: id -> run, oldest first."""
    wandb.teardown()  # another process writes the files, and may not be done when `wandb.finish` returns
    files = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    return {run.id: run for run in sorted(map(_read_run, files), key=lambda run: run.started)}


def _read_run(path: Path) -> WandbRun:
    run = WandbRun(path.parent)
    for message in read_messages(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(message)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.id, run.group, run.job_type = record.run.run_id, record.run.run_group, record.run.job_type
            run.started, run.tags = record.run.start_time.ToNanoseconds(), list(record.run.tags)
            run.config |= _items(record.run.config.update)
        elif kind == "config":
            run.config |= _items(record.config.update)
        elif kind == "artifact":
            run.artifacts.append({entry.path: Path(entry.local_path) for entry in record.artifact.manifest.contents})
        elif kind == "history":
            run.history.append(_items(record.history.item))
    return run


def read_messages(content: bytes) -> Iterator[bytes]:
    """The messages of a log, whole.

    Raises:
        ValueError: the file is no such log, a chunk is damaged, or a message is cut off.
    """
    if FILE_HEADER.unpack_from(content) != MAGIC:
        raise ValueError("not a record of W&B")
    place, parts = FILE_HEADER.size, None
    while place < len(content):
        left = BLOCK - place % BLOCK
        if left < CHUNK_HEADER.size:
            place += left
            continue
        checksum, length, kind = CHUNK_HEADER.unpack_from(content, place)
        data = content[place + CHUNK_HEADER.size : place + CHUNK_HEADER.size + length]
        if zlib.crc32(bytes([kind]) + data) != checksum:
            raise ValueError(f"the chunk at byte {place} is damaged")
        if (kind in (FULL, FIRST)) != (parts is None):
            raise ValueError(f"the chunk at byte {place} is out of order")
        parts = (parts or b"") + data
        if kind in (FULL, LAST):
            yield parts
            parts = None
        place += CHUNK_HEADER.size + length
    if parts is not None:
        raise ValueError("the last message is cut off")


def _file(value: Any, artifact: Mapping[str, Path]) -> Any:
    return artifact[value["path"]] if isinstance(value, dict) and value.get("_type") == "image-file" else value


def _items(items: Any) -> dict[str, Any]:
    """Keys and values, nested as they were logged."""
    result: dict[str, Any] = {}
    for item in items:
        *outer, last = item.nested_key or [item.key]
        inner = result
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = json.loads(item.value_json)
    return result
