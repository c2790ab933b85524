"""CalibrationCallback: bins every volume for calibration, logs the metrics and draws reliability diagrams."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch import Tensor

from medmtl.accuracy import ACCURACY
from medmtl.calibration.metrics.bins import BinTable, bin_volume
from medmtl.calibration.metrics.definitions import BinMetric, metrics_with, summarise
from medmtl.calibration.metrics.regions import REGIONS
from medmtl.distributed import gather
from medmtl.errors import ConfigError
from medmtl.files import written_whole
from medmtl.models.class_volumes import ClassVolumes
from medmtl.models.scored import ScoredScan, Segmentation
from medmtl.ood.detectors import SCORES
from medmtl.report.reliability import reliability_diagram
from medmtl.report.style import to_png
from medmtl.runs.loggers import show_figures


@dataclass(frozen=True)
class MeasuredCase:
    """The calibration of one case of a task.

    Attributes:
        task: its task.
        calibration: region -> reliability bins.
        calibration_scaled: the same after scaling; empty without one.
        classes: class -> region -> bins of its probability against all else; empty with one class, and in validations.
        classes_scaled: the same after scaling; empty without one, and where classes overlap.
    """

    task: str
    calibration: Mapping[str, BinTable]
    calibration_scaled: Mapping[str, BinTable]
    classes: Mapping[str, Mapping[str, BinTable]] = field(default_factory=dict)
    classes_scaled: Mapping[str, Mapping[str, BinTable]] = field(default_factory=dict)


# Regions over which classes are measured; "band" is then the class and 5 mm around it.
CLASS_REGIONS = ("whole", "band")


class CalibrationCallback(pl.Callback):
    """Calibration of the foreground probability on the images' own grid, per task.

    Logs `<stage>/<task>/<metric>_<region>` for ece, ace, mce, brier, nll, gap, volume_ratio and `metrics`, pooled over
    the cases, and the same with `_per_case` for the mean over cases; a test also `<metric>_<region>_scaled`, the same
    after scaling.

    With several classes the foreground is all of them together. A test also logs `test/<task>/<class>/...`, of the
    probability of each class against all else, over whole and band (of the class) where `regions` has these, and as
    `<metric>_<region>_scaled` the same after scaling. Every class has to be interpolated to the image's grid for it,
    which takes too long for every validation.

    Args:
        bins: equal bins of probability.
        regions: which voxels count, each measured by itself: whole (the volume), body (what is not air), box (the
            organ and 10 mm), band (the organ dilated by 5 mm), shell (5 mm on both sides of its surface), likely (the
            organ and p >= 0.05, which changes with the model and so is unfit for comparing models).
        metrics: metrics of your own, reported in addition to the built-in ones.

    Raises:
        ConfigError: a region has another name, or the key of a metric is taken.
    """

    def __init__(
        self,
        bins: int = 15,
        regions: Sequence[str] = ("whole", "band"),
        metrics: list[BinMetric] | None = None,
    ) -> None:
        for name in regions:
            if name not in REGIONS:
                raise ConfigError(f"calibration.regions: there is no {name}", fix=f"choose from {', '.join(REGIONS)}")
        self.bins = bins
        self.regions = regions
        self.metrics = metrics_with(metrics or [])
        for key in self.metrics:
            if key in ACCURACY or key in SCORES:  # one mapping in report.json describes all three
                raise ConfigError(f"calibration.metrics: the key {key} is taken", fix="choose another key")
        self.measured: dict[int, MeasuredCase] = {}  # by number of the step, of this process

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop the bins of the last validation."""
        self.measured.clear()

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop the bins of an earlier test."""
        self.measured.clear()

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, index: int, *_: Any
    ) -> None:
        """Bin a validation volume."""
        self._add(outputs, batch, index)

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, index: int, *_: Any
    ) -> None:
        """Bin a test volume, before and after scaling, and by class."""
        self._add(outputs, batch, index, by_class=True)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics and draw the reliability diagrams."""
        self._log("val", trainer, pl_module)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics; the report draws the diagrams."""
        self._log("test", trainer, pl_module)

    def _add(self, found: ScoredScan | None, scan: Mapping[str, Any], index: int, by_class: bool = False) -> None:
        if found is None or found.segmentation is None:
            return
        own = found.segmentation
        before = self._bin(own, own.probability)
        after = {} if own.scaled is None else self._bin(own, own.scaled)
        both = (own.classes, own.scaled_classes) if by_class else (None, None)
        classes, scaled = (self._bin_classes(own, each) for each in both)
        self.measured[index] = MeasuredCase(scan["dataset"], before, after, classes, scaled)

    def _bin(self, segmentation: Segmentation, probability: Tensor) -> dict[str, BinTable]:
        return {
            name: bin_volume(probability, segmentation.label, segmentation.region(name), self.bins)
            for name in self.regions
        }

    def _bin_classes(self, segmentation: Segmentation, classes: ClassVolumes | None) -> dict[str, dict[str, BinTable]]:
        """Class -> region -> bins of its probability, for a task with several."""
        found: dict[str, dict[str, BinTable]] = {}
        for volume in classes or ():
            found[volume.name] = {}
            for name in (name for name in self.regions if name in CLASS_REGIONS):
                region = REGIONS[name](volume.label, segmentation.spacing_mm)
                if volume.known is not None:
                    region &= volume.known.to(region.device)
                found[volume.name][name] = bin_volume(volume.probability, volume.label, region, self.bins)
        return found

    def _log(self, stage: str, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        found: dict[str, dict[str, list[BinTable]]] = defaultdict(lambda: defaultdict(list))
        by_class: dict[str, dict[str, list[BinTable]]] = defaultdict(lambda: defaultdict(list))
        for case in gather(self.measured):
            for region, table in case.calibration.items():
                found[region][case.task].append(table)
            for region, table in case.calibration_scaled.items() if stage == "test" else ():
                found[f"{region}_scaled"][case.task].append(table)
            for after, classes in (("", case.classes), ("_scaled", case.classes_scaled)):
                for name, regions in classes.items():
                    for region, table in regions.items():
                        by_class[f"{region}{after}"][f"{case.task}/{name}"].append(table)
        for region, by_task in found.items():
            figures = {task: _figures(tables, region, self.metrics) for task, tables in by_task.items()}
            for task, values in figures.items():
                pl_module.log_dict({f"{stage}/{task}/{key}": value for key, value in values.items()})
            for key in next(iter(figures.values())):
                pl_module.log(f"{stage}/mean/{key}", float(np.nanmean([values[key] for values in figures.values()])))
            if stage == "val" and trainer.is_global_zero:
                pooled = {task: sum(tables[1:], tables[0]) for task, tables in by_task.items()}
                self._draw(trainer, pooled, region)
        for region, of_classes in by_class.items():
            for name, tables in of_classes.items():
                values = _figures(tables, region, self.metrics)
                pl_module.log_dict({f"{stage}/{name}/{key}": value for key, value in values.items()})

    def _draw(self, trainer: pl.Trainer, pooled: Mapping[str, BinTable], region: str) -> None:
        path = Path(trainer.default_root_dir) / "figures" / f"val_reliability_{region}.png"
        with written_whole(path) as beside:
            beside.write_bytes(to_png(reliability_diagram(pooled, region), note=trainer.datamodule.note))  # type: ignore[attr-defined]
        show_figures(trainer, {f"val/reliability_{region}": path})


def _figures(tables: list[BinTable], region: str, metrics: Mapping[str, BinMetric]) -> dict[str, float]:
    pooled = summarise(sum(tables[1:], tables[0]), metrics)
    cases = [summarise(table, metrics) for table in tables]
    result = {f"{metric}_{region}": value for metric, value in pooled.items()}
    for metric in pooled:
        values = [case[metric] for case in cases]
        result[f"{metric}_{region}_per_case"] = float("nan") if np.isnan(values).all() else float(np.nanmean(values))
    return result
