"""A page as a reader of its HTML finds it: its words, its tables, and whether all that was opened was closed."""

import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """Parses a page; closing what is not open fails at once.

    Attributes:
        text: the HTML.
        tags: every tag that opens, with its attributes, in order.
        said: every piece of text between two tags, in order; neither scripts nor the list of contents.
        open: tags that were not closed; of a sound page none.
    """

    def __init__(self, text):
        super().__init__()
        self.text, self.tags, self.said, self.open, self._rows = text, [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source", "input"):
            self.open.append(tag)
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"script", "style", "nav"} & set(self.open):
            return
        self.said.append(data)
        if {"td", "th"} & set(self.open):
            self._rows[-1][-1] += f" {data}"

    @property
    def words(self):
        """All that is said, with single spaces."""
        return " ".join(" ".join(self.said).split())

    @property
    def rows(self):
        """The rows of all tables, each a list of what its cells say."""
        return [[" ".join(cell.split()) for cell in row] for row in self._rows]

    @property
    def cells(self):
        """What the cells of all tables say."""
        return [cell for row in self.rows for cell in row]

    def rows_of(self, first):
        """The cells of every row whose first cell begins so, without that one."""
        return [row[1:] for row in self.rows if row[0].startswith(first)]

    @property
    def pictures(self):
        """The address of every picture: of an `img`, or of what stands in for it in a dark page."""
        return [given.get("src") or given["srcset"] for tag, given in self.tags if tag in ("img", "source")]

    @property
    def alone(self):
        """Whether the page needs no other file and no network: pictures are within, links lead to a part of it."""
        names = [given.get("id") for _, given in self.tags]
        assert not {"link", "iframe", "object", "embed", "base"} & {tag for tag, _ in self.tags}
        assert not [given for tag, given in self.tags if tag == "script" and given]
        assert not re.search(r"url\(|@import|https?://|\bfetch\b|XMLHttpRequest|\bimport\b\s*\(|WebSocket", self.text)
        assert all(
            picture.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")) for picture in self.pictures
        )
        assert all(given["href"].removeprefix("#") in names for tag, given in self.tags if tag == "a")
        assert len([name for name in names if name]) == len({name for name in names if name})
        return True
