"""The page says what the gallery of `medmtl predict` says, in its words, and needs nothing from elsewhere."""

import base64
import hashlib
import re

import pytest
from html_page import Page
from predict_sample import REASON

from medmtl.report.html import page_template
from medmtl.report.predict.served import headline
from medmtl.results.prediction import PredictedCase


@pytest.fixture
def flagged(client, model, scan):
    """The page of a scan that is out-of-distribution."""
    usual = model.predict_scan

    def odd(scan, task=None, modality=None):
        object.__setattr__(scan, "name", "ood")
        found = usual(scan, task, modality)
        object.__setattr__(scan, "name", "scan")
        return found

    model.predict_scan = odd
    answer = client.post("/predict", files={"file": ("abdomen.nii.gz", scan)})
    return client.get(answer.json()["links"]["page"])


def words_of(template):
    """Sentences of a template, without what is filled in."""
    return [" ".join(each.split()) for each in re.findall(r"[A-Z][^<>{}]{30,}\.", template)]


def test_it_says_the_verdicts_and_why(flagged):
    page = Page(flagged.text)
    assert page.open == []
    assert "abdomen is out-of-distribution: do not trust its mask. Its mask is not reliable." in page.words
    assert "out-of-distribution · mask not reliable" in page.words
    assert REASON in page.words
    assert "mask differs by 70 % (p = 0.020)" in page.words
    assert ("input", "range") in [(tag, given.get("type")) for tag, given in page.tags]
    assert [given["href"].rpartition("/")[2] for tag, given in page.tags if tag == "a"] == [
        "mask.nii.gz",
        "picture.png",
        "record.json",
    ]
    assert not {"None", "nan"} & set(page.words.split())


def test_it_explains_in_the_words_of_the_gallery(client, flagged):
    source = page_template("case.html.j2")
    with open(source.filename, encoding="utf-8") as file:  # noqa: PTH123
        sentences = words_of(file.read().partition("macro meaning")[2])
    assert len(sentences) >= 3
    page = Page(flagged.text).words
    for sentence in sentences:
        assert sentence in page
    for text in (page, Page(client.get("/").text).words):
        assert "for research: no part of it is a diagnosis" in text


def test_its_script_is_the_only_one_and_nothing_is_asked_of_others(client, flagged):
    for answer in (client.get("/"), flagged):
        text = answer.text
        assert not re.search(r"url\(|@import|https?://|//[a-z]+\.[a-z]|WebSocket", text.partition("<script>")[0])
        (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}';" in answer.headers["content-security-policy"]
        assert set(re.findall(r'fetch\("([^"]*)"', script)) == {"/predict"}
        assert not re.search(r"<[^>]+\son\w+=", text.partition("<script>")[0])


def case(**given):
    values = {"in_distribution": True, "p_value": 0.5, "mask_reliable": True, **given}
    fixed = {"alpha": 0.05, "nearest_task": None, "ood_score": None, "scores": {}, "task": "t", "preprocessing": ""}
    more = {"volume_ml": 1.0, "model": {}, "warnings": [], "seconds": {}}
    return PredictedCase(case="x", input="x", mask=None, **values, **fixed, **more)


def test_the_headline_is_the_verdict():
    assert headline(case()) == "x is in-distribution, p\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}0.500."
    assert headline(case(mask_reliable=False)).endswith("Its mask is not reliable.")
    assert headline(case(in_distribution=False)) == "x is out-of-distribution: do not trust its mask."
    assert headline(case(in_distribution=None, p_value=None, mask_reliable=None)) == "x is undecided."
