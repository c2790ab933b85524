"""Uploads are bounded, and no name from outside is that of a file."""

import asyncio
import json
import sys

import pytest
from asgi_client import ask

from medmtl.serve import guards
from medmtl.serve.app import create_app
from medmtl.serve.options import MEGABYTE
from medmtl.serve.uploads import MOST_PARTS, OVERHEAD, TEXT_BYTES, label_of

FORM = ("content-type", "multipart/form-data; boundary=x")
HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.nii.gz"\r\n\r\n'


@pytest.fixture
def app(service_of, model):
    return create_app(service_of(model, max_upload=1, receive=1))


def line(answer):
    status, body = answer
    return status, json.loads(body)["error"]


def body_of(pieces):
    """A body, and how many of its pieces were asked for."""
    asked = []

    async def receive():
        asked.append(1)
        return {"type": "http.request", "body": pieces[len(asked) - 1], "more_body": len(asked) < len(pieces)}

    return receive, asked


NAMES = [
    ("../../etc/passwd.nii.gz", "passwd.nii.gz"),
    ("/etc/passwd.nii.gz", "passwd.nii.gz"),
    ("..\\..\\windows\\system.nii.gz", "system.nii.gz"),
    ("C:\\scan.nii.gz", "scan.nii.gz"),
    ("a\0b.nii.gz", "a\\x00b.nii.gz"),
    ("a\r\nb.nii.gz", "a  b.nii.gz"),
    ("\x1b[2J.nii.gz", "\\x1b[2J.nii.gz"),
    ("x" * 300 + ".nii.gz", ("x" * 113) + ".nii.gz"),
    ("..", ".."),
    ("", "scan"),
]


@pytest.mark.parametrize(("name", "label"), NAMES)
def test_a_name_is_a_label_alone(name, label):
    assert label_of(name) == label


def test_no_file_is_opened_or_written_by_a_name_from_outside(client, scan, home, tmp_path):
    before = {path for path in tmp_path.rglob("*") if home not in path.parents}
    opened = []
    recording = [True]
    sys.addaudithook(lambda event, given: recording and event == "open" and opened.append(str(given[0])))
    for name in ("../../etc/passwd.nii.gz", str(tmp_path / "stolen.nii.gz"), "<img src=x onerror=alert(1)>.nii.gz"):
        found = client.post("/predict", files={"file": (name, scan)})
        assert found.status_code == 200
        record = found.json()["record"]
        assert record["input"] == name.rpartition("/")[2]
        page = client.get(found.json()["links"]["page"]).text
        assert "<img src=x" not in page
    recording.clear()
    assert {path for path in tmp_path.rglob("*") if home not in path.parents} == before
    assert opened
    assert not [path for path in opened if "passwd" in path or "stolen" in path or "onerror" in path]
    assert not [path for path in home.rglob("*") if "passwd" in path.name or "stolen" in path.name]


def test_what_promises_to_be_too_large_is_refused_without_being_read(app, monkeypatch):
    monkeypatch.setattr(guards, "LINGER_BYTES", 0)
    receive, asked = body_of([b""])
    assert line(ask(app, [FORM, ("content-length", str(3 * 10**9))], receive)) == (
        413,
        "the request has more than 1 MB: crop or compress the scan, or raise --max-upload of medmtl serve",
    )
    assert not asked


def test_what_does_not_say_its_size_is_refused_as_soon_as_it_is_too_large(app, home, monkeypatch):
    monkeypatch.setattr(guards, "LINGER_BYTES", 0)
    receive, asked = body_of([HEAD, *[bytes(2**17)] * 1000])
    status, said = line(ask(app, [FORM, ("transfer-encoding", "chunked")], receive))
    assert (status, said.partition(":")[0]) == (413, "the request has more than 1 MB")
    assert (len(asked) - 2) * 2**17 <= MEGABYTE + OVERHEAD
    assert list(home.iterdir()) == []


def test_a_refused_request_is_read_for_a_while_and_no_longer(app, monkeypatch):
    """A client that first sends and then reads sees the answer; one that sends for ever is cut off."""
    monkeypatch.setattr(guards, "LINGER_BYTES", 2**20)
    receive, asked = body_of([bytes(2**17)] * 1000)
    assert ask(app, [FORM, ("content-length", str(3 * 10**9))], receive)[0] == 413
    assert len(asked) == 8


def test_a_request_that_does_not_arrive_is_given_up(app, home, monkeypatch):
    monkeypatch.setattr(guards, "LINGER_SECONDS", 0.01)

    async def receive():
        await asyncio.sleep(60)

    assert line(ask(app, [FORM], receive)) == (408, "the request did not arrive within 1 s: send less")
    assert list(home.iterdir()) == []


def test_a_request_that_is_cut_off_leaves_nothing(app, home):
    messages = iter([{"type": "http.request", "body": HEAD, "more_body": True}, {"type": "http.disconnect"}])

    async def receive():
        return next(messages)

    assert line(ask(app, [FORM], receive))[0] == 400
    assert list(home.iterdir()) == []


MALFORMED = [
    (HEAD + b"voxels", 400, "the form ends before its last boundary"),
    (b"no boundary", 400, "the form is malformed"),
    (b"", 400, "the form ends before its last boundary"),
    (HEAD + b"1\r\n" + HEAD + b"2\r\n--x--\r\n", 400, "the form holds two files `file`"),
    (b'--x\r\nContent-Disposition: form-data; name="task"\r\n\r\nLiver\r\n--x--\r\n', 400, "the form holds no file"),
    (b'--x\r\nContent-Disposition: form-data; name="n"\r\n\r\n1\r\n' * (MOST_PARTS + 1), 400, "the form has more than"),
    (
        b'--x\r\nContent-Disposition: form-data; name="task"\r\n\r\n' + bytes(TEXT_BYTES + 1) + b"\r\n--x--\r\n",
        413,
        "the part `task` of the form is too long",
    ),
    (b"--x\r\n" + b"A: " + b"a" * 5000 + b"\r\n\r\n1\r\n--x--\r\n", 400, "the form is malformed"),
]


@pytest.mark.parametrize(("content", "status", "said"), MALFORMED, ids=[said for _, _, said in MALFORMED])
def test_a_malformed_form_is_refused_in_a_line(client, home, content, status, said):
    answer = client.post("/predict", content=content, headers=dict([FORM]))
    assert (answer.status_code, answer.json()["error"][: len(said)]) == (status, said)
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/json", "multipart/form-data", ""])
def test_what_is_no_form_is_refused(client, scan, kind):
    answer = client.post("/predict", content=scan, headers={"content-type": kind})
    assert answer.status_code == 415
    assert answer.json()["error"].startswith("the request is no form with a file: send a form")


def test_the_largest_request_that_is_taken_is_taken(serve, model, scan):
    small = serve(model, max_upload=1)
    padded = scan + bytes(MEGABYTE - len(scan))
    assert small.post("/predict", files={"file": ("a.nii.gz", padded)}).status_code == 200
    assert small.post("/predict", files={"file": ("a.nii.gz", padded + bytes(OVERHEAD))}).status_code == 413
