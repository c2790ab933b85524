"""The datasets of a data check: a folder, or all tasks and OOD images of a configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser

from medmtl.building import building
from medmtl.data.case import patient_of
from medmtl.data.layouts import LAYOUTS, Corpus, Layout, read_corpus, recognise
from medmtl.data.task import OODImages, Task, resolve_root
from medmtl.errors import ConfigError
from medmtl.files import parse_yaml, read_text, resolved
from medmtl.renamed import with_new_names


@dataclass(frozen=True)
class Dataset:
    """The cases of a folder, listed and not read.

    Attributes:
        name: the task or folder.
        configured_root: the root as it was given; `phantom:NAME` is a digital phantom.
        root: its folder.
        corpus: what the folder holds.
        layout: the layout that it was read by.
        recognised: whether the layout was recognised from the folder and not named.
        use: a task needs labels, OOD images need none, and a folder may be either.
    """

    name: str
    configured_root: str
    root: Path
    corpus: Corpus
    layout: Layout
    recognised: bool = True
    use: Literal["task", "ood", "folder"] = "folder"

    @property
    def names(self) -> dict[int, str]:
        """Label value -> the organ that it alone stands for, where there is one, or what it is ignored as."""
        organs = {values[0]: organ for organ, values in self.corpus.organs.items() if len(values) == 1}
        return organs if self.corpus.ignore is None else {**organs, self.corpus.ignore: "no ground truth"}


def list_dataset(name: str, configured_root: str, layout: Layout | None = None, patient: str | None = None) -> Dataset:
    """The cases of a folder of any layout.

    Args:
        name: the task or folder.
        configured_root: the folder, as `Task.root`.
        layout: how files lie in it; None: recognised from the folder.
        patient: regular expression for the patient within a case name; None: as the dataset declares.

    Raises:
        DataError: the folder does not exist, is of no layout, or is inconsistent.
        ConfigError: the pattern is not a regular expression, or is not found in a name.
    """
    root = resolve_root(name, configured_root)
    used = layout or recognise(root)
    corpus = read_corpus(name, root, used)
    if patient is not None:
        cases = (replace(case, patient=patient_of(name, case.name, patient)) for case in corpus.cases)
        corpus = replace(corpus, cases=tuple(cases))
    return Dataset(name, configured_root, root, corpus, used, layout is None)


def list_folder(folder: Path, layout: Layout | None = None, patient: str | None = None) -> Dataset:
    """The cases of a folder given on the command line; arguments as of `list_dataset`."""
    return list_dataset(resolved(folder).name, str(folder).replace("$", "$$"), layout, patient)


def parse_layout(text: str) -> Layout:
    """A layout as `--layout` gives it.

    Args:
        text: a class path or the name of one of `medmtl.data.layouts`, or YAML with `class_path` and `init_args`.

    Raises:
        ConfigError: it is not a layout, or takes no such arguments.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--layout", type=Layout)
    fix = (
        f"use one of {', '.join(each.__name__ for each in LAYOUTS)}, or "
        '\'{class_path: Folders, init_args: {images: "scans/{case}", labels: "masks/{case}"}}\''
    )
    with building(lambda reason: ConfigError(f"--layout {text} ({reason})", fix=fix)):
        layout: Layout = parser.instantiate(parser.parse_object({"layout": parse_yaml(text)})).layout
    return layout


def list_config(config: Path, patient: str | None = None) -> list[Dataset]:
    """The cases of all tasks and OOD images of a configuration.

    Args:
        config: the file.
        patient: instead of each task's own pattern.

    Raises:
        DataError: see `list_dataset`.
        ConfigError: the configuration cannot be read, or names no task.
    """
    tasks, ood = _blocks(config)
    datasets = [list_dataset(name, task.root, task.layout, patient or task.patient) for name, task in tasks.items()]
    return [replace(dataset, use="task") for dataset in datasets] + [
        replace(list_dataset(name, folder.root, folder.layout), use="ood") for name, folder in ood.items()
    ]


def _blocks(config: Path) -> tuple[Mapping[str, Task], Mapping[str, OODImages]]:
    """`data.tasks` and `data.ood`."""
    try:
        data: Any = with_new_names(parse_yaml(read_text(config)), str(config))["data"]
        given = {"tasks": data["tasks"], "ood": data.get("ood") or {}}
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ConfigError(f"{config} has no `data.tasks`", fix="give a configuration of `medmtl fit`") from None
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--tasks", type=dict[str, Task])
    parser.add_argument("--ood", type=dict[str, OODImages])
    with building(lambda reason: ConfigError(f"{config}: {reason}")):
        built = parser.instantiate(parser.parse_object(given))
    return built.tasks, built.ood
