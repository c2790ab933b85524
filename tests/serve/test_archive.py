"""A zip is looked at before it is unpacked: no bombs, no links, and no name of it becomes a path."""

import io
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from medmtl.serve import archive
from medmtl.serve.answers import RequestError
from medmtl.serve.archive import unpack

MOST = 10**6


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as made:
        for name, data in members:
            made.writestr(zipfile.ZipInfo(name), data, method)
    return content.getvalue()


def link() -> bytes:
    entry = zipfile.ZipInfo("scan.nii")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        made.writestr(entry, "/etc/passwd")
    return content.getvalue()


def changed(content: bytes, local: int, central: int, form: str, value: int) -> bytes:
    """A zip of one file whose two headers say something else."""
    result = bytearray(content)
    struct.pack_into(form, result, local, value)
    struct.pack_into(form, result, result.find(b"PK\x01\x02") + central, value)
    return bytes(result)


def long_contents() -> bytes:
    return zipped(*[(f"{'d' * 200}/{number}", b"") for number in range(20)])


def many_files() -> bytes:
    return zipped(*[(str(number), b"") for number in range(12)])


def of_64_bits() -> bytes:
    """A zip with the record by which `zipfile` finds a table of contents of any size."""
    plain = zipped(("a.dcm", b"x"))
    place = plain.rfind(archive.ENDS)
    return plain[:place] + archive.ENDS_64 + bytes(16) + plain[place:]


BAD: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "bomb": (lambda: zipped(("a.nii", bytes(2 * MOST))), 413, "unpacks to 2 MB, more than the 1 MB"),
    "many small ones": (lambda: zipped(*[(f"{i}.dcm", bytes(MOST // 4)) for i in range(6)]), 413, "unpacks to 1 MB"),
    "bomb that lies": (
        lambda: changed(zipped(("a.nii", bytes(2 * MOST))), 22, 24, "<L", 100),
        422,
        "is a damaged zip",
    ),
    "above": (lambda: zipped(("../a.dcm", b"x")), 422, "holds a path that leads out of it (../a.dcm)"),
    "above within": (lambda: zipped(("a/../../b.dcm", b"x")), 422, "holds a path that leads out of it"),
    "absolute": (lambda: zipped(("/etc/a.dcm", b"x")), 422, "holds a path that leads out of it (/etc/a.dcm)"),
    "backslashes": (lambda: zipped(("..\\a.dcm", b"x")), 422, "holds a path that leads out of it"),
    "drive": (lambda: zipped(("C:/a.dcm", b"x")), 422, "holds a path that leads out of it"),
    "link": (link, 422, "holds a link (scan.nii)"),
    "encrypted": (lambda: changed(zipped(("a.dcm", b"x")), 6, 8, "<H", 1), 422, "is encrypted"),
    "bzip2": (lambda: zipped(("a.dcm", b"x"), method=zipfile.ZIP_BZIP2), 422, "is compressed in a way"),
    "lzma": (lambda: zipped(("a.dcm", b"x"), method=zipfile.ZIP_LZMA), 422, "is compressed in a way"),
    "torn": (lambda: zipped(("a.dcm", b"x"))[:-30], 422, "is a damaged zip"),
    "another byte": (lambda: zipped(("a.dcm", b"abc" * 9), method=0).replace(b"bca", b"bcd", 1), 422, "is a damaged"),
    "contents": (long_contents, 422, "is a zip with a table of contents that is too long"),
    "files": (many_files, 422, "holds 12 files: zip one series, of at most 10"),
    "64 bits": (of_64_bits, 422, "is a zip of more than 4 GB"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_zip_that_could_harm_is_refused_in_a_line(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "CONTENTS_BYTES", 4000)
    monkeypatch.setattr(archive, "MOST_FILES", 10)
    make, status, said = BAD[kind]
    (tmp_path / "upload").write_bytes(make())
    (tmp_path / "home" / "scan").mkdir(parents=True)
    with pytest.raises(RequestError) as refused:
        unpack(tmp_path / "upload", "s.zip", tmp_path / "home" / "scan", MOST)
    assert refused.value.line.startswith(f"s.zip {said}")
    assert refused.value.status == status
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "upload"]
    assert sum(path.stat().st_size for path in written) <= 1000
    assert all(path.parent == tmp_path / "home" / "scan" for path in written)


def test_files_get_numbers_for_names_and_what_file_managers_leave_is_left_out(tmp_path: Path) -> None:
    members = [("s/IM1.DCM", b"1"), ("s/1.2.840.5", b"2"), ("s/._IM1.DCM", b"3"), ("__MACOSX/x.dcm", b"4"), ("s/", b"")]
    (tmp_path / "upload").write_bytes(zipped(*members))
    (tmp_path / "scan").mkdir()
    found = unpack(tmp_path / "upload", "s.zip", tmp_path / "scan", MOST)
    assert found == {"00000.dcm": "s/IM1.DCM", "00001": "s/1.2.840.5"}
    assert {path.name: path.read_bytes() for path in (tmp_path / "scan").iterdir()} == {
        "00000.dcm": b"1",
        "00001": b"2",
    }


def test_the_server_refuses_a_bomb_and_keeps_nothing(serve, model, home) -> None:
    client = serve(model, max_upload=1)
    answer = client.post("/predict", files={"file": ("bomb.zip", zipped(("a.nii", bytes(5 * 10**6))))})
    assert (answer.status_code, answer.json()["error"]) == (
        413,
        "bomb.zip unpacks to 5 MB, more than the 4 MB that are taken: zip one series, or raise --max-upload of medmtl "
        "serve",
    )
    assert list(home.iterdir()) == []
