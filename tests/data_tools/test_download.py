"""`medmtl data download`, from a server on loopback: checked, whole, and clean to start again."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from monai.apps import DecathlonDataset

from medmtl.cli import main
from medmtl.data_tools.download import address, download
from medmtl.errors import ConfigError, DataError

NAME = "Task04_Hippocampus"
CONTENT = json.dumps({"labels": {"0": "background"}}).encode()


class _Quiet(SimpleHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The archive of a task, on a server that `MEDMTL_MSD_URL` names."""
    archive = tmp_path / "server" / f"{NAME}.tar"
    archive.parent.mkdir()
    with tarfile.open(archive, "w") as tar:
        for member in ("dataset.json", "imagesTr/one.nii.gz"):
            entry = tarfile.TarInfo(f"{NAME}/{member}")
            entry.size = len(CONTENT)
            tar.addfile(entry, io.BytesIO(CONTENT))
    monkeypatch.setattr(DecathlonDataset, "md5", {NAME: hashlib.md5(archive.read_bytes()).hexdigest()})
    _Quiet.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(archive.parent)))
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setenv("MEDMTL_MSD_URL", f"http://127.0.0.1:{server.server_port}/")
    for proxy in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    yield archive
    server.shutdown()
    server.server_close()
    thread.join()


def listed(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


WHOLE = [f"{NAME}/dataset.json", f"{NAME}/imagesTr/one.nii.gz"]


def test_a_task_is_fetched_unpacked_and_not_fetched_again(
    served: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "corpora"
    main(["data", "download", NAME, "--output", str(out)])
    assert capsys.readouterr().out == f"downloaded: {out / NAME}\n"
    assert listed(out) == WHOLE
    assert (out / WHOLE[0]).read_bytes() == CONTENT
    served.unlink()
    assert download([NAME], out) == [out / NAME]
    assert _Quiet.asked == [f"/{NAME}.tar"]


def test_an_archive_that_is_whole_is_used_and_a_partial_one_is_fetched_anew(served: Path, tmp_path: Path) -> None:
    for number, (left, fetched) in enumerate([(served.read_bytes(), 0), (served.read_bytes()[:700], 1)]):
        out = tmp_path / f"corpora{number}"
        out.mkdir()
        (out / f"{NAME}.tar").write_bytes(left)
        _Quiet.asked = []
        download([NAME], out)
        assert listed(out) == WHOLE
        assert len(_Quiet.asked) == fetched


def test_what_has_another_checksum_is_refused_and_leaves_nothing(served: Path, tmp_path: Path) -> None:
    whole = served.read_bytes()
    served.write_bytes(whole[:-1] + b"x")
    out = tmp_path / "corpora"
    with pytest.raises(DataError, match=rf"{NAME}\.tar has another checksum"):
        download([NAME], out)
    assert not list(out.iterdir())
    served.write_bytes(whole)
    download([NAME], out)
    assert listed(out) == WHOLE


def test_a_server_that_lacks_it_or_is_gone_is_one_line(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served.unlink()
    for mirror in (None, "http://127.0.0.1:9"):
        if mirror:
            monkeypatch.setenv("MEDMTL_MSD_URL", mirror)
        with pytest.raises(DataError, match="cannot be fetched") as error:
            download([NAME], tmp_path / "corpora")
        assert "\n" not in str(error.value)
        assert not list((tmp_path / "corpora").iterdir())
    with pytest.raises(SystemExit, match="1"):
        main(["data", "download", NAME, "--output", str(tmp_path / "corpora")])
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.splitlines()[-1].startswith("medmtl: error: http://127.0.0.1:9/")


def test_a_failure_while_unpacking_leaves_the_archive_alone(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    out = tmp_path / "corpora"
    with monkeypatch.context() as patch:
        patch.setattr("medmtl.data_tools.download.extractall", full)
        with pytest.raises(DataError, match="No space left"):
            download([NAME], out)
    assert listed(out) == [f"{NAME}.tar"]
    assert [path.name for path in out.iterdir()] == [f"{NAME}.tar"]
    download([NAME], out)
    assert listed(out) == WHOLE
    assert len(_Quiet.asked) == 1


def test_without_a_mirror_the_address_is_the_official_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDMTL_MSD_URL", raising=False)
    assert address(NAME) == DecathlonDataset.resource[NAME]


def test_a_task_that_does_not_exist_and_a_missing_folder_are_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDMTL_DATA", raising=False)
    with pytest.raises(ConfigError, match="no task Task11: use one of: Task01_BrainTumour"):
        download(["Task11"], Path("x"))
    with pytest.raises(ConfigError, match="add --output DIR, or set MEDMTL_DATA"):
        download([NAME])
