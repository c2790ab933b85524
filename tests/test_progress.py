"""One line says how far a command is: it changes on a terminal, and comes once a minute where nobody watches."""

import io
import logging
import re
from collections.abc import Iterator

import pytest
from rich.console import Console

from medmtl import progress
from medmtl.progress import ProgressLine, watched


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100)
    monkeypatch.setattr(progress, "terminal", lambda stderr: console)
    yield stream
    assert ProgressLine._shown is None


def test_where_nobody_watches_there_is_a_line_a_minute_with_the_time_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "medmtl")
    clock = Clock()
    line = ProgressLine("training", 1000, "steps", clock)
    for second in range(1, 301):
        clock.now = second
        line.advance(2, ", loss 0.500")
    assert len(caplog.messages) == 5
    assert caplog.messages[0] == "training: 120 of 1,000 steps, loss 0.500, about 7 min left"
    assert caplog.messages[-1] == "training: 600 of 1,000 steps, loss 0.500, about 3 min left"


def test_a_command_of_less_than_a_minute_says_nothing_there(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "medmtl")
    assert list(watched("abc", "observing", 3, "images")) == ["a", "b", "c"]
    assert caplog.messages == []


def test_on_a_terminal_only_one_line_is_shown_at_a_time(screen: io.StringIO) -> None:
    first, second = ProgressLine("loading", 4, "cases"), ProgressLine("training", 2, "steps")
    first.advance()
    second.advance()
    assert ProgressLine._shown is second
    first.close()
    assert ProgressLine._shown is second
    second.advance()
    shown = re.sub(r"\x1b\[[\d;?]*\w", "", screen.getvalue())
    assert "1 of 4 cases" in shown
    assert "2 of 2 steps" in shown


def test_what_is_gone_through_ends_its_line_also_after_an_error(screen: io.StringIO) -> None:
    with pytest.raises(ZeroDivisionError):
        list(watched((1 / number for number in (1, 0)), "dividing", 2, "numbers"))
    assert "1 of 2 numbers" in screen.getvalue()
