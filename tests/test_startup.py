"""Imports of a command: no collection of garbage meanwhile, and as before afterwards."""

import gc
import pickle
import sys
import weakref
from functools import partial

import pytest

from medmtl.startup import call_pickled, importing


class Node:
    """An object that only the collection of garbage removes."""

    def __init__(self) -> None:
        self.itself = self


def import_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "an_imported_module", sys)


@pytest.fixture(autouse=True)
def _thaw():
    yield
    gc.unfreeze()


def test_nothing_is_collected_during_imports_and_what_they_made_is_left_out_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = gc.get_freeze_count()
    with importing():
        assert not gc.isenabled()
        import_one(monkeypatch)
    assert gc.isenabled()
    assert gc.get_freeze_count() > before


def test_garbage_that_is_made_later_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    with importing():
        import_one(monkeypatch)
    node = weakref.ref(Node())
    gc.collect()
    assert node() is None


def test_a_block_that_imports_nothing_keeps_no_garbage() -> None:
    gc.unfreeze()
    with importing():
        node = weakref.ref(Node())
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert node() is None


def test_a_pickled_function_is_called_with_collection_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    call_pickled(pickle.dumps(partial(print, "called")))
    assert capsys.readouterr().out == "called\n"
    assert gc.isenabled()


def test_collection_goes_on_after_an_import_that_fails() -> None:
    with pytest.raises(ImportError), importing():
        raise ImportError
    assert gc.isenabled()


def test_a_process_without_collection_stays_so() -> None:
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
