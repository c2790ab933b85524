"""However short a training is, its last step is validated, once."""

import logging
import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from medmtl.callbacks.last_validation import LastValidation
from medmtl.io.volume import opened
from medmtl.ood.detectors.gaussian import principal_axes


class Line(pl.LightningModule):
    """Notes after how many steps it was validated."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.validated = torch.nn.Linear(1, 1), []

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        return self.layer(batch).mean()

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        if index == 0:
            self.validated.append(self.global_step)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_steps": 1}, [1]),
        ({"max_steps": 4}, [4]),
        ({"max_steps": 7}, [4, 7]),
        ({"max_steps": 3, "val_check_interval": 2}, [2, 3]),
        ({"max_epochs": 2}, [4, 8]),
        ({"max_epochs": 3, "check_val_every_n_epoch": 2}, [8, 12]),
        ({"max_steps": 3, "accumulate_grad_batches": 2}, [2, 3]),
        ({"max_steps": 2, "limit_val_batches": 0}, []),
    ],
)
def test_the_last_step_is_validated_once(options: dict[str, Any], expected: list[int], tmp_path: Path) -> None:
    model, data = Line(), DataLoader(torch.ones(4, 1))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    quiet |= {"num_sanity_val_steps": 0, "enable_model_summary": False, "default_root_dir": tmp_path}
    trainer = pl.Trainer(**quiet, **options, callbacks=[LastValidation()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, data, data)
    assert model.validated == expected
    assert trainer.global_step == options.get("max_steps", trainer.global_step)


def test_libraries_say_nothing_in_words_of_their_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image = nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4))
    image.header["pixdim"][1:4] = 0
    (tmp_path / "scan.nii").write_bytes(image.to_bytes())
    logging.getLogger("nibabel.global").handlers[0].flush()
    with opened(tmp_path / "scan.nii") as stored:
        assert stored.shape == (4, 4, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        axes, origin = principal_axes(torch.ones(3, 5, dtype=torch.float64), 0.95)
    assert axes.isfinite().all()
    assert origin.tolist() == [1] * 5
    assert capfd.readouterr() == ("", "")
