"""One scan is predicted at a time, a few wait, the others are told when to come again, and results end in time."""

import asyncio
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from medmtl.cli import main
from medmtl.serve.answers import RequestError
from medmtl.serve.kept import Kept
from medmtl.serve.work import Work


@pytest.fixture
def held(model):
    """Predictions wait until `release` is set, and never two of them; `begun` is set with the first."""
    gate = SimpleNamespace(release=threading.Event(), begun=threading.Event())
    alone = threading.Lock()

    def before(_):
        assert alone.acquire(blocking=False)
        gate.begun.set()
        gate.release.wait(20)
        alone.release()

    model.before = before
    return gate


def until(true):
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_what_finds_no_place_is_told_when_to_come_again_and_is_not_read(serve, model, held, scan, home):
    client = serve(model, queue=2)

    def post():
        return client.post("/predict", files={"file": ("a.nii.gz", scan)})

    with ThreadPoolExecutor(3) as threads:
        taken = [threads.submit(post) for _ in range(3)]
        until(lambda: len(list(home.iterdir())) == 3)
        refused = [post(), client.put("/datastore/?image=x", files={"file": ("a.nii.gz", scan)})]
        assert client.get("/info/").status_code == client.get("/").status_code == 200
        held.release.set()
        answers = [each.result() for each in taken]
    for answer in refused:
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"].startswith("3 requests are being answered, which is all that may wait: send it")
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len({answer.json()["id"] for answer in answers}) == 3
    assert post().status_code == 200


def test_where_the_server_stops_what_is_begun_is_finished_and_what_waits_is_refused(serve, model, held, scan, home):
    client = serve(model, queue=3)

    def post():
        return client.post("/predict", files={"file": ("a.nii.gz", scan)})

    with ThreadPoolExecutor(2) as threads:
        begun = threads.submit(post)
        assert held.begun.wait(10)
        waiting = threads.submit(post)
        until(lambda: len(list(home.iterdir())) == 2)
        client.service.work.stop()
        held.release.set()
        assert begun.result().status_code == 200
        assert waiting.result().status_code == 503
    answer = post()
    assert answer.json() == {"error": "the server stops: send it again when it is back"}
    assert int(answer.headers["retry-after"]) > 0


def test_the_oldest_make_room_and_each_ends_in_time(tmp_path):
    now = [0.0]
    kept = Kept("result", 2, 60.0, lambda: now[0])
    for name in "abc":
        (tmp_path / name).mkdir()
        kept.add(name, name.upper(), tmp_path / name)
        now[0] += 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "c"]
    assert kept.get("c") == "C"
    with pytest.raises(RequestError, match="this result is not kept, or no longer: send the scan again"):
        kept.get("a")
    now[0] = 70.0  # b was kept at 10
    kept.expire()
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    (tmp_path / "c2").mkdir()
    kept.add("c", "another", tmp_path / "c2")
    assert (kept.get("c"), [path.name for path in tmp_path.iterdir()]) == ("another", ["c2"])
    kept.remove("c")
    assert list(tmp_path.iterdir()) == []


def test_only_so_many_results_are_kept(serve, model, scan, home):
    client = serve(model, keep=2)
    names = [client.post("/predict", files={"file": ("a.nii.gz", scan)}).json()["id"] for _ in range(3)]
    assert {path.name for path in home.iterdir()} == set(names[1:])
    assert [client.get(f"/results/{name}").status_code for name in names] == [404, 200, 200]


@pytest.mark.parametrize("library", ["fastapi", "uvicorn", "python_multipart"])
def test_a_missing_library_is_named_with_how_to_install_it(library, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("medmtl.serve.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit):
        main(["serve", "--run", "runs/multitask"])
    said = capsys.readouterr().err
    assert said.startswith(f"medmtl: error: {library}")
    assert "is not installed: " in said
    assert "pip install 'fastapi>=" in said


def test_what_was_found_for_a_client_that_is_gone_is_dropped():
    seen = threading.Event()

    async def ask():
        loop, left = asyncio.get_running_loop(), asyncio.Event()

        async def gone():
            await left.wait()
            seen.set()

        def predict():
            loop.call_soon_threadsafe(left.set)
            return seen.wait(10)

        await work.do(predict, gone)

    work = Work(1)
    with pytest.raises(RequestError, match="the client has closed the connection"):
        asyncio.run(ask())
    work.close()
