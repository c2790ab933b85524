"""Record: what an exported folder says of itself, as JSON beside the weights; it is checked when it is read."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from medmtl.data.classes import Classes
from medmtl.data.known_task import KnownTask
from medmtl.data.preprocessing import Preprocessing
from medmtl.errors import RunError
from medmtl.exported import RECORD, Kind
from medmtl.typed import typed

SCHEMA = "medmtl.schema.json"
STATE = "state.npz"  # the tensors of the state
FORMAT = 1
AGAIN = "copy the folder again, or export the run again"


@dataclass(frozen=True)
class TaskRecord:
    """A task, as data for any program.

    Attributes:
        modality: CT, MR, PET or other.
        orientation: of the working space: axes towards right, anterior and superior.
        spacing: of the working space, mm along these axes.
        window: lower and upper Hounsfield unit, which become -1 and 1; None: the image is clipped to its percentiles
            0.5 and 99.5, and its mean and standard deviation become 0 and 1.
        head: the task whose output channels are read; None for a network with one output for all tasks.
        channels: of an image, those that are used, in their order.
        classes: class -> its label values, the one that masks have first; of an organ of interest, whose masks are 1,
            the label values of the data.
        organ: whether it is an organ of interest.
        phantom: `phantom:NAME` of digital phantoms; empty for patient data.
    """

    modality: str
    orientation: Literal["RAS"]
    spacing: tuple[float, float, float]
    window: tuple[float, float] | None
    head: str | None
    channels: tuple[int, ...]
    classes: dict[str, list[int]]
    organ: bool
    phantom: str

    def __post_init__(self) -> None:
        _check("spacing", self.spacing, min(self.spacing) > 0)
        _check("window", self.window, self.window is None or self.window[0] < self.window[1])
        _check("channels", self.channels, bool(self.channels) and min(self.channels) >= 0)

    @classmethod
    def of(cls, task: KnownTask) -> "TaskRecord":
        """The record of a task."""
        spacing, window, head = task.preprocessing
        lists = task.classes.lists
        if task.classes.merged:
            lists = {name: sorted(values) for name, values in task.classes.values.items()}
        return cls(task.modality, "RAS", spacing, window, head, task.channels, lists, task.classes.merged, task.root)

    @property
    def known(self) -> KnownTask:
        """The task that it describes."""
        values = [value for own in self.classes.values() for value in own]
        classes = Classes.of_organ(values) if self.organ else Classes.of_lists(self.classes)
        return KnownTask(
            self.modality, Preprocessing(self.spacing, self.window, self.head), classes, self.channels, self.phantom
        )


@dataclass(frozen=True)
class WindowsRecord:
    """How whole volumes are computed.

    Attributes:
        size: voxels a side.
        overlap: share of a window that the next one covers again; windows are blended with Gaussian weights.
        batch: windows computed together.
    """

    size: tuple[int, int, int]
    overlap: float
    batch: int

    def __post_init__(self) -> None:
        _check("size", self.size, min(self.size) >= 1)
        _check("overlap", self.overlap, 0 <= self.overlap < 1)
        _check("batch", self.batch, self.batch >= 1)


@dataclass(frozen=True)
class NetworkRecord:
    """The network of the folder.

    Attributes:
        file: its graph or weights, within the folder.
        builds: class and arguments of a network that is built and given the weights; None for a graph.
        channels: of the images that it takes.
        multiple: sides of a window must be multiples of it; None where the graph takes windows of the one size alone.
        outputs: names of a graph's outputs: `logits`, and a feature map for each of `layers`.
        layers: whose feature maps the verdict needs.
        logits: what the output channels stand for; those of a network that is built are made of its output by
            `state.heads` where there are several.
    """

    file: str
    builds: dict[str, Any] | None
    channels: int
    multiple: int | None
    outputs: list[str]
    layers: list[str]
    logits: list[str]

    def __post_init__(self) -> None:
        _check("channels", self.channels, self.channels >= 1)
        _check("multiple", self.multiple, self.multiple is None or self.multiple >= 1)
        if self.builds is None:
            _check("outputs", self.outputs, len(self.outputs) == 1 + len(self.layers))


@dataclass(frozen=True)
class VerdictRecord:
    """What the verdicts promise.

    Attributes:
        alpha: share of in-distribution images that may be rejected.
        detector: class and options of the detector that was configured, which says what evidence is needed.
        name: of the detector that was fitted; None without one.
        threshold: of its score; None where no image can be rejected.
        mask_threshold: of the disagreement with the mask of the mirrored image; None where none can be rejected.
        promise: of which images at most a share of alpha is rejected; None without a detector.
    """

    alpha: float
    detector: dict[str, Any]
    name: str | None
    threshold: float | None
    mask_threshold: float | None
    promise: str | None

    def __post_init__(self) -> None:
        _check("alpha", self.alpha, 0 < self.alpha < 1)


@dataclass(frozen=True)
class Record:
    """What an exported folder says of itself.

    Attributes:
        format: version of this record.
        kind: what the folder was exported to.
        name: of the run.
        checkpoint: SHA-256 of the checkpoint that was exported.
        versions: of the packages that exported it.
        files: each file of the folder -> its SHA-256.
        network: the network.
        windows: how whole volumes are computed.
        tasks: the tasks that it was trained on, by name.
        verdict: what the verdicts promise.
        state: what was fitted, as a tree of text and numbers; `{"$tensor": KEY}` is an array of `state.npz`.
    """

    format: int
    kind: Kind
    name: str
    checkpoint: str
    versions: dict[str, str]
    files: dict[str, str]
    network: NetworkRecord
    windows: WindowsRecord
    tasks: dict[str, TaskRecord]
    verdict: VerdictRecord
    state: dict[str, Any]

    @property
    def content(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return plain

    @property
    def digest(self) -> str:
        """SHA-256 of it, and so of all files of the folder."""
        text = json.dumps(self.content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def text(self) -> str:
        """The file."""
        return json.dumps({"digest": self.digest, **self.content}, indent=1, allow_nan=False) + "\n"


def _check(key: str, value: Any, fits: bool) -> None:
    if not fits:
        raise ValueError(f"{key} cannot be {value!r:.80}")


def read_record(folder: Path) -> Record:
    """Read and check the record of an exported folder.

    Raises:
        RunError: it is damaged, of a later version, or has been changed.
    """
    path = folder / RECORD
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
        if not isinstance(content, dict):
            raise ValueError("no object")
        if content.get("format") != FORMAT:
            raise RunError(f"{path} is of format {content.get('format')!r:.20}", fix="use the medmtl that wrote it")
        digest = content.pop("digest", None)
        record = typed(Record, content, RECORD)
        found = record.digest
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} is no record of an exported folder ({error})", fix=AGAIN) from None
    if digest != found:
        raise RunError(f"{path} is not what was written", fix=AGAIN)
    return record


def checked_file(folder: Path, record: Record, name: str) -> Path:
    """A file of an exported folder that is about to be read.

    Raises:
        RunError: it is missing, leads out of the folder, or is not what was written.
    """
    relative = PurePosixPath(name)
    path = folder / relative
    home, place = (os.path.realpath(each) for each in (folder, path))  # `Path.resolve` raises for links in a circle
    if relative.is_absolute() or ".." in relative.parts or not Path(place).is_relative_to(home):
        raise RunError(f"{folder / RECORD} names a file outside the folder ({name!r:.80})", fix=AGAIN)
    if not path.is_file():
        raise RunError(f"{folder} lacks {name}", fix=AGAIN)
    if record.files.get(name) != file_digest(path):
        raise RunError(f"{path} is not what was written", fix=AGAIN)
    return path


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def heads_of(tasks: Mapping[str, KnownTask]) -> dict[str, Classes] | None:
    """Task -> the classes that it has outputs for; None where all tasks share one output."""
    if all(task.preprocessing.head is None for task in tasks.values()):
        return None
    return {name: task.classes for name, task in tasks.items()}
