"""The dashboard as code: its description, the workspace it becomes, and how it is published."""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
import yaml

from medmtl.cli import main
from medmtl.errors import ConfigError, RunError
from medmtl.experiment.dashboard import publish, to_workspace
from medmtl.experiment.panels import Dashboard, describe, describe_experiment
from medmtl.experiment.plan.labels import describe_keys

TASKS = ["Liver", "Kidney"]
OF_ARMS = {"compare/pairs", "compare/forest-dice"}  # what only an experiment has
NAMES = ["--entity", "clinic", "--project", "organs"]


class Server:
    """What stands in for W&B: it keeps saved views by name, and answers the library's two questions."""

    app_url = "https://wandb.example"

    def __init__(self) -> None:
        self.views: dict[str, dict[str, str]] = {}
        self.refuses = False

    def execute_graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if self.refuses:
            raise ConnectionError("connection\nrefused")
        if "upsertView" in query:
            view = {"id": variables.get("id", f"view{len(self.views)}"), "name": variables["name"]}
            self.views[view["name"]] = {**view, "displayName": variables["displayName"], "spec": variables["spec"]}
            return {"upsertView": {"view": view, "inserted": "id" not in variables}}
        found = [view for name, view in self.views.items() if name == variables["viewName"]]
        return {"project": {"allViews": {"edges": [{"node": view} for view in found]}}}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    pytest.importorskip("wandb_workspaces")
    server = Server()
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb, "login", lambda **_: True)
    monkeypatch.setattr(wandb, "Api", lambda: SimpleNamespace(_service_api=server))
    return server


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`experiment(tags, ...)` writes a dedicated run and a multi-task run with each list of tags."""
    monkeypatch.chdir(tmp_path)

    def write(*marks: list[str]) -> Path:
        folder = Path("runs/study")
        for number, tags in enumerate(marks or [["seed0"]]):
            for name, tasks in (("dedicated-Liver", TASKS[:1]), ("multitask", TASKS)):
                config = {
                    "data": {"tasks": {task: {"root": task} for task in tasks}},
                    "wandb": {"group": "study", "job_type": name.partition("-")[0], "tags": [*tasks[:1], *tags]},
                }
                path = folder / "configs" / f"{name}-{number}.yaml"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(yaml.safe_dump(config, sort_keys=False))
        return folder

    return write


def spec_of(workspace: Any) -> dict[str, Any]:
    section: dict[str, Any] = workspace._to_model().spec.model_dump(by_alias=True)["section"]
    return section


def keys_of(section: dict[str, Any]) -> set[str]:
    configs = [panel["config"] for part in section["panelBankConfig"]["sections"] for panel in part["panels"]]
    shown = {key for config in configs for key in [*config.get("metrics", []), *config.get("mediaKeys", [])]}
    weave = [config["panel2Config"] for config in configs if "panel2Config" in config]
    return shown | {name for panel in weave for name in tables_of(panel)}


def tables_of(node: Any) -> set[str]:
    """The tables that a panel of W&B's picks from the runs' summaries."""
    if isinstance(node, list):
        return {name for each in node for name in tables_of(each)}
    if not isinstance(node, dict):
        return set()
    key = node.get("inputs", {}).get("key", {}) if node.get("name") == "pick" else {}
    return ({key["val"]} if "val" in key else set()) | {name for each in node.values() for name in tables_of(each)}


def test_every_task_and_the_mean_have_accuracy_and_calibration() -> None:
    expected = {f"test/{row}/{metric}" for row in [*TASKS, "mean"] for metric in ("dice", "ace_band", "ece_band")}
    expected |= {"train/loss", "val/mean/dice", "test/reliability-band", "val/reliability_band"}
    expected |= {"test/mean/ace_band_scaled", "test/mean/ece_band_scaled", "test/cases", "test/roc"}
    expected |= {f"test/ood/verdict/{key}" for key in ("auroc", "false_alarm_rate", "detection_rate")}
    assert describe("clinic", "organs", TASKS).keys == expected
    assert describe("clinic", "organs", TASKS, "study").keys == expected | OF_ARMS


def test_an_experiment_gives_tasks_and_group(experiment: Callable[..., Path]) -> None:
    dashboard = describe_experiment("clinic", "organs", experiment())
    assert dashboard.keys == describe("clinic", "organs", TASKS).keys | OF_ARMS
    assert dashboard.experiment == "study"
    assert dashboard.without_tags == ()


def test_arms_and_metrics_of_ones_own_are_in_the_dashboard(experiment: Callable[..., Path]) -> None:
    folder = experiment()
    (folder / "arms.json").write_text(json.dumps(describe_keys(["dedicated", "own_way"])))
    (folder / "compare").mkdir()
    metric = {"label": "sharpness in the band", "unit": "nats", "higher_is_better": True, "digits": 1}
    (folder / "compare/compare.json").write_text(json.dumps({"metrics": {"dice": metric, "sharpness_band": metric}}))
    dashboard = describe_experiment("clinic", "organs", folder)
    assert dashboard.name == "study: dedicated training, own_way"
    panels = {panel.keys[0]: panel.title for section in dashboard.sections for panel in section.panels}
    assert panels["test/Liver/sharpness_band"] == "Liver: sharpness in the band (nats)"
    assert panels["test/Liver/ece_band"] == "Liver: ECE in the band, lower is better"


@pytest.mark.parametrize("classes", [{"head": 1, "tail": 2}, ["head", "tail"], "all"])
def test_classes_of_a_task_with_several_are_in_the_dashboard_where_a_run_tells_them_apart(
    experiment: Callable[..., Path], classes: Any
) -> None:
    folder = experiment()
    (path,) = (folder / "configs").glob("multitask*")
    config = yaml.safe_load(path.read_text())
    config["data"]["tasks"]["Kidney"]["classes"] = classes
    config["data"]["tasks"]["Liver"]["classes"] = {"liver": 1}
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    if classes == "all":  # of which the names are known when the runs were compared
        (folder / "compare").mkdir()
        compared = {"metrics": {}, "classes": {"Kidney": {"head": {}, "tail": {}}}}
        (folder / "compare/compare.json").write_text(json.dumps(compared))
    found = describe_experiment("clinic", "organs", folder)
    by_class = {f"test/Kidney/{name}/dice" for name in ("head", "tail")}
    assert found.keys == describe("clinic", "organs", TASKS).keys | OF_ARMS | by_class
    config["model"] = {"outputs": "shared"}
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    assert describe_experiment("clinic", "organs", folder).keys == found.keys - by_class


def test_only_runs_with_the_most_training_cases_are_compared(experiment: Callable[..., Path]) -> None:
    sizes = [["2cases", "seed0"], ["16cases", "seed0"]]
    assert describe_experiment("clinic", "organs", experiment(*sizes)).without_tags == ("2cases",)
    every = describe_experiment("clinic", "organs", experiment(*sizes, ["seed0"]))
    assert every.without_tags == ("16cases", "2cases")


def test_a_folder_without_an_experiment_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"{tmp_path} holds no experiment"):
        describe_experiment("clinic", "organs", tmp_path)


@pytest.mark.parametrize("place", ["", "data", "data tasks", "data tasks Kidney", "data tasks Kidney classes", "model"])
@pytest.mark.parametrize("value", [7, "x", ["x"], [[1]], {"x": 7}, True])
def test_a_configuration_that_is_none_is_one_line(experiment: Callable[..., Path], place: str, value: Any) -> None:
    folder = experiment()
    (path,) = (folder / "configs").glob("multitask*")
    content: Any = {"": yaml.safe_load(path.read_text())}
    holder, key = content, ""
    for each in place.split():
        holder, key = holder[key], each
    holder[key] = value
    path.write_text(yaml.safe_dump(content[""]))
    with suppress(RunError):  # and no other error
        assert describe_experiment("clinic", "organs", folder).to_json()


def test_the_file_gives_the_same_workspace(experiment: Callable[..., Path]) -> None:
    workspaces = pytest.importorskip("wandb_workspaces.workspaces")
    dashboard = describe_experiment("clinic", "organs", experiment(["2cases"], []))
    again = Dashboard.from_json(dashboard.to_json())
    assert again == dashboard
    workspace = to_workspace(again)
    assert isinstance(workspace, workspaces.Workspace)
    spec = spec_of(workspace)
    assert keys_of(spec) == dashboard.keys
    (runs,) = spec["runSets"]
    assert [key["name"] for key in runs["grouping"]] == ["group", "jobType"]
    filters = {key["key"]["name"]: (key["op"], key["value"]) for key in runs["filters"]["filters"]}
    assert filters == {"group": ("=", "study"), "tags": ("NIN", ["2cases"])}


def test_arms_are_the_bars_and_optimizer_steps_the_axis() -> None:
    pytest.importorskip("wandb_workspaces")
    spec = spec_of(to_workspace(describe("clinic", "organs", TASKS)))
    panels = [panel for part in spec["panelBankConfig"]["sections"] for panel in part["panels"]]
    bars = [panel["config"] for panel in panels if panel["viewType"] == "Bar Chart"]
    curves = [panel["config"] for panel in panels if panel["viewType"] == "Run History Line Plot"]
    assert {config["groupBy"] for config in bars + curves} == {"jobType"}
    assert {config["groupAgg"] for config in bars + curves} == {"mean"}
    assert {config["xAxis"] for config in curves} == {"trainer/global_step"}


def test_a_view_is_created_then_updated_and_never_doubled(
    experiment: Callable[..., Path], server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = experiment()
    main(["dashboard", *NAMES, "--run", str(folder)])
    url = json.loads((folder / "dashboard.json").read_text())["url"]
    assert url.startswith("https://wandb.example/clinic/organs?nw=")
    assert f"dashboard: {url}" in capsys.readouterr().out
    (view,) = server.views.values()
    assert "study" in view["displayName"]
    assert keys_of(json.loads(view["spec"])["section"]) == describe("clinic", "organs", TASKS, "study").keys

    late = folder / "configs" / "dedicated-Heart.yaml"
    late.write_text(yaml.safe_dump({"data": {"tasks": {"Heart": {}}}, "wandb": {"group": "study", "tags": []}}))
    main(["dashboard", *NAMES, "--run", str(folder)])
    assert json.loads((folder / "dashboard.json").read_text())["url"] == url
    (updated,) = server.views.values()
    assert updated["id"] == view["id"]
    assert "test/Heart/dice" in keys_of(json.loads(updated["spec"])["section"])


def test_a_view_that_was_deleted_or_is_of_another_project_is_made_anew(
    experiment: Callable[..., Path], server: Server
) -> None:
    folder = experiment()
    main(["dashboard", *NAMES, "--run", str(folder)])
    (first,) = server.views
    server.views.clear()
    main(["dashboard", *NAMES, "--run", str(folder)])
    (second,) = server.views
    assert second != first
    main(["dashboard", "--entity", "clinic", "--project", "other", "--run", str(folder)])
    assert len(server.views) == 2


def test_a_server_that_fails_is_one_line(server: Server) -> None:
    server.refuses = True
    with pytest.raises(RunError, match=r"clinic/organs: W&B did not save the dashboard \(connection refused\)"):
        publish(describe("clinic", "organs", TASKS))


@pytest.mark.parametrize(
    ("mode", "reason"), [("offline", "WANDB_MODE is offline"), (None, "there is no API key")], ids=["offline", "no key"]
)
def test_without_a_server_the_description_is_written_and_how_to_publish_it(
    mode: str | None,
    reason: str,
    experiment: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(wandb, "login", lambda **_: False)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)  # the file needs no such library
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if mode is not None:
        monkeypatch.setenv("WANDB_MODE", mode)
    folder = experiment()
    main(["dashboard", *NAMES, "--run", str(folder)])
    written = Dashboard.from_json((folder / "dashboard.json").read_text())
    assert written == describe_experiment("clinic", "organs", folder)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert str(folder / "dashboard.json") in lines[0]
    assert reason in lines[0]
    assert "wandb sync --entity clinic --project organs runs/study/runs/*/wandb" in lines[1]
    assert "same command again" in lines[2]


def test_without_an_experiment_the_mean_over_tasks_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    main(["dashboard", *NAMES, "--output", "board.json"])
    assert Dashboard.from_json(Path("board.json").read_text()) == describe("clinic", "organs", [])
    main(["dashboard", *NAMES])
    assert Path("dashboard.json").read_text() == Path("board.json").read_text()


def test_a_missing_library_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "wandb_workspaces"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(ConfigError, match=r"-m pip install 'wandb-workspaces>="):
        publish(describe("clinic", "organs", TASKS))


def test_a_file_that_is_something_else_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    Path("dashboard.json").write_text('{"sections": 3}')
    with pytest.raises(SystemExit) as exit_:
        main(["dashboard", *NAMES])
    assert exit_.value.code == 2
    assert "dashboard.json is no description of a dashboard" in capsys.readouterr().err
    assert Path("dashboard.json").read_text() == '{"sections": 3}'
