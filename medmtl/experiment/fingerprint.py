"""What a training run depends on, as one number: its resolved configuration, its data and what it starts from."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError
from pytorch_lightning.cli import LightningArgumentParser

from medmtl.data.datamodule import MultiTaskData
from medmtl.data.task import Case
from medmtl.errors import ConfigError
from medmtl.files import write_text
from medmtl.request import SECTIONS

# Where data lie, who draws the patches and what mirrors the figures change no result.
WITHOUT_EFFECT = {"data": ("splits", "workers", "seed"), "trainer": ("enable_progress_bar", "logger")}


def resolve(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check a configuration, and fill in the defaults of its data, model, calibration and signatures.

    Args:
        config: as in a configuration file.

    Returns:
        The same sections with every value, the others as they are.

    Raises:
        ConfigError: a key or value is wrong.
    """
    parser = _parser()
    given = deepcopy({key: value for key, value in config.items() if key in SECTIONS})  # the parser changes it
    try:
        parsed = parser.parse_object(given)
        filled = yaml.safe_load(parser.dump(parsed, skip_none=False))
    except (ArgumentError, TypeError) as error:
        raise ConfigError(" ".join(str(error).split())) from None
    return {**config, **{section: filled[section] for section in SECTIONS}}


def data_of(config: Mapping[str, Any]) -> MultiTaskData:
    """The data that a configuration names.

    Args:
        config: what `resolve` gave.
    """
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(MultiTaskData, "data")
    data: MultiTaskData = parser.instantiate_classes(parser.parse_object({"data": deepcopy(config["data"])})).data
    return data


def fingerprint(
    config: Mapping[str, Any],
    split: Mapping[str, Mapping[str, Iterable[str]]],
    files: Mapping[str, Mapping[str, str]],
    starts_from: str | None,
    tested: bool,
) -> str:
    """SHA-256 of all that decides a run's figures.

    Args:
        config: the resolved configuration.
        split: task -> part -> case ids, of the run's tasks.
        files: task or foreign folder -> case id -> digest of its image and label.
        starts_from: fingerprint of the run whose checkpoint it starts from.
        tested: whether it is tested after the training.

    Returns:
        64 hexadecimal digits.
    """
    kept: dict[str, Any] = {key: config.get(key) for key in (*SECTIONS, "trainer", "seed_everything")}
    for section, keys in WITHOUT_EFFECT.items():
        kept[section] = {key: value for key, value in (kept[section] or {}).items() if key not in keys}
    finetune = kept["model"].get("finetune")
    if finetune:
        kept["model"] = kept["model"] | {"finetune": finetune | {"checkpoint": None}}
    sources = {key: kept["data"].get(key) or {} for key in ("tasks", "foreign")}
    for key, entries in sources.items():
        kept["data"][key] = {name: {**entry, "root": None} for name, entry in entries.items()}
    facts = {
        "config": kept,
        "split": {task: split[task] for task in sources["tasks"]},
        "files": {name: files[name] for entries in sources.values() for name in entries},
        "starts_from": starts_from,
        "tested": tested,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class Digests:
    """SHA-256 of files, each read again only if its size or time of modification has changed.

    Args:
        path: JSON file that remembers them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, list[Any]] = json.loads(path.read_text()) if path.is_file() else {}

    def case(self, case: Case) -> str:
        """Digest of a case's image and label together, with the channel that is used."""
        digests = [self._file(path) for path in (case.image, case.label) if path is not None]
        return hashlib.sha256(":".join([*digests, str(case.channel)]).encode()).hexdigest()

    def save(self) -> None:
        """Remember the digests."""
        write_text(self.path, json.dumps(self._known, indent=0) + "\n")

    def _file(self, path: Path) -> str:
        state = path.stat()
        size, time, digest = self._known.get(str(path), (None, None, ""))
        if (size, time) != (state.st_size, state.st_mtime_ns):
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            self._known[str(path)] = [state.st_size, state.st_mtime_ns, digest]
        return str(digest)


def _parser() -> LightningArgumentParser:
    parser = LightningArgumentParser(exit_on_error=False)
    for section, owner in SECTIONS.items():
        parser.add_lightning_class_args(owner, section)
    parser.link_arguments("data.patch_size", "model.patch_size")
    return parser
