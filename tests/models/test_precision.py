"""In how many bits a network computes in a training, and that loss and evaluation compute in 32."""

import pytest
import torch
from monai.losses import DiceCELoss
from torch import nn

from medmtl.models.precision import fastest_precision, single_precision
from medmtl.models.segmenter import Segmenter


@pytest.mark.parametrize(
    ("capable", "accelerator", "expected"),
    [
        ({"avx512_bf16": True}, "cpu", "bf16-mixed"),
        ({"avx512_bf16": True}, "auto", "bf16-mixed"),
        ({"avx512_bf16": False, "amx_bf16": True}, "cpu", "bf16-mixed"),
        ({"avx512_bf16": False, "avx512_f": True}, "cpu", "32-true"),
        ({}, "cpu", "32-true"),
        ({"avx512_bf16": True}, "gpu", "32-true"),
    ],
)
def test_only_a_processor_with_the_instructions_trains_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch, capable: dict[str, bool], accelerator: str, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capable, raising=False)
    assert fastest_precision(accelerator) == expected


def test_a_gpu_that_lightning_takes_trains_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert fastest_precision("auto") == "32-true"
    assert fastest_precision("cpu") == "bf16-mixed"


def test_the_loss_of_half_logits_is_that_of_the_same_numbers_in_32_bit() -> None:
    network = nn.Conv3d(1, 1, 3, padding=1)
    loss = DiceCELoss(sigmoid=True)
    module = Segmenter(network, (16, 16, 16), loss)
    image = torch.randn(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    label = (image > 1).to(torch.uint8)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        logits = network(image)
        found = module._loss(logits, {"label": label})
    assert logits.dtype == torch.bfloat16
    assert found.dtype == torch.float32
    expected = loss(logits.double(), label.double())
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_a_block_in_single_precision_computes_as_without_autocast() -> None:
    network, image = nn.Conv3d(1, 4, 3), torch.randn(1, 1, 8, 8, 8)
    expected = network(image)
    with torch.autocast("cpu", torch.bfloat16):
        with single_precision(image.device):
            assert torch.equal(network(image), expected)
        assert network(image).dtype == torch.bfloat16
