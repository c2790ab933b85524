"""What the data doctor looks at: the cases of a folder, or of all tasks of a configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from medmtl.data.case import patient_of
from medmtl.data.layouts.layout import Corpus, Layout
from medmtl.data.task import OODImages, Task, resolve_root
from medmtl.data.task_cases import recognise
from medmtl.errors import ConfigError
from medmtl.renamed import with_new_names


@dataclass(frozen=True)
class Dataset:
    """The cases of a folder, listed and not read.

    Attributes:
        name: the task or folder.
        configured_root: the root as it was given; `phantom:NAME` is a digital phantom.
        root: its folder.
        corpus: what the folder holds.
    """

    name: str
    configured_root: str
    root: Path
    corpus: Corpus

    @property
    def names(self) -> dict[int, str]:
        """Label value -> the organ that it alone stands for, where there is one, or what it is ignored as."""
        organs = {values[0]: organ for organ, values in self.corpus.organs.items() if len(values) == 1}
        return organs if self.corpus.ignore is None else {**organs, self.corpus.ignore: "truth unknown"}


def list_dataset(name: str, configured_root: str, layout: Layout | None = None, patient: str | None = None) -> Dataset:
    """The cases of a folder of any layout.

    Args:
        name: the task or folder.
        configured_root: the folder, as `Task.root`.
        layout: how files lie in it; None: recognised from the folder.
        patient: regular expression for the patient within a case name; None: what the dataset says.

    Raises:
        DataError: the folder does not exist, is of no layout, or is inconsistent.
        ConfigError: the pattern is not a regular expression, or is not found in a name.
    """
    root = resolve_root(name, configured_root)
    corpus = (layout or recognise(root)).read(name, root)
    if patient is not None:
        cases = (replace(case, patient=patient_of(name, case.name, patient)) for case in corpus.cases)
        corpus = replace(corpus, cases=tuple(cases))
    return Dataset(name, configured_root, root, corpus)


def list_folder(folder: Path, patient: str | None = None) -> Dataset:
    """The cases of a folder that a person names; arguments as of `list_dataset`."""
    return list_dataset(folder.resolve().name, str(folder).replace("$", "$$"), patient=patient)


def list_config(config: Path, patient: str | None = None) -> list[Dataset]:
    """The cases of all tasks and foreign folders of a configuration.

    Args:
        config: the file.
        patient: instead of each task's own pattern.

    Raises:
        DataError: see `list_dataset`.
        ConfigError: the configuration cannot be read, or names no task.
    """
    tasks, foreign = _blocks(config)
    datasets = [list_dataset(name, task.root, task.layout, patient or task.patient) for name, task in tasks.items()]
    return datasets + [list_dataset(name, folder.root, folder.layout) for name, folder in foreign.items()]


def _blocks(config: Path) -> tuple[Mapping[str, Task], Mapping[str, OODImages]]:
    """`data.tasks` and `data.ood`."""
    try:
        data: Any = with_new_names(yaml.safe_load(config.read_text()), str(config))["data"]
        given = {"tasks": data["tasks"], "ood": data.get("ood") or {}}
    except (KeyError, TypeError, AttributeError, yaml.YAMLError):
        raise ConfigError(f"{config} has no `data.tasks`", fix="give a configuration of `medmtl fit`") from None
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--tasks", type=dict[str, Task])
    parser.add_argument("--ood", type=dict[str, OODImages])
    try:
        built = parser.instantiate(parser.parse_object(given))
    except ArgumentError as error:
        raise ConfigError(f"{config}: {' '.join(str(error).split())}") from None
    return built.tasks, built.ood
