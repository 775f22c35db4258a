"""Names that columns of logs have, in the order of preference."""

from __future__ import annotations

__all__ = ["COUNTS", "EPOCHS", "EVAL", "GRADIENT", "RATES", "STEPS", "TRAIN", "is_rate", "plain"]

STEPS = (
    "step", "global_step", "steps", "iter", "iters", "iteration", "iterations", "num_updates",
    "update", "updates", "train_step", "train/global_step", "trainer/global_step",
    "train/step", "optimizer_step", "current_steps", "current_step", "global_steps", "num_steps",
    "train_num_updates", "train_steps", "training_step", "iter_num", "step_num", "train/iteration",
    "it", "_step",
)  # fmt: skip
EPOCHS = ("epoch", "epochs", "train/epoch", "current_epoch", "epoch_num", "num_epochs")
COUNTS = {
    "steps": (),
    "samples": (
        "samples", "examples", "num_samples", "consumed_samples", "samples_seen",
        "train/consumed_samples",
    ),
    "tokens": (
        "tokens", "num_tokens", "consumed_tokens", "tokens_seen", "train_tokens", "total_tokens",
        "num_input_tokens_seen", "throughput/total_tokens", "train/num_input_tokens_seen",
    ),
    "epochs": EPOCHS,
}  # fmt: skip
RATES = (
    "lr", "learning_rate", "eta", "train/lr", "train/learning_rate", "optim/lr", "lr/group0",
    "learningrate", "optim/learning_rate_group0", "train_lr",
)  # fmt: skip
TRAIN = (
    "loss", "train_loss", "train/loss", "training_loss", "training/loss", "loss/train",
    "train_loss_step", "train/loss_step", "train/train_loss", "lm_loss", "train/ce_loss",
    "train/crossentropyloss", "total_loss", "loss/total", "train/total_loss", "nll_loss",
)  # fmt: skip
EVAL = (
    "val_loss", "eval_loss", "valid_loss", "validation_loss", "eval/loss", "val/loss", "valid/loss",
    "validation/loss", "loss/val", "loss/eval", "loss/validation", "test_loss", "test/loss",
    "dev_loss", "val_loss_epoch",
)  # fmt: skip
GRADIENT = (
    "gradient_norm", "grad_norm", "train/grad_norm", "gnorm", "grad_norm_total", "norm",
    "total_norm", "train/gradient_norm", "optim/total_grad_norm",
)  # fmt: skip


def plain(name: str) -> str:
    """A name in lower case, with "-", " " and "." as "_": so that names are compared."""
    return name.strip().lower().replace("-", "_").replace(" ", "_").replace(".", "_")


def is_rate(column: str) -> bool:
    """As ``optimizer/lr`` or, of Lightning's monitor, ``lr-AdamW``."""
    name = plain(column)
    return name.rpartition("/")[2] in ("lr", "learning_rate") or name.startswith(("lr_", "lr/"))
