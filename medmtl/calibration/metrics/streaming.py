"""Calibration of a stream of images as torchmetrics metrics: states of constant size, summed over processes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from medmtl.calibration.metrics.bins import (
    Bins,
    BinTable,
    bin_classes,
    bin_top_label,
    bin_true_class,
    bin_volume,
    edges,
)
from medmtl.calibration.metrics.definitions import ALL_METRICS, summarise
from medmtl.calibration.metrics.definitions import Metric as TableMetric
from medmtl.errors import ConfigError, DataError

Form = Literal["binary", "class_wise", "top_label", "true_class"]


class _Tables(Metric):
    """Tables accumulated over updates: counts int64, sums float64, summed over processes."""

    is_differentiable = False
    full_state_update = False
    count: Tensor
    positives: Tensor
    probability: Tensor
    squared_error: Tensor
    negative_log_likelihood: Tensor

    def __init__(self, bins: Bins, tables: int, scores: bool) -> None:
        super().__init__()
        self.bins = bins
        self.scores = scores
        sums = torch.zeros(tables, len(edges(bins)) - 1, dtype=torch.float64)
        self.add_state("count", sums.long(), dist_reduce_fx="sum")
        self.add_state("positives", sums.long(), dist_reduce_fx="sum")
        self.add_state("probability", sums, dist_reduce_fx="sum")
        self.add_state("squared_error", sums[:, 0], dist_reduce_fx="sum")
        self.add_state("negative_log_likelihood", sums[:, 0], dist_reduce_fx="sum")

    def _add(self, tables: Sequence[BinTable]) -> None:
        # Not in place: tables that `compute` gave share these tensors.
        for name in ("count", "positives", "probability"):
            state = getattr(self, name)
            setattr(self, name, state + torch.stack([getattr(table, name) for table in tables]).to(state.device))
        for name in ("squared_error", "negative_log_likelihood"):
            setattr(self, name, getattr(self, name) + self._column([getattr(table, name) for table in tables]))

    def _column(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=self.count.device)

    def _tables(self) -> list[BinTable]:
        return [
            BinTable(count, positives, probability, squared_error.item(), negative_log_likelihood.item())
            for count, positives, probability, squared_error, negative_log_likelihood in zip(
                self.count.cpu(),
                self.positives.cpu(),
                self.probability.cpu(),
                self.squared_error,
                self.negative_log_likelihood,
                strict=True,
            )
        ]


class CalibrationBins(_Tables):
    """Reliability bins accumulated over volumes and processes, in constant memory.

    Args:
        bins: equal bins of probability, or their edges; see `edges`.
        scores: also accumulate the sums for Brier score and NLL.

    Example:
        >>> bins = CalibrationBins(bins=2)
        >>> bins.update(torch.tensor([0.1, 0.9]), torch.tensor([0, 1]))
        >>> bins.update(torch.tensor([0.8]), torch.tensor([0]))
        >>> bins.compute().count.tolist()
        [1, 2]
    """

    def __init__(self, bins: Bins = 15, scores: bool = True) -> None:
        super().__init__(bins, tables=1, scores=scores)

    def update(self, probability: Tensor, label: Tensor, region: Tensor | None = None) -> None:
        """Add the voxels of a volume; arguments as for `bin_volume`."""
        self._add([bin_volume(probability, label, region, self.bins, self.scores)])

    def compute(self) -> BinTable:
        """The table of all voxels so far, on the CPU."""
        return self._tables()[0]

    def _wrap_compute(self, compute: Callable[[], BinTable]) -> Callable[[], BinTable]:
        # torchmetrics squeezes the tensors of a result in place, which a frozen table refuses: hide it in a function.
        def hidden() -> Callable[[], BinTable]:
            table = compute()
            return lambda: table

        wrapped = super()._wrap_compute(hidden)
        return lambda: wrapped()()


class CalibrationMetrics(_Tables):
    """Calibration metrics of a stream of images, pooled and per case, in constant memory.

    Pooled (micro): all voxels of all images are in one table. Per case (macro): each image has its own table, and
    the metric is the mean over the images that have one, those with voxels in the region. The two differ by a factor of
    10 and more in segmentation.

    Args:
        form: what is binned. "binary": the probability of foreground. "class_wise": each class against the rest;
            figures are means over classes, so that ECE is the static calibration error of Nixon et al. (2019).
            "top_label": the largest class probability. "true_class": the probability of the true class, whose NLL is
            the multi-class one.
        classes: number of classes, with "class_wise" only.
        metrics: name -> function of a table, such as those of `ALL_METRICS`.
        bins: equal bins of probability, or their edges; see `edges`. `{"adaptive_ece": adaptive_ece}` with
            `fine_edges()` gives adaptive ECE.
        scores: also accumulate the sums for Brier score and NLL.

    Raises:
        ConfigError: `classes` is missing with "class_wise", or given with another form.

    Example:
        >>> metrics = CalibrationMetrics(bins=2)
        >>> probability = torch.tensor([[[0.1, 0.9]], [[0.2, 0.8]]])  # (B, C, *spatial)
        >>> metrics.update(probability, label=torch.tensor([[0, 1], [0, 0]]))
        >>> computed = metrics.compute()
        >>> round(computed["ece"].item(), 4), round(computed["ece_per_case"].item(), 4)
        (0.25, 0.3)
    """

    value: Tensor
    defined: Tensor

    def __init__(
        self,
        form: Form = "binary",
        classes: int | None = None,
        metrics: Mapping[str, TableMetric] = ALL_METRICS,
        bins: Bins = 15,
        scores: bool = True,
    ) -> None:
        if (classes is None) == (form == "class_wise"):
            raise ConfigError(f"form {form} with classes={classes}", fix="give classes with class_wise, and only there")
        super().__init__(bins, tables=classes or 1, scores=scores)
        self.form = form
        self.metrics = dict(metrics)
        values = torch.zeros(classes or 1, len(self.metrics), dtype=torch.float64)
        self.add_state("value", values, dist_reduce_fx="sum")
        self.add_state("defined", values.long(), dist_reduce_fx="sum")

    def update(self, probability: Tensor, label: Tensor, region: Tensor | None = None) -> None:
        """Add a batch of images, each a case.

        Args:
            probability: in [0, 1], `(B, C, *spatial)`; C is 1 for "binary".
            label: class numbers, `(B, 1, *spatial)` or `(B, *spatial)`; 0 and 1 for "binary".
            region: True for the voxels that count, bool, of the label's shape; None counts all.

        Raises:
            DataError: the number of classes or a shape does not match, or as for `bin_volume` and `bin_classes`.
        """
        expected = len(self.count) if self.form in ("binary", "class_wise") else probability.shape[1]
        if probability.shape[1] != expected:
            raise DataError(f"probabilities of {probability.shape[1]} classes, not {expected}", fix="give (B, C, ...)")
        for case, p in enumerate(probability.as_subclass(Tensor)):
            tables = self._bin(p, *(_plane(volume, case, probability) for volume in (label, region)))
            self._add(tables)
            values = self._values(tables)
            self.value = self.value + values.nan_to_num(0)
            self.defined = self.defined + ~values.isnan()

    def compute(self) -> dict[str, Tensor]:
        """`<metric>` pooled and `<metric>_per_case` for every metric; NaN without voxels.

        With "class_wise" also `<metric>_class_<c>` and `<metric>_class_<c>_per_case`, c from 0.
        """
        pooled = self._values(self._tables()).cpu()
        per_case = (self.value / self.defined).cpu()
        found: dict[str, Tensor] = {}
        for kind, values in (("", pooled), ("_per_case", per_case)):
            found |= {f"{name}{kind}": column.nanmean() for name, column in zip(self.metrics, values.T, strict=True)}
            if self.form == "class_wise":
                for number, row in enumerate(values):
                    named = zip(self.metrics, row, strict=True)
                    found |= {f"{name}_class_{number}{kind}": value for name, value in named}
        return found

    def _bin(self, probability: Tensor, label: Tensor | None, region: Tensor | None) -> list[BinTable]:
        assert label is not None
        if self.form == "binary":
            return [bin_volume(probability[0], label, region, self.bins, self.scores)]
        if self.form == "class_wise":
            return bin_classes(probability, label, region, self.bins, self.scores)
        one = bin_top_label if self.form == "top_label" else bin_true_class
        return [one(probability, label, region, self.bins, self.scores)]

    def _values(self, tables: Sequence[BinTable]) -> Tensor:
        """Metrics of the tables, `(tables, metrics)`."""
        values = np.array([list(summarise(table, self.metrics).values()) for table in tables])
        return torch.from_numpy(values).to(self.value)


def _plane(volume: Tensor | None, case: int, probability: Tensor) -> Tensor | None:
    """One image of a batch, without its channel."""
    if volume is None:
        return None
    return volume[case, 0] if volume.ndim == probability.ndim else volume[case]
