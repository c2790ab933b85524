"""Loss and evaluation compute in 32 bit where the trainer computes in 16."""

import pytest
import torch
from monai.losses import DiceCELoss
from torch import nn

from medmtl.models.precision import single_precision
from medmtl.models.segmenter import Segmenter


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
