"""Planning: all training runs of an experiment, refused here if their comparison could not show them."""

import re
from collections.abc import Iterable, Sequence

from medmtl.errors import ConfigError
from medmtl.experiment.plan.arms import Arm
from medmtl.experiment.plan.protocol import OTHERS
from medmtl.experiment.plan.setting import Planned, Setting


def plan(arms: Sequence[Arm], settings: Iterable[Setting]) -> list[Planned]:
    """All training runs of an experiment; a pre-training that several arms need is there once.

    Args:
        arms: what is compared.
        settings: one for each seed, fold and training-set size.

    Raises:
        ConfigError: the base has a single task, two tasks make the same file names, `pretrain_on` is none of them, or
            an arm plans runs that cannot be compared.
    """
    runs: dict[str, Planned] = {}
    for setting in settings:
        pretrain_on, tasks = setting.protocol.pretrain_on, setting.tasks
        if len(tasks) < 2:
            raise ConfigError(f"the base has one task ({tasks[0]})", fix="compare on two or more")
        if pretrain_on not in (OTHERS, *tasks):
            raise ConfigError(
                f"pretrain_on={pretrain_on}", fix=f"use {OTHERS}, or one of the tasks: {', '.join(tasks)}"
            )
        for arm in arms:
            own = list(arm.plan(setting))
            reason = hindrance(arm, setting, own)
            if reason is not None:
                raise ConfigError(f"arm {arm.key} {reason}", fix="correct its plan")
            for planned in own:
                if runs.setdefault(planned.name, planned) != planned:
                    raise ConfigError(f"two training runs are called {planned.name}", fix="rename a task or an arm")
    return list(runs.values())


def hindrance(arm: Arm, setting: Setting, runs: Sequence[Planned]) -> str | None:
    """Why the comparison could not show an arm's runs, as the end of a sentence; None if it can.

    Args:
        arm: the arm.
        setting: what it was planned for.
        runs: what it planned.
    """
    earlier: set[str] = set()
    for planned in runs:
        if not re.fullmatch(r"[\w+-][\w.+-]*", planned.name):
            return f"gives a run the name {planned.name!r}, which no file can have"
        if planned.needs is not None and planned.needs not in earlier:
            return f"starts {planned.name} from {planned.needs}, which it does not plan before that"
        earlier.add(planned.name)
    cells = [planned.cell for planned in runs if planned.cell is not None]
    if not cells:
        return "plans no run that is tested"
    expected = (arm.key, setting.experiment, setting.seed, setting.fold, setting.cases)
    for cell in cells:
        if (cell.arm, cell.experiment, cell.seed, cell.fold, cell.cases) != expected:
            return f"plans a run of another arm, experiment, seed, fold or size: {cell}"
    tested = [task for cell in cells for task in ([cell.task] if cell.task is not None else setting.tasks)]
    for task in tested:
        if task not in setting.tasks:
            return f"tests {task}, which is no task of the base"
        if tested.count(task) > 1:
            return f"tests task {task} in more than one run of one seed, fold and size"
    return None
