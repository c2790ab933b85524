"""Exported folders without a training: of a network with an output for each task, and of no OOD detector."""

import json
from pathlib import Path

from predict_sample import ALPHA, class_model

from medmtl.export.record import Record, file_digest
from medmtl.export.write import Source, write_network, write_record, write_state
from medmtl.exported import Kind
from medmtl.models.parts import Parts
from medmtl.ood.detectors import ByTask
from medmtl.typed import typed

TASKS = {
    "Parts": {"classes": {"middling": [4, 9], "bright": 2}},
    "Regions": {"classes": {"whole": [1, 2], "core": 2}},
    "Organ": {"organ": [3]},
}
NETWORK = {"class_path": "torch.nn.Conv3d", "init_args": {"in_channels": 1, "out_channels": 2, "kernel_size": 1}}


def source() -> Source:
    """What is exported."""
    model = class_model("per_task", **TASKS)
    parts = Parts(model.tasks, model.predictor, [], ALPHA, ByTask(), None, None, None)
    return Source(parts, "classes", "0" * 64, NETWORK, {"medmtl": "0"})


def export(folder: Path, given: Source, kind: Kind = "safetensors") -> Path:
    """Write a folder as `medmtl export` does, without card and licence."""
    folder.mkdir(parents=True)
    write_record(folder, write_state(folder, kind, given, write_network(folder, kind, given)))
    return folder


def change(folder: Path, **changes: object) -> None:
    """Change the record of a folder as a stranger can, who knows how its digest is made.

    Args:
        folder: the exported folder.
        changes: of the record's own entries; a dict is merged into the one that is there. The digests are those of the
            files as they are now.
    """
    content = json.loads((folder / "medmtl.json").read_text())
    content.pop("digest")
    for name, value in changes.items():
        content[name] = {**content[name], **value} if isinstance(value, dict) else value
    content["files"] = {name: file_digest(folder / name) for name in content["files"] if (folder / name).is_file()}
    (folder / "medmtl.json").write_text(typed(Record, content).text)
