"""Cache: an observation is read as it was written, under a key of the image, the shift and the network."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medmtl.data.case import Case, LabelFile
from medmtl.data.preprocessing import Preprocessing
from medmtl.ood.evidence.evidence import Evidence, LayerEvidence, View
from medmtl.ood.shifts import SHIFTS, Shift
from medmtl.ood_benchmark.cache import Cache, Observation
from medmtl.ood_benchmark.images import Image

PREPROCESSINGS = (Preprocessing((1, 1, 1), None), Preprocessing((4, 4, 4), (-160, 240)))


def observation(dice: float | None = 0.75) -> Observation:
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    views = []
    for preprocessing in PREPROCESSINGS:
        layers = {
            "model.0": LayerEvidence(numbers(3, 3).double(), numbers(3).double(), 100.5),
            "model.1.submodule": LayerEvidence(numbers(5, 5).double(), numbers(5).double(), 7.0, numbers(4, 20)),
        }
        views.append(View(str(preprocessing), layers, {"entropy": 0.1, "volume_ml": 12.0}, numbers(150).double()))
    return Observation(Evidence("Task", "case", "patient", tuple(views), numbers(32, 32, 32)), dice)


@pytest.fixture
def image(tmp_path: Path) -> Image:
    image, label = (tmp_path / name for name in ("image.nii.gz", "label.nii.gz"))
    for path in (image, label):
        path.write_bytes(b"some voxels")
    case = Case("case", "patient", (image,), (LabelFile(label),))
    return Image("in_distribution", "Task", case, PREPROCESSINGS, "Task", PREPROCESSINGS[0], (1,))


@pytest.mark.parametrize("dice", [0.75, None, float("nan")])
def test_an_observation_comes_back_as_it_was(dice: float | None, image: Image, tmp_path: Path) -> None:
    cache, kept = Cache(tmp_path / "cache", {}), observation(dice)
    key = cache.key(image)
    assert not cache.holds(key)
    assert cache.read(key) is None
    cache.write(key, kept)
    assert cache.holds(key)
    found = cache.read(key)
    assert found is not None
    assert repr(found.dice) == repr(dice)
    assert torch.equal(found.evidence.thumbnail, kept.evidence.thumbnail)
    assert (found.evidence.dataset, found.evidence.case, found.evidence.patient) == ("Task", "case", "patient")
    for one, other in zip(found.evidence.views, kept.evidence.views, strict=True):
        assert (one.preprocessing, one.outputs) == (other.preprocessing, other.outputs)
        assert torch.equal(one.histogram, other.histogram)
        assert list(one.layers) == list(other.layers)
        for layer in one.layers:
            for name in ("gram", "mean", "windows"):
                here, there = getattr(one.layers[layer], name), getattr(other.layers[layer], name)
                assert (here is None) == (there is None)
                assert here is None or (torch.equal(here, there) and here.dtype == there.dtype)
            assert one.layers[layer].voxels == other.layers[layer].voxels


def test_files_hold_no_objects(image: Image, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", {})
    cache.write(cache.key(image), observation())
    (path,) = (tmp_path / "cache").iterdir()
    with np.load(path, allow_pickle=True) as arrays:
        assert not any(array.dtype.hasobject for array in arrays.values())


def test_a_damaged_file_is_as_good_as_none(image: Image, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", {})
    key = cache.key(image)
    cache.write(key, observation())
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    assert cache.read(key) is None
    assert not cache.holds(key)


def test_the_key_depends_on_all_that_decides_and_on_nothing_else(image: Image, tmp_path: Path) -> None:
    facts = {"weights": "w", "layers": ["model.0"], "seed": 0}
    key = Cache(tmp_path, facts).key(image)
    others = [Cache(tmp_path, facts | change) for change in ({"weights": "v"}, {"layers": ["model.1"]}, {"seed": 1})]
    keys = [cache.key(image) for cache in others]
    noise = SHIFTS["noise"]
    shifted = replace(image, group="covariate", condition="noise", shift=noise, severity=3)
    changed = [
        shifted,
        replace(shifted, severity=5),
        replace(shifted, condition="blur", shift=SHIFTS["blur"]),
        replace(image, preprocessings=PREPROCESSINGS[:1]),
        replace(image, organ=(1, 2)),
        replace(image, own=PREPROCESSINGS[1]),
    ]
    keys += [Cache(tmp_path, facts).key(other) for other in changed]
    image.case.images[0].write_bytes(b"other voxels")
    keys.append(Cache(tmp_path, facts).key(image))
    assert len({key, *keys}) == 1 + len(keys)
    image.case.images[0].write_bytes(b"some voxels")
    assert Cache(tmp_path / "elsewhere", facts).key(image) == key


class Darker(Shift):
    """A shift of one's own."""

    name = "darker"
    strengths = (1.0, 2.0, 3.0, 4.0, 5.0)
    unit = "times"

    def change(self, volume, strength, random):
        return volume / strength


class Named(Darker):
    """Another body under the same name."""

    def change(self, volume, strength, random):
        return volume - strength


def test_a_changed_shift_of_the_same_name_is_computed_again(image: Image, tmp_path: Path) -> None:
    def key(shift: Shift) -> str:
        shifted = replace(image, group="covariate", condition="darker", shift=shift, severity=3)
        return Cache(tmp_path, {}).key(shifted)

    stronger = Darker()
    stronger.strengths = (1.0, 2.0, 3.5, 4.0, 5.0)
    assert key(Darker()) == key(Darker())
    assert len({key(Darker()), key(stronger), key(Named())}) == 3
    function = SHIFTS["noise"]
    other = replace(function, function=SHIFTS["spikes"].function)
    stronger_noise = replace(function, strengths=(0.1, 0.2, 0.3, 0.4, 0.5))
    assert len({key(function), key(other), key(stronger_noise)}) == 3
