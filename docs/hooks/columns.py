"""The page on columns and fields of the CSV and JSON files, from the records that are written."""

from collections.abc import Iterable

from signatures import Option, fields_of, table

from medmtl.accuracy import ACCURACY
from medmtl.calibration import ALL_METRICS
from medmtl.ood import detectors
from medmtl.predict.records import COLUMNS
from medmtl.quantity import Quantity
from medmtl.results.benchmark import Record
from medmtl.results.both_verdicts import BothVerdicts
from medmtl.results.case import CaseResult
from medmtl.results.dataset import CaseFacts, Finding
from medmtl.results.prediction import PredictedCase

SUMMARISED = {  # columns of `summary.csv` that are no fields of the record
    "verdict": "`in-distribution`, `out-of-distribution` or `undecided`.",
    "model": "name of the checkpoint.",
    "digest": "of the checkpoint.",
    "medmtl": "version that wrote it.",
    "error": "why the image could not be segmented; the other columns are empty then.",
}
COMPARED = {
    "cases": "training cases a task at most, or `all`.",
    "task": "the task, a class of it as `task/class`, or `mean`.",
    "arm": "the arm.",
    "a": "the later arm.",
    "b": "the earlier arm, which it is compared with.",
    "metric": "key of the metric, see the metrics of a test.",
    "mean": "over patients.",
    "difference": "mean over patients of a minus b.",
    "low": "lower end of the interval, by patient.",
    "high": "upper end of the interval.",
    "n": "patients.",
    "undefined": "cases without a value.",
    "p": "of Wilcoxon's signed-rank test, two-sided.",
    "p_holm": "p after Holm's correction over all tasks and pairs.",
    "smallest_p_holm": "the smallest that so few patients allow.",
    "rank_biserial": "effect size of the test, from -1 to 1.",
    "cohen_dz": "mean difference in standard deviations of the differences.",
    "verdict": "`better`, `worse`, `no evidence`, or `no evidence: n too small`.",
}
OF_AN_ARM = ("cases", "task", "arm", "metric", "mean", "low", "high", "n", "undefined")
OF_A_PAIR = (
    *("cases", "task", "a", "b", "metric", "difference", "low", "high", "n", "p", "p_holm", "smallest_p_holm"),
    *("rank_biserial", "cohen_dz", "verdict"),
)


def files() -> str:
    """Every column and field of the CSV and JSON files."""
    fields = {field.name: field for field in fields_of(PredictedCase)}
    summary = [fields.get(name) or Option(name, "", "", "", SUMMARISED.get(name, "")) for name in COLUMNS]
    metrics = [*ACCURACY.values(), *(metric.quantity for metric in ALL_METRICS.values())]
    scores = [*detectors.SCORES.values()]
    parts = [
        "# Files",
        "In CSV an empty cell is no value; in JSON it is `null`. The number `schema` counts changes of a JSON file.",
        "## Run: `metrics.csv`",
        "A row for each logged step. Columns are `STAGE/TASK/METRIC`, of a class `STAGE/TASK/CLASS/METRIC`, and "
        "`STAGE/mean/METRIC`, with the stages `train`, `val` and `test`. A metric of calibration is `KEY_REGION`, "
        "pooled over voxels, or `KEY_REGION_per_case`, the mean over cases; `KEY_REGION_scaled` is after scaling. A "
        "test adds `test/ood/SCORE/auroc` and `aupr_out` of each OOD score, `test/ood/verdict/auroc`, "
        "`false_alarm_rate` and `detection_rate`, and `test/DATASET/rejected_rate`, the share of its images that is "
        "rejected.",
        "## Test: metrics",
        "Keys in `metrics.csv`, `report.json`, `cases.csv` and `compare.json`.",
        _quantities(metrics),
        "## Test: `report/cases.csv`",
        "A row for each case. Of a metric of calibration the columns are `KEY_REGION` and `KEY_REGION_scaled`; each "
        "OOD score has a column of its own, see [OOD scores](#ood-scores), and so has a metric of accuracy of each "
        "class, `CLASS/KEY`. Bins are in `report/bins.json`.",
        table(field for field in fields_of(CaseResult) if not field.type.startswith("Mapping")),
        "## Test: `report/report.json`",
        "`metrics` describes all that was measured (label, unit, direction, digits); `tasks` has the figures of each "
        "task, `mean` those over tasks, `data` licence, source, images and patients by part of the split, `scaling` "
        "the post-hoc scaling, `routing` which head was read, and `ood` detection, false alarms and masks. "
        "`calibration` pools voxels, `calibration_per_case` is the mean over cases, "
        "`calibration_scaled` is after scaling; `low` and `high` are the ends of an interval of 95 %.",
        "## Prediction: `NAME.json`",
        table(fields_of(PredictedCase)),
        "## Prediction: `summary.csv`",
        "A row for each image, those that could not be segmented first.",
        table(summary),
        "## Benchmark: `ood/ood.csv`",
        "A row for each detector and image. `ood/ood.json` has AUROC, AUPR and FPR95 by detector and column, ranks, "
        "verdicts and failure figures, with intervals.",
        table(fields_of(Record)),
        "## Benchmark: `ood/verdicts.csv`",
        "A row for each image.",
        table(fields_of(BothVerdicts)),
        "## OOD scores",
        "Keys in `cases.csv`, in `scores` of a prediction and in `ood.json`.",
        _quantities(scores),
        "## Experiment: `compare/compare.csv`",
        "A row for each arm, task and metric. `compare/compare.json` has the same, with arms and metrics described.",
        table(Option(name, "", "", "", COMPARED[name]) for name in OF_AN_ARM),
        "## Experiment: `compare/pairs.csv`",
        "A row for each pair of arms, task and metric.",
        table(Option(name, "", "", "", COMPARED[name]) for name in OF_A_PAIR),
        "## Data check: `check.json` and `check.csv`",
        "In CSV, channels, directions and label values have columns of their own, with their unit in the name. "
        "`too_few_patients` of JSON is a sentence where verdicts will be undecided.",
        table(fields_of(CaseFacts)),
        "A finding:",
        table(fields_of(Finding)),
    ]
    return "\n\n".join(parts) + "\n"


def _quantities(quantities: Iterable[Quantity]) -> str:
    rows = ["| key | what | unit | better |", "|---|---|---|---|"]
    for each in quantities:
        better = {True: "higher", False: "lower", None: ""}[each.higher_is_better]
        rows.append(f"| `{each.key}` | {each.label} | {each.unit} | {better} |")
    return "\n".join(dict.fromkeys(rows))
