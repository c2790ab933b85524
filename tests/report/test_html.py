"""What all pages share: their contents, and names that links find."""

import pytest
from html_page import Page

from medmtl.report import html


class Made:
    """A template of one text."""

    def __init__(self, text):
        self.text = text

    def render(self, **values):
        return self.text


def test_contents_link_to_every_heading_of_the_second_level(monkeypatch):
    text = '<div><!-- contents --><h2>One, &lt;i&gt;</h2><h3>no</h3><h2 class="c">One</h2><h2 id="mine">Two</h2></div>'
    monkeypatch.setattr(html, "page_template", lambda name: Made(text))
    page = Page(html.render("any"))
    assert page.open == []
    links = [given["href"] for tag, given in page.tags if tag == "a"]
    named = [f"#{given['id']}" for tag, given in page.tags if tag == "h2"]
    assert links == named
    assert links[-1] == "#mine"
    assert page.alone
    monkeypatch.setattr(html, "page_template", lambda name: Made("<!-- contents --><p>short</p>"))
    assert html.render("any") == "<p>short</p>"


@pytest.mark.parametrize("names", [("a b", "c"), ("a", "b c"), ("a-b", "c"), ("", "ü"), ("", "ö"), ("<i>", '"')])
def test_no_two_parts_of_a_page_share_a_name(names):
    others = [("a b", "c"), ("a", "b c"), ("a-b", "c"), ("", "ü"), ("", "ö"), ("<i>", '"')]
    found = html.anchor(*names)
    assert [html.anchor(*other) for other in others].count(found) == 1
    assert found.replace("-", "").isalnum()
