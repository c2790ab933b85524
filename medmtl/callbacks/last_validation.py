"""A training ends with a validation, however short it is: the best checkpoint, table and threshold come from one."""

from typing import Any

import pytorch_lightning as pl


class LastValidation(pl.Callback):
    """Has Lightning validate after the last step, also in the middle of an epoch, where it would not."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """End the training after its last step, as an early stop does, which validates."""
        steps, epochs = trainer.max_steps, trainer.max_epochs
        last_step = 0 <= steps <= trainer.global_step
        last_epoch = epochs is not None and 0 <= epochs <= trainer.current_epoch + 1 and trainer.is_last_batch
        if last_step or last_epoch:
            trainer.should_stop = True
            trainer.check_val_every_n_epoch = 1
