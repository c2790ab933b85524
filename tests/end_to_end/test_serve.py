"""`medmtl serve` on a trained run and an exported folder: the answers of `medmtl predict`, a page, a clean end."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import nibabel
import numpy as np
import pytest
from chromium import CHROMIUM, browser
from fastapi.testclient import TestClient

import medmtl
from medmtl.cli import main
from medmtl.predict.command import source_of
from medmtl.predict.records import digest_of
from medmtl.results.prediction import PredictedCase
from medmtl.serve.app import create_app
from medmtl.serve.options import Options
from medmtl.serve.predicting import Predictor
from medmtl.serve.service import Service

SERVERS_OWN = ("input", "mask", "files", "request", "seconds")  # of a record


def a_scan(phantom_store: Path) -> Path:
    return sorted((phantom_store / "phantoms-v1" / "LiverCT" / "imagesTr").iterdir())[0]


@pytest.mark.parametrize("kind", ["run", "safetensors"])
def test_records_and_masks_are_those_of_the_command(
    kind: str, trained: Path, phantom_store: Path, workplace: Path
) -> None:
    run, scan = trained, a_scan(phantom_store)
    if kind != "run":
        run = workplace / "exported"
        main(["export", "--run", str(trained), "--to", kind, "--output", str(run)])
    main(["predict", "--run", str(run), "--input", str(scan), "--output", "out", "--report"])
    name = scan.name.removesuffix(".nii.gz")
    expected = json.loads((workplace / "out" / f"{name}.json").read_text())
    options, source = Options(str(run)), source_of(str(run))
    (workplace / "home").mkdir()
    service = Service.of(Predictor(medmtl.load(source), digest_of(source), options), workplace / "home", options)
    with TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        found = client.post("/predict", files={"file": (scan.name, scan.read_bytes())}).json()
        mask = nibabel.Nifti1Image.from_bytes(gzip.decompress(client.get(found["links"]["mask"]).content))
    own = {key: value for key, value in found["record"].items() if key not in SERVERS_OWN}
    assert own == {key: value for key, value in expected.items() if key not in SERVERS_OWN}
    other = nibabel.load(workplace / "out" / f"{name}_mask.nii.gz")
    assert np.asarray(mask.dataobj).tobytes() == np.asarray(other.dataobj).tobytes()
    np.testing.assert_array_equal(mask.affine, other.affine)


@pytest.fixture
def address(trained: Path, tmp_path: Path) -> Iterator[str]:
    """Where a server of the command listens, which ends by a termination and leaves nothing."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "medmtl", "serve", "--run", str(trained), "--port", "0"]
    given = {**os.environ, "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        lines = [str(process.stdout.readline()) for _ in range(5)]
        assert lines[-1] == "Ctrl-C stops it\n", [*lines, process.stderr.read()]
        (found,) = re.findall(r"page: (http://127\.0\.0\.1:\d+)/", "".join(lines))
        assert "LiverCT, KidneyT2" in lines[0]
        yield found
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
        assert process.stderr.read().endswith(
            "medmtl: terminated: what was kept is removed, run the same command again to serve\n"
        )
        assert list(temporary.glob("medmtl-serve-*")) == []
    finally:
        process.kill()
        process.wait()


def test_a_scan_dropped_on_the_page_shows_its_verdict_and_a_slider(address: str, phantom_store: Path) -> None:
    """A scan of the training, and on the page that shows it a patient's, where real corpora are there."""
    real = Path(os.environ.get("MEDMTL_DATA", "-"), "HippocampusMR", "imagesTr")
    scans = [a_scan(phantom_store), *sorted(real.glob("*.nii.gz"))[:1]]
    with urlopen(f"{address}/info/") as answer:
        assert "LiverCT" in json.load(answer)["models"]
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with browser() as page:
        page.resize(1000, 800)
        page.open(f"{address}/")
        for scan in scans:
            name = scan.name.removesuffix(".nii.gz")
            page.drop(scan, "#drop")
            page.wait(f"(document.getElementById('verdict')?.textContent ?? '').startsWith('{name} is')")
            page.wait("document.readyState === 'complete'")
            with urlopen(f"{address}{page.value('location.pathname')}/record.json") as answer:
                record = PredictedCase.from_dict(json.load(answer))
            said = page.value("document.body.innerText")
            assert page.value("document.getElementById('verdict').textContent").startswith(
                f"{name} is {record.verdict}"
            )
            assert all(reason in said for reason in record.reasons[:6] if record.flagged)
            move = "s => { s.value = 1; s.dispatchEvent(new Event('input')); }"
            page.value(f"({move})(document.querySelector('[type=range]'))")
            assert page.value("document.querySelector('.strip img').style.top") == "-100%"
            assert page.value("document.querySelector('.slider span').textContent").startswith("2 of ")
        for width in (1280, 400):
            page.resize(width, 800)
            assert page.value("document.documentElement.scrollWidth") <= width
        assert page.complaints == []
        assert [each for each in page.requested if not each.startswith((address, "data:"))] == []


def test_what_is_wrong_is_said_before_anything_is_read(
    trained: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, line in (
        (["--run", "nowhere"], "nowhere"),
        (["--run", str(trained), "--port", "70000"], "70000 is no port"),
        (["--run", str(trained), "--host", "192.0.2.1"], "192.0.2.1, port 8000, cannot be listened on"),
        (["--run", str(trained), "--queue", "-1"], "'-1' is no whole number"),
        ([], "--run"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["serve", *options])
        assert ended.value.code in (1, 2)
        said = capsys.readouterr().err
        assert line in said
        assert said.count("\n") == 1
