"""The optimizer of a training updates a CPU's weights in one pass, and computes what it did."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from medmtl.models.optimization import optimization


def trained(make: Any, fused: bool) -> list[torch.Tensor]:
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.rand(3, 4)), nn.Parameter(torch.rand(5))]
    optimizer = optimization(make, None, weights, lambda: 1) if fused else make(weights)
    for number in range(5):
        for each in weights:
            each.grad = torch.sin(number + each.detach() * 9)
        optimizer.step()
    return [each.detach() for each in weights]


@pytest.mark.parametrize(
    "make",
    [
        partial(torch.optim.AdamW, lr=0.1, weight_decay=0.1),
        partial(torch.optim.AdamW, lr=0.1, amsgrad=True),
        partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
        partial(torch.optim.RMSprop, lr=0.1),
    ],
)
def test_weights_are_updated_as_the_optimizer_does_one_by_one(make: Any) -> None:
    torch.testing.assert_close(trained(make, fused=True), trained(make, fused=False), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, True), ({"fused": False}, False), ({"foreach": True}, None), ({"differentiable": True}, None)],
)
def test_what_is_asked_for_stays(given: dict[str, Any], expected: bool | None) -> None:
    made = optimization(partial(torch.optim.Adam, lr=0.1, **given), None, [nn.Parameter(torch.rand(3))], lambda: 1)
    assert made.param_groups[0]["fused"] is expected
