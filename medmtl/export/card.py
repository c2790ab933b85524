"""The card of a model (`MODEL_CARD.md`), written from its run, with the fields of Hugging Face and the Model Zoo."""

import re
from collections.abc import Mapping
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, TemplateError

from medmtl.errors import RunError
from medmtl.export.facts import RunFacts
from medmtl.export.options import Options
from medmtl.export.record import Record
from medmtl.models.channels import one_line
from medmtl.version import PAPER

CARD = "MODEL_CARD.md"
NOT_STATED = "not stated"
LOADED = {
    "bundle": "python -m monai.bundle run --config-file configs/inference.json --dataset-dir IMAGES --output-dir MASKS",
    "onnx": "medmtl predict --run {name} --input IMAGES --output MASKS",
    "program": "medmtl predict --run {name} --input IMAGES --output MASKS --trust",
    "safetensors": "medmtl predict --run {name} --input IMAGES --output MASKS",
}


def card(record: Record, facts: RunFacts, options: Options, folder: str) -> str:
    """The card, as Markdown with a YAML header.

    Args:
        record: of the exported folder.
        facts: of the run.
        options: of the command.
        folder: name of the exported folder.

    Raises:
        RunError: the report of the run's test is damaged.
    """
    environment = Environment(
        loader=PackageLoader("medmtl.export", ""), trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters |= {
        "cell": _cell,
        "number": _number,
        "interval": _interval,
        "percent": _percent,
        "plain": "{:g}".format,
    }
    try:
        header = yaml.safe_dump(_header(record, facts), sort_keys=False, allow_unicode=True)
        page = environment.get_template("card.md.j2").render(
            record=record,
            facts=facts,
            report=facts.report,
            authors=options.authors or NOT_STATED,
            licensed=options.license is not None,
            command=LOADED[record.kind].format(name=folder),
            paper=PAPER,
            phantoms=any(task.phantom for task in record.tasks.values()),
        )
    except (TemplateError, KeyError, TypeError, ValueError, AttributeError) as error:
        if not facts.report:
            raise
        why = f"report.json of run {record.name} lacks what a test measures ({one_line(error)})"
        raise RunError(why, fix="run `medmtl test` again") from None
    return f"---\n{header}---\n\n{page.strip()}\n"


def _header(record: Record, facts: RunFacts) -> dict[str, Any]:
    """What Hugging Face reads."""
    tested = facts.report.get("tasks", {})
    results = [
        {
            "task": {"type": "image-segmentation"},
            "dataset": {"type": name, "name": name},
            "metrics": [{"type": "dice", "name": "Dice", "value": round(own["dice"]["mean"], 4)}],
        }
        for name, own in tested.items()
        if own.get("dice", {}).get("mean") is not None
    ]
    return {
        "license": "other",
        "license_name": "see-license-file",
        "license_link": "LICENSE",
        "library_name": "monai" if record.kind == "bundle" else "medmtl",
        "pipeline_tag": "image-segmentation",
        "tags": ["medical-imaging", "segmentation", "3d", "multi-task", "calibration", "out-of-distribution-detection"],
        "metrics": ["dice"],
        "model-index": [{"name": record.name, "results": results}] if results else [],
    }


def _cell(value: Any) -> str:
    """Text within a line or a table, which becomes no markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", " ".join(str(value).split()))


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _interval(found: Mapping[str, Any] | None, percent: bool = False) -> str:
    if not found or found.get("low") is None:
        return "no interval"
    form = _percent if percent else _number
    return f"{form(found['low'])} to {form(found['high'])}"
