"""In how many bits a network computes: 16 in a training where the processor has instructions for it, else 32."""

from typing import Literal

import torch

# Of a processor: instructions that multiply bfloat16 numbers. Without them a step takes some 12 times as long in
# bfloat16 as in single precision; with AVX-512's it takes 0.73 of that (tests/benchmarks/training.py).
BFLOAT16 = ("avx512_bf16", "amx_bf16")


def fastest_precision(accelerator: str) -> Literal["32-true", "bf16-mixed"]:
    """The precision in which to train, of those that Lightning names.

    Weights, loss, validation and test stay in single precision (`Segmenter`).

    Args:
        accelerator: as given to Lightning's trainer: `auto`, `cpu`, `gpu`, ...

    Returns:
        `bf16-mixed` on a CPU that has instructions for it. On other accelerators, where it was not measured, `32-true`.
    """
    others = torch.cuda.is_available() or torch.backends.mps.is_available()
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not others)
    capable: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # of newer versions of torch
    faster = on_cpu and any(capable.get(name) for name in BFLOAT16)
    return "bf16-mixed" if faster else "32-true"


def single_precision(device: torch.device) -> torch.autocast:
    """A block that computes in 32 bit where the trainer computes in 16."""
    return torch.autocast(device.type, enabled=False)
