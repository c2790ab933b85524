"""CalibrationCallback: streams calibration bins of every volume, and logs and draws what they say."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch import Tensor

from medmtl.calibration.metrics.bins import BinTable, bin_volume
from medmtl.calibration.metrics.definitions import summarise
from medmtl.calibration.metrics.regions import REGIONS
from medmtl.distributed import gather
from medmtl.errors import ConfigError
from medmtl.files import written_whole
from medmtl.report.reliability import reliability_diagram
from medmtl.report.style import to_png
from medmtl.runs.wandb import show_figures


class CalibrationCallback(pl.Callback):
    """Calibration of the foreground probability on the images' own grid, per task.

    Logs `<stage>/<task>/<metric>_<region>` for ece, ace, mce, brier, nll and gap, pooled over the cases, and the same
    with `_per_case` for the mean over cases.

    Args:
        bins: equal bins of probability.
        regions: which voxels count, each measured by itself: whole (the volume), body (what is not air), box (the
            organ and 10 mm), band (the organ dilated by 5 mm), shell (5 mm on both sides of its surface), likely (the
            organ and p >= 0.05, which changes with the model and so is unfit for comparing models).

    Raises:
        ConfigError: a region has another name.
    """

    def __init__(self, bins: int = 15, regions: Sequence[str] = ("whole", "band")) -> None:
        for name in regions:
            if name not in REGIONS:
                raise ConfigError(f"calibration.regions: there is no {name}", fix=f"choose from {', '.join(REGIONS)}")
        self.bins = bins
        self.regions = regions
        self._tables: dict[int, tuple[str, dict[str, BinTable]]] = {}

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, index: int, *_: Any
    ) -> None:
        """Bin a validation volume, and leave its regions in `outputs["regions"]`."""
        self._add(outputs, batch, index)

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, index: int, *_: Any
    ) -> None:
        """Bin a test volume, and leave its regions and its tables in `outputs["regions"]` and `["calibration"]`."""
        self._add(outputs, batch, index)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the figures and draw the reliability diagrams."""
        self._log("val", trainer, pl_module)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the figures; the report draws the diagrams."""
        self._log("test", trainer, pl_module)

    def _add(self, outputs: dict[str, Any] | None, scan: Mapping[str, Any], index: int) -> None:
        if outputs is None or outputs["probability"] is None:
            return
        label, image, probability = scan["label"][0].as_tensor().bool(), scan["native"][0], outputs["probability"]
        spacing = scan["label"].pixdim.tolist()
        regions = {name: REGIONS[name](label, spacing, image, probability) for name in self.regions}
        outputs["regions"] = {name: where_known(region, scan) for name, region in regions.items()}
        outputs["calibration"] = {
            name: bin_volume(probability, label, region, self.bins) for name, region in outputs["regions"].items()
        }
        self._tables[index] = scan["dataset"], outputs["calibration"]

    def _log(self, stage: str, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        found: dict[str, dict[str, list[BinTable]]] = defaultdict(lambda: defaultdict(list))
        for task, regions in gather(self._tables):
            for region, table in regions.items():
                found[region][task].append(table)
        for region, by_task in found.items():
            figures = {task: _figures(tables, region) for task, tables in by_task.items()}
            for task, values in figures.items():
                pl_module.log_dict({f"{stage}/{task}/{key}": value for key, value in values.items()})
            for key in next(iter(figures.values())):
                pl_module.log(f"{stage}/mean/{key}", float(np.nanmean([values[key] for values in figures.values()])))
            if stage == "val" and trainer.is_global_zero:
                pooled = {task: sum(tables[1:], tables[0]) for task, tables in by_task.items()}
                self._draw(trainer, pooled, region)
        self._tables.clear()

    def _draw(self, trainer: pl.Trainer, pooled: Mapping[str, BinTable], region: str) -> None:
        path = Path(trainer.default_root_dir) / "figures" / f"val_reliability_{region}.png"
        with written_whole(path) as beside:
            beside.write_bytes(to_png(reliability_diagram(pooled, region), note=trainer.datamodule.note))  # type: ignore[attr-defined]
        show_figures(trainer, {f"val/reliability_{region}": path})


def where_known(region: Tensor, scan: Mapping[str, Any]) -> Tensor:
    """A region, bool `(H, W, D)`, without the voxels of a scan whose truth is unknown."""
    return region if scan["known"] is None else region & scan["known"][0].to(region.device)


def _figures(tables: list[BinTable], region: str) -> dict[str, float]:
    pooled = summarise(sum(tables[1:], tables[0]))
    cases = [summarise(table) for table in tables]
    result = {f"{metric}_{region}": value for metric, value in pooled.items()}
    for metric in pooled:
        values = [case[metric] for case in cases]
        result[f"{metric}_{region}_per_case"] = float("nan") if np.isnan(values).all() else float(np.nanmean(values))
    return result
