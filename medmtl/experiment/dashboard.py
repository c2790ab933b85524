"""`medmtl dashboard`: the W&B workspace that compares the arms of an experiment, as code.

Its content is written to `dashboard.json`. Where a server can be reached it is saved there as a view; the file keeps
the view's address, so that the next call updates that view.
"""

import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from medmtl.errors import ConfigError, RunError
from medmtl.experiment.panels import Dashboard, Panel, describe, describe_experiment
from medmtl.extras import how_to_install
from medmtl.files import read_text, write_text
from medmtl.runs.folder import RUNS

FILE = "dashboard.json"
DEFAULT = RUNS / "experiment"


def to_workspace(dashboard: Dashboard) -> Any:
    """The dashboard as a `wandb_workspaces.workspaces.Workspace`, its runs grouped by experiment and arm.

    Raises:
        ConfigError: the library is not installed.
    """
    try:
        import wandb_workspaces.workspaces as ws
        from wandb_workspaces.reports import v2 as reports
    except ImportError:
        raise ConfigError("wandb-workspaces is not installed", fix=how_to_install("dashboard")) from None

    def panel(plain: Panel) -> Any:
        by_arm = {"groupby": "JobType", "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
        if plain.kind == "bars":
            return reports.BarPlot(title=plain.title, metrics=list(plain.keys), **by_arm)
        if plain.kind == "curves":
            return reports.LinePlot(title=plain.title, x="trainer/global_step", y=list(plain.keys), **by_arm)
        if plain.kind == "table":
            return reports.WeavePanelSummaryTable(table_name=plain.keys[0])
        return reports.MediaBrowser(title=plain.title, media_keys=list(plain.keys))

    shown = [] if dashboard.experiment is None else [ws.Metric("Group") == dashboard.experiment]
    if dashboard.without_tags:
        shown.append(ws.Tags().notin(list(dashboard.without_tags)))
    return ws.Workspace(
        entity=dashboard.entity,
        project=dashboard.project,
        name=re.sub(r"[^\w ,.:-]", "_", dashboard.name),  # the library refuses symbols
        sections=[
            ws.Section(name=section.name, panels=[panel(plain) for plain in section.panels], is_open=True)
            for section in dashboard.sections
        ],
        runset_settings=ws.RunsetSettings(
            filters=ws.And(*shown) if shown else "", groupby=[ws.Metric("Group"), ws.Metric("JobType")]
        ),
    )


def publish(dashboard: Dashboard) -> Dashboard:
    """Save the dashboard on the server: update the view at its address, or create one.

    Returns:
        The dashboard with the view's address.

    Raises:
        ConfigError: the library is not installed.
        RunError: the server refuses it, or cannot be reached.
    """
    workspace = to_workspace(dashboard)
    try:
        view = _saved(type(workspace), dashboard.url)
        if view is not None:
            for name in ("name", "sections", "runset_settings"):
                setattr(view, name, getattr(workspace, name))
        url = (view or workspace).save().url
    except Exception as error:  # wandb raises many kinds
        reason = " ".join(str(error).split())
        place = f"{dashboard.entity}/{dashboard.project}"
        raise RunError(
            f"{place}: W&B did not save the dashboard ({reason})", fix="check both names, and sync"
        ) from error
    return replace(dashboard, url=url)


def write_dashboard(entity: str, project: str, run: Path | None = None, output: Path | None = None) -> None:
    """Run `medmtl dashboard`.

    Args:
        entity: user or team of W&B.
        project: its project.
        run: the experiment; None: `DEFAULT`, or where there is none any runs of the project.
        output: file of the description; None: `FILE` in the experiment.

    Raises:
        MedMTLError: for what the user can correct.
    """
    folder = run or (DEFAULT if DEFAULT.is_dir() else None)
    file = output or (folder or Path()) / FILE
    dashboard = describe(entity, project, []) if folder is None else describe_experiment(entity, project, folder)
    dashboard = replace(dashboard, url=_published(file, dashboard))
    hindrance = _hindrance()
    if hindrance is None:
        dashboard = publish(dashboard)
    write_text(file, dashboard.to_json())
    if hindrance is None:
        sys.stdout.write(f"dashboard: {dashboard.url}\n")
        return
    runs = "runs/*/wandb" if folder is None else f"{folder}/runs/*/wandb"
    sys.stdout.write(
        f"dashboard: {file}, not published: {hindrance}\n"
        f"to publish it: wandb sync --entity {entity} --project {project} {runs}\n"
        "then run the same command again\n"
    )


def _saved(workspaces: Any, url: str | None) -> Any:
    """The view as it is on the server; None where there is none, or no longer."""
    if url is None:
        return None
    try:
        return workspaces.from_url(url)
    except ValueError:
        return None


def _published(file: Path, dashboard: Dashboard) -> str | None:
    """The address that an earlier call wrote, if it is of the same project."""
    if not file.is_file():
        return None
    try:
        earlier = Dashboard.from_json(read_text(file))
    except (OSError, RecursionError, ValueError):
        raise ConfigError(f"{file} is no description of a dashboard", fix="move it away") from None
    same = (earlier.entity, earlier.project) == (dashboard.entity, dashboard.project)
    return earlier.url if same else None


def _hindrance() -> str | None:
    """Why no server can be used, and what to do about it."""
    mode = os.environ.get("WANDB_MODE", "online")
    if mode != "online":
        return f"WANDB_MODE is {mode}; unset it"
    import wandb

    try:
        known = wandb.login(prompt=False, verify=False)
    except wandb.Error as error:
        return " ".join(str(error).split())
    return None if known else "there is no API key; give one to `wandb login`"
