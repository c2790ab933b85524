"""Parts of every page: its template, its pictures, and the format of its numbers."""

import base64
import math
import re
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template

from medmtl.report.orientation import in_words
from medmtl.report.style import DOTS_PER_INCH

PAGE_DOTS_PER_INCH = 106
DAGGER = "\N{DAGGER}"  # marks an interval of too few patients
PAGES = ("test", "compare", "ood", "data", "predict")  # rooms of `medmtl.report` with a page, its template beside it


@dataclass(frozen=True)
class Picture:
    """A figure as a page holds it.

    Attributes:
        base64: the PNG file.
        width: its width on the page, in pixels.
    """

    base64: str
    width: int

    @classmethod
    def of(cls, png: bytes) -> "Picture":
        """The picture of a PNG file's bytes."""
        pixels = int.from_bytes(png[16:20], "big")  # width in the PNG header
        return cls(base64.b64encode(png).decode("ascii"), round(pixels * PAGE_DOTS_PER_INCH / DOTS_PER_INCH))


@lru_cache
def page_template(name: str) -> Template:
    """A template by its file name; values are escaped, and an undefined name is an error."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("medmtl.report", place) for place in ("", *PAGES)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"convention": in_words, "anchor": anchor}
    environment.filters |= {"number": number, "bracketed": bracketed, "p_value": p_value}
    return environment.get_template(name)


def render(name: str, **values: Any) -> str:
    """A page from its template.

    Args:
        name: of the template, which extends `page.html.j2`.
        values: what it shows. A line `<!-- contents -->` becomes a list of links to its headings.
    """
    return _with_contents(page_template(name).render(**values))


def anchor(*names: str) -> str:
    """The name by which links find a part of a page: no two names share one, and any text can be one."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(names)).strip("-")
    return f"{words}-{zlib.crc32(repr(names).encode()):08x}"


def _with_contents(page: str) -> str:
    """Give every heading of the second level a name, and list them."""
    links: list[str] = []

    def named(heading: re.Match[str]) -> str:
        attributes, words = heading.groups()
        place = re.search(r'id="([^"]*)"', attributes)
        name = anchor(words) if place is None else place[1]
        links.append(f'<a href="#{name}">{words}</a>')
        return f'<h2 id="{name}">{words}</h2>'

    page = re.sub(r"<h2([^>]*)>(.*?)</h2>", named, page)
    listed = "\n".join(links)
    return page.replace("<!-- contents -->", f'<nav aria-label="Contents">\n{listed}\n</nav>' if links else "")


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table cell; a dash where there is none."""
    return "\N{EN DASH}" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def p_value(value: float | None, patients: Collection[int] = (), digits: int = 3) -> str:
    """A conformal p-value for a table cell, "≤ 0.048" where it is the least possible one; a dash where there is none.

    Args:
        value: in (0, 1].
        patients: of each group of calibration patients; p is at least 1 / (patients + 1).
        digits: after the point.
    """
    if value is None or not math.isfinite(value):
        return number(value)
    if _least(value, patients) is None:
        return number(value, digits)
    return f"≤\N{NO-BREAK SPACE}{math.ceil(value * 10**digits - 1e-6) / 10**digits:.{digits}f}"


def p_in_words(value: float | None, patients: Collection[int] = ()) -> str:
    """A conformal p-value in a sentence: "p = 0.310", or "p ≤ 0.048, the least that 20 patients allow"."""
    if value is None:
        return "no p-value"
    least = _least(value, patients)
    if least is None:
        return f"p\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{number(value)}"
    allow = "1 patient allows" if least == 1 else f"{least} patients allow"
    return f"p\N{NO-BREAK SPACE}{p_value(value, patients)}, the least that {allow}"


def _least(value: float, patients: Collection[int]) -> int | None:
    """The group of calibration patients of which a p-value is the least possible one: their number."""
    return next((count for count in patients if math.isclose(value, 1 / (count + 1), rel_tol=1e-9)), None)


def bracketed(middle: float | None, ends: Mapping[str, Any], digits: int = 3, signed: bool = False) -> str:
    """A number and its interval for a table cell: "0.912 [0.880, 0.940]"; a dash where there is none.

    Args:
        middle: the number.
        ends: holds its `low` and `high`, None where there is no interval, and perhaps whether it is `reliable`; an
            interval that is not is marked by a dagger.
        digits: after the point.
        signed: whether the number gets a sign, as a difference does.
    """
    if middle is None:
        return number(None)
    text = f"{middle:{'+' if signed else ''}z.{digits}f}"
    low, high = ends["low"], ends["high"]
    if low is not None and high is not None:
        text += f" [{low:z.{digits}f}, {high:z.{digits}f}]{'' if ends.get('reliable', True) else DAGGER}"
    return text.replace("-", "\N{MINUS SIGN}")
