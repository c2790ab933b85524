"""Pool: the mean of its members, whichever way it is taken, and held in one volume."""

import pytest
import torch

from medmtl.models.pool import Average, Pool

LOGITS = 4 * torch.randn(5, 6, 7, 8, generator=torch.Generator().manual_seed(0))


def pooled(logits: torch.Tensor, average: Average) -> torch.Tensor:
    pool = Pool(average)
    for member in logits:
        pool.add(member)
    return pool.probability()


@pytest.mark.parametrize("members", [1, 2, 5])
def test_probabilities_and_logits_are_averaged_as_in_float64(members: int) -> None:
    logits = LOGITS[:members].double()
    expected = {"probabilities": torch.sigmoid(logits).mean(0), "logits": torch.sigmoid(logits.mean(0))}
    found = {average: pooled(LOGITS[:members], average) for average in ("probabilities", "logits")}
    for average, probability in found.items():
        assert probability.dtype == torch.float32
        torch.testing.assert_close(probability.double(), expected[average], rtol=0, atol=1e-6)
    assert torch.equal(found["probabilities"], found["logits"]) == (members == 1)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_a_pool_of_one_is_its_member_and_leaves_it_as_it_was(average: Average) -> None:
    logits = LOGITS[0].clone()
    assert torch.equal(pooled(logits[None], average), torch.sigmoid(logits))
    pooled(torch.stack([logits, logits]), average)
    assert torch.equal(logits, LOGITS[0])


def test_averaged_logits_stay_apart_where_probabilities_are_1_in_float32() -> None:
    # sigmoid(40) and sigmoid(20) are both 1; the mean of 40 and -41 is not that of 20 and -41.
    for sure, expected in ((40.0, -0.5), (20.0, -10.5)):
        found = pooled(torch.tensor([[sure], [-41.0]]), "logits")
        torch.testing.assert_close(found, torch.sigmoid(torch.tensor([expected])))


def test_an_empty_pool_has_no_probability() -> None:
    with pytest.raises(ValueError, match="no member"):
        Pool("logits").probability()
