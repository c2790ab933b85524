"""The images of a benchmark: training, calibration, in-distribution, far, near and shifted ones."""

import os
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from string import Template

from medmtl.data.case import Case, patient_of
from medmtl.data.check import check_cases, check_image
from medmtl.data.datamodule import MultiTaskData
from medmtl.data.preprocessing import Preprocessing
from medmtl.data.task import OODImages, Task
from medmtl.data.task_cases import TaskCases, ood_cases, task_cases
from medmtl.ood.shifts import Shift
from medmtl.ood_benchmark.options import ALL, Options, OtherImages


@dataclass(frozen=True)
class Image:
    """An image, as it is or shifted.

    Attributes:
        group: `training`, `calibration`, `in_distribution`, `far`, `near`, `covariate`, `control` or `nonsense`.
        condition: the task, the folder, or the shift.
        case: the image file, the patient, and the label if there is one.
        preprocessings: how it is prepared, once for each.
        task: the task whose organ it shows; empty for OOD images.
        own: the preprocessing of that task, under which it is segmented; None without a label.
        organ: label values of the organ of interest, or of all classes.
        ignore: label value of voxels whose truth is unknown.
        shift: the shift; None for an image as it is.
        severity: of the shift, 0 where it has no meaning.
    """

    group: str
    condition: str
    case: Case
    preprocessings: tuple[Preprocessing, ...]
    task: str = ""
    own: Preprocessing | None = None
    organ: tuple[int, ...] = ()
    ignore: int | None = None
    shift: Shift | None = field(default=None, compare=False)  # its name is the condition
    severity: int = 0

    def __str__(self) -> str:
        """For messages: where it comes from and its case."""
        return f"{self.condition}, case {self.case.name}"


def images_of(data: MultiTaskData, options: Options) -> tuple[list[Image], list[str]]:
    """All images of a benchmark, and in words what is left out.

    Training images have their own preprocessing alone, all others every preprocessing of the run, since their task is
    not given.

    Args:
        data: of the run, with its split.
        options: of the benchmark.

    Raises:
        DataError: there is no training image, or a file cannot be used.
    """
    images: list[Image] = []
    notes: list[str] = []
    preprocessings = tuple(data.preprocessings)
    for name, task in data.trained.items():
        labels = data.labels(name)
        parts = {"training": "train", "calibration": data.calibration_part, "in_distribution": "test"}
        for group, part in parts.items():
            cases = data.cases(name, part)
            check_cases(name, cases, labels.classes.foreground, labels.declared)
            views = (task.preprocessing,) if part == "train" else preprocessings
            images += [_labelled(group, name, case, views, name, task.preprocessing, labels) for case in cases]
    for name in data.held_out:
        images += [Image("far", name, case, preprocessings) for case in data.cases(name, "test")]
    ood = {name: OtherImages(found.root, found.channel, layout=found.layout) for name, found in data.ood.items()}
    for name, folder in {**ood, **options.far}.items():
        images += _others("far", name, folder, data, notes)
    for name, folder in options.near.items():
        group = "near" if folder.task is None or folder.task in data.trained else "far"
        found = _others(group, name, folder, data, notes)
        if found and group == "far":
            notes.append(f"{name} counts as far: the run was not trained on {folder.task}")
        images += found
    if options.near and not any(image.group == "near" for image in images):
        notes.append("there is no near image: the column is empty")
    return images + _shifted([image for image in images if image.group == "in_distribution"], options), notes


def _others(group: str, name: str, folder: OtherImages, data: MultiTaskData, notes: list[str]) -> list[Image]:
    """The images of a folder without those of the run's training and validation patients."""
    if name in data.trained:
        notes.append(f"{name} is left out: it is a task of the run")
        return []
    unset = [variable for variable in Template(folder.root).get_identifiers() if variable not in os.environ]
    if unset:
        notes.append(f"{name} is left out: {unset[0]} is not set")
        return []
    cases = ood_cases(name, OODImages(folder.root, folder.channel, folder.layout))
    task = data.trained.get(folder.task or "")
    found = None if task is None or folder.organ is None else _labels(name, folder, task)
    labels = {} if found is None else {case.name: case for case in found.cases}
    images = []
    for case in cases:
        patient = patient_of(name, case.name, folder.patient)
        if folder.patient is not None and data.part_of(patient) in ("train", "val", data.calibration_part):
            continue
        check_image(name, case)
        labelled = labels.get(case.name)
        if task is not None and found is not None and labelled is not None:
            case = replace(labelled, patient=patient)
            images.append(_labelled(group, name, case, data.preprocessings, folder.task, task.preprocessing, found))
        else:
            images.append(Image(group, name, replace(case, patient=patient), tuple(data.preprocessings)))
    if len(images) < len(cases):
        known = len(cases) - len(images)
        notes.append(f"{name}: {known} of {len(cases)} images are left out, whose patients the run was trained on")
    return images


def _labels(name: str, folder: OtherImages, task: Task) -> TaskCases:
    there = {key: getattr(folder, key) for key in ("root", "channel", "organ", "patient", "layout")}
    found = task_cases(name, replace(task, fold=None, classes=None, missing=None, mirror=None, **there))
    check_cases(name, found.cases, found.classes.foreground, found.declared)
    return found


def _labelled(
    group: str,
    condition: str,
    case: Case,
    preprocessings: Collection[Preprocessing],
    task: str | None,
    own: Preprocessing,
    labels: TaskCases,
) -> Image:
    organ = tuple(sorted(labels.classes.foreground))
    if case.name in labels.missing:  # of which no Dice can be measured
        case = replace(case, labels=())
    return Image(group, condition, case, tuple(preprocessings), task or "", own, organ, labels.ignore)


def _shifted(tested: list[Image], options: Options) -> list[Image]:
    """Some test cases of each task, shifted in every way.

    Raises:
        ConfigError: a shift needs a library that is not installed.
    """
    for shift in options.shifts_used:
        shift.check()
    chosen: list[Image] = []
    for task in dict.fromkeys(image.task for image in tested):
        of_task = [image for image in tested if image.task == task]
        chosen += of_task if options.cases == ALL else of_task[: options.cases]
    return [
        replace(image, group=shift.kind, condition=shift.name, shift=shift, severity=severity)
        for shift in options.shifts_used
        for severity in shift.severities
        if severity in (0, *options.severities)
        for image in chosen
    ]
