"""An exported folder as the parts that segment images and give verdicts, around a network that is given."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from medmtl.calibration.scaling.per_task import TaskScalings
from medmtl.errors import MedMTLError, RunError
from medmtl.export.record import AGAIN, STATE, Record, checked_file, heads_of
from medmtl.export.state import joined, read_arrays
from medmtl.models.outputs import Outputs
from medmtl.models.parts import Parts
from medmtl.models.sliding_window import VolumePredictor
from medmtl.models.task_heads import ChosenChannels, TaskHeads
from medmtl.ood.detector_options import detector_of
from medmtl.ood.mask_rule import MaskRule
from medmtl.ood.verdict import ConformalDetector

Made = TypeVar("Made")
OOD, MASKS, SCALING, HEADS = "ood", "masks", "scaling", "heads"  # parts of the state


def restore(folder: Path, record: Record, network: nn.Module) -> Parts:
    """The parts of an exported folder.

    Args:
        folder: the folder.
        record: its record.
        network: gives the features or logits that it was exported with, and has its layers.

    Raises:
        RunError: a file is missing or not what was written, or the state is none.
    """
    arrays = read_arrays(checked_file(folder, record, STATE))
    return _checked(folder, lambda: _restored(record, joined(record.state, arrays), network))


def _restored(record: Record, state: Mapping[str, Any], network: nn.Module) -> Parts:
    tasks = {name: task.known for name, task in record.tasks.items()}
    windows, verdict = record.windows, record.verdict
    predictor = VolumePredictor(network, windows.size, windows.overlap, windows.batch)
    heads = heads_of(tasks)
    if heads is not None:
        predictor.heads = _heads(record, Outputs.per_task(heads), state, network)
    detector = detector_of(verdict.detector)
    ood = state.get(OOD)
    return Parts(
        tasks=tasks,
        predictor=predictor,
        layers=record.network.layers,
        alpha=verdict.alpha,
        detector=detector,
        ood_detector=None if ood is None else ConformalDetector.from_state_dict(ood, detector, verdict.alpha),
        mask_rule=MaskRule.from_state_dict(state[MASKS], verdict.alpha) if MASKS in state else None,
        scalings=TaskScalings.from_state_dict(state[SCALING]) if SCALING in state else None,
    )


def _heads(record: Record, outputs: Outputs, state: Mapping[str, Any], network: nn.Module) -> TaskHeads:
    """The last layer: of a graph, which computes the logits of all channels, the choice among them."""
    if record.network.builds is None:
        return ChosenChannels(outputs)
    weights = state[HEADS]
    heads = TaskHeads(weights["last.weight"].shape[1], outputs)
    heads.load_state_dict({**weights, "_extra_state": record.network.logits})
    return heads.to(next(network.parameters()).device).eval()


def _checked(folder: Path, build: Callable[[], Made]) -> Made:
    """What `build` gives; whatever a state of unknown origin makes of it becomes one line."""
    try:
        return build()
    except MedMTLError as error:
        raise RunError(f"{folder}: {error.what}", fix=error.fix) from None
    except Exception as error:
        what = f"{folder} holds a state that cannot be used ({type(error).__name__}: {' '.join(str(error).split())})"
        raise RunError(what[:300], fix=AGAIN) from None
