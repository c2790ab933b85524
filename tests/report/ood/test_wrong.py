"""The benchmark pictures every image whose verdict is wrong, and says in words what is wrong."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from html_page import Page
from monai.data import MetaTensor
from ood_sample import make_records, make_statistics

from medmtl.ood_benchmark import pictures
from medmtl.report.ood.numbers import verdict_detector
from medmtl.report.ood.page import write_ood_page
from medmtl.report.ood.wrong import first_of, wrong_verdicts


@pytest.fixture(scope="module")
def benchmark():
    """One detector that misses two far images and one empty image, and flags an in-distribution one; near ones pass."""
    records = make_records({"fusion": 3.6}, {"LiverCT": 3}, ("noise",), calibration=20)
    statistics = make_statistics(records)
    far = [r for r in records if r.group == "far"]
    kept = [r for r in records if r not in far]
    far = [replace(r, rejected=i > 1, p_value=(0.5, 0.3)[i] if i < 2 else 1 / 21) for i, r in enumerate(far)]
    changed = {
        "nonsense": [(False, 0.9), (True, 0.01), (True, 0.01)],
        "in_distribution": [(True, 1 / 21)] + 2 * [(False, 0.5)],
    }
    for group, verdicts in changed.items():
        own = [r for r in kept if r.group == group]
        kept = [r for r in kept if r.group != group]
        kept += [replace(r, rejected=no, p_value=p) for r, (no, p) in zip(own, verdicts, strict=True)]
    return [*kept, *far], statistics


@pytest.fixture(scope="module")
def wrong(benchmark):
    records, statistics = benchmark
    return wrong_verdicts(records, verdict_detector(statistics), statistics)


def test_wrong_are_missed_far_and_nonsense_images_and_flagged_in_distribution_ones(wrong):
    assert [(each.record.group, each.record.p_value) for each in wrong["missed"]] == [
        ("nonsense", 0.9),
        ("far", 0.5),
        ("far", 0.3),
    ]
    (alarm,) = wrong["false alarm"]
    said = alarm.words.replace("\N{NO-BREAK SPACE}", " ")
    assert said.startswith("an in-distribution image that was flagged as OOD: p ≤ 0.048, the least that 20 patients")
    assert "with the threshold at" in said
    assert [each.kind for each in first_of(wrong)] == ["missed", "false alarm", "missed"]


def test_every_wrong_verdict_is_pictured_and_linked(tmp_path, monkeypatch, benchmark, wrong):
    records, statistics = benchmark
    images = [
        SimpleNamespace(**{key: getattr(each.record, key) for key in ("group", "condition", "severity", "task")},
                        case=SimpleNamespace(name=each.record.case), shift=None)
        for own in wrong.values() for each in own
    ]  # fmt: skip
    voxels = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 8, 9, 10)).astype(np.float32))
    monkeypatch.setattr(pictures, "load_image", lambda case: MetaTensor(voxels, affine=torch.eye(4)))
    drawn = pictures.draw_wrong(images, wrong, seed=0)
    places = [each.place for own in wrong.values() for each in own]
    assert list(drawn) == places
    page = Page(write_ood_page(tmp_path, "run", records, statistics, {}, [], drawn).read_text())
    assert page.open == []
    assert page.alone
    assert "Missed: far and nonsense images that were accepted (3)" in page.words
    assert "False alarms: in-distribution images that were flagged (1)" in page.words
    alts = [given["alt"] for tag, given in page.tags if tag == "img"]
    assert [f"Slices of {each.name}" for own in wrong.values() for each in own] == [
        alt for alt in alts if alt.startswith("Slices of")
    ]
    links = {given["href"] for tag, given in page.tags if tag == "a"}
    assert {f"#{each.place}" for each in first_of(wrong)} <= links
    assert {f"{place}.png" for place in places} <= {path.name for path in (tmp_path / "figures").iterdir()}


@pytest.mark.usefixtures("undrawn")
def test_where_no_verdict_is_wrong_the_page_says_so(tmp_path, benchmark):
    records, statistics = benchmark
    right = [r if r.rejected is None else replace(r, rejected=r.group != "in_distribution") for r in records]
    words = Page(write_ood_page(tmp_path, "run", right, statistics, {}, []).read_text()).words
    assert "No far or nonsense image was missed." in words
    assert "No in-distribution image was flagged." in words
    assert "Look first at" not in words
