"""A scan that is sent is answered with what `medmtl predict` writes of it, under names of the server's own."""

import gzip
import io
import json
import zipfile
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import SimpleITK
from dicom_sample import write_series
from predict_sample import AFFINE, EMPTY, BrightModel, save_scan

from medmtl.cli import main
from medmtl.predict.model import Model

SERVERS_OWN = ("seconds", "files", "mask", "input", "request", "model")  # what cannot be the same


def post(client, content, name="scan.nii.gz", **fields):
    return client.post("/predict", files={"file": (name, content)}, data=fields)


def error(answer):
    """The one line of an error, which names no place of the server and holds no traceback."""
    found = answer.json()
    assert found.keys() == {"error"}
    assert "\n" not in found["error"]
    assert "Traceback" not in found["error"]
    return found["error"]


def test_the_record_and_the_mask_are_those_of_the_command(client, model, scan, tmp_path, monkeypatch, home):
    answer = post(client, scan, "usual.nii.gz")
    assert answer.status_code == 200
    found = answer.json()
    monkeypatch.setattr(Model, "load", lambda *_, **__: model)
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/checkpoints/best.ckpt").touch()
    save_scan(tmp_path / "usual.nii.gz")
    out = tmp_path / "out"
    main(["predict", f"--run={tmp_path / 'run'}", f"--input={tmp_path / 'usual.nii.gz'}", f"--output={out}"])
    expected = json.loads((out / "usual.json").read_text())
    record = found["record"]
    assert {key: record[key] for key in expected if key not in SERVERS_OWN} == {
        key: value for key, value in expected.items() if key not in SERVERS_OWN
    }
    assert record["input"] == record["request"]["path"] == "usual.nii.gz"
    assert record["request"]["bytes"] == expected["request"]["bytes"] == len(scan)
    mask, same = client.get(found["links"]["mask"]), nibabel.load(out / "usual_mask.nii.gz")
    assert 'filename="usual_mask.nii.gz"' in mask.headers["content-disposition"]
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(mask.content))
    np.testing.assert_array_equal(np.asarray(image.dataobj), np.asarray(same.dataobj))
    np.testing.assert_array_equal(image.affine, AFFINE)
    assert image.get_data_dtype() == same.get_data_dtype()
    assert client.get(found["links"]["record"]).json() == record
    assert client.get(found["links"]["picture"]).content.startswith(b"\x89PNG")
    assert record["files"] == {"mask": "mask.nii.gz", "picture": "picture.png"}
    assert str(home) not in answer.text


def test_task_and_modality_are_those_of_the_form(client, model, scan):
    assert post(client, scan, task="KidneyT2", modality="MR").json()["record"]["task"] == "KidneyT2"
    assert model.calls == [("scan", "KidneyT2", "MR")]
    refused = post(client, scan, task="Spleen")
    assert (refused.status_code, error(refused)) == (
        422,
        "task Spleen is none of this network: use one of: LiverCT, KidneyT2",
    )
    assert "use one of: CT, MR, PET, other" in error(post(client, scan, modality="XR"))


def test_a_result_can_be_removed_and_files_that_are_none_of_it_are_not_there(client, scan, home):
    found = post(client, scan).json()
    place = f"/results/{found['id']}"
    for name in ("scan.json", "..%2Fscan.json", "mask.nii", "figures%2Fscan.png"):
        assert client.get(f"{place}/{name}").status_code == 404
    assert client.get(f"/results/{'0' * 32}").status_code == 404
    assert [folder.name for folder in home.iterdir()] == [found["id"]]
    assert not (home / found["id"] / "scan").exists()  # the upload
    assert client.delete(place).status_code == 204
    assert list(home.iterdir()) == []
    assert error(client.get(place)) == "this result is not kept, or no longer: send the scan again"


@pytest.mark.parametrize(("suffix", "kind"), [(".nrrd", "mask.nrrd"), (".mha", "mask.mha"), (".NII", "mask.nii.gz")])
def test_the_mask_has_the_format_that_the_command_gives_it(client, scan, tmp_path, suffix, kind):
    path = tmp_path / f"x{suffix.lower()}"
    image = SimpleITK.ReadImage(str(tmp_path / "made" / "scan.nii.gz"))
    SimpleITK.WriteImage(image, str(path))
    found = post(client, path.read_bytes(), f"x{suffix}").json()
    assert found["record"]["mask"] == kind
    assert found["record"]["case"] == "x"
    assert client.get(found["links"]["mask"]).status_code == 200


def zipped(folder):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder.parent))
    return content.getvalue()


@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_a_zipped_series_is_read_as_its_folder_is(client, tmp_path, suffix):
    voxels = np.random.default_rng(0).integers(0, 50, (12, 10, 8)).astype(np.int16)
    voxels[3:7, 4:8, 2:5] = 150
    affine = np.diag([-1.5, -2.0, 3.0, 1.0])
    for path in write_series(tmp_path / "series", voxels, affine):
        path.rename(path.with_suffix(suffix))
    (tmp_path / "series" / "._IMG").write_bytes(b"of a file manager")
    found = post(client, zipped(tmp_path / "series"), "series.zip").json()
    record = found["record"]
    assert (record["case"], record["input"], record["warnings"]) == ("series", "series.zip", [])
    assert record["volume_ml"] == pytest.approx(4 * 4 * 3 * 9 / 1000)
    mask = nibabel.Nifti1Image.from_bytes(gzip.decompress(client.get(found["links"]["mask"]).content))
    np.testing.assert_array_equal(np.asarray(mask.dataobj) > 0, voxels > 100)
    np.testing.assert_allclose(mask.affine, affine)
    assert "dicom_seg" not in found["links"] or client.get(found["links"]["dicom_seg"]).content[128:132] == b"DICM"


def test_what_cannot_be_read_is_said_as_the_command_says_it_with_the_client_s_names(client, scan, tmp_path, home):
    folder = tmp_path / "pair"
    for name in ("a.nii.gz", "b.nii.gz"):
        save_scan(folder / name)
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / "a.nii.gz").write_bytes(scan[:200])
    constant = tmp_path / "constant.nii"
    nibabel.save(nibabel.Nifti1Image(np.ones((5, 5, 5), np.float32), np.eye(4)), constant)
    for content, name, status, line in (
        (zipped(folder), "pair.zip", 422, "pair.zip holds 2 images: send one at a time"),
        (zipped(torn), "torn.zip", 422, "torn.zip/torn/a.nii.gz cannot be read"),
        (scan[:200], "cut.nii.gz", 422, "cut.nii.gz cannot be read"),
        (constant.read_bytes(), "c.nii", 422, "c.nii is 1 in all voxels: there is nothing to segment"),
        (b"[]", "list.json", 415, "list.json is not an image that can be read: use .nii.gz,"),
        (b"", "empty.nii", 422, "empty.nii cannot be read"),
        (b"", "", 400, "the form holds no file named `file`"),
    ):
        answer = post(client, content, name)
        assert answer.status_code == status, answer.text
        assert error(answer).startswith(line)
        assert str(home) not in answer.text
    assert list(home.iterdir()) == []


def test_headers_that_name_files_read_none_of_the_server(client, tmp_path):
    secret = tmp_path / "secret.raw"
    secret.write_bytes(bytes(7 * 6 * 4 * 2))
    fields = "type: short\ndimension: 3\nsizes: 7 6 4\nendian: little\nencoding: raw\n"
    for place in (str(secret), "../../secret.raw"):
        answer = post(client, f"NRRD0004\n{fields}data file: {place}\n".encode(), "x.nhdr")
        assert answer.status_code == 422
        assert "lies outside its folder" in error(answer)


def test_an_unexpected_failure_is_one_line_and_is_logged(client, model, scan, home, caplog):
    def fail(error):
        def raising(_):
            raise error

        model.before = raising

    fail(RuntimeError(f"odd\nthing in {home}"))
    answer = post(client, scan)
    assert answer.status_code == 500
    assert error(answer).startswith("scan.nii.gz cannot be segmented (RuntimeError: odd thing in")
    assert any(record.levelname == "ERROR" for record in caplog.records)
    fail(MemoryError())
    answer = post(client, scan)
    assert (answer.status_code, error(answer)) == (
        413,
        "scan.nii.gz does not fit into memory: crop or resample it",
    )
    fail(OSError(28, "No space left on device"))
    answer = post(client, scan)
    assert (answer.status_code, error(answer)) == (507, "the disk of the server is full")
    assert list(home.iterdir()) == []
    model.before = lambda _: None
    assert post(client, scan).status_code == 200


def test_a_warning_of_the_scan_is_in_the_record(client, tmp_path):
    found = post(client, save_scan(tmp_path / "dark.nii", organ=False).read_bytes(), "dark.nii").json()
    assert found["record"]["warnings"] == [EMPTY]


def test_the_interface_is_described_without_anything_from_elsewhere(client):
    described = client.get("/openapi.json").json()
    assert {"/predict", "/results/{name}", "/results/{name}/{file}"} == described["paths"].keys()
    assert "in_distribution" in described["components"]["schemas"]["PredictedCase"]["properties"]
    assert "file" in json.dumps(described["paths"]["/predict"]["post"]["requestBody"])
    for place in ("/docs", "/redoc", "/nothing"):
        answer = client.get(place)
        assert (answer.status_code, error(answer)) == (
            404,
            f"there is no {place}: /openapi.json lists what there is",
        )
    assert client.get("/predict").status_code == 405


def test_stacked_channels_are_the_volumes_of_one_file(serve, tmp_path):
    model = BrightModel()
    model.tasks = {name: replace(task, channel=[0, 1]).known for name, task in model.tasks.items()}
    volumes = [np.asarray(nibabel.load(save_scan(tmp_path / f"{seed}.nii", seed)).dataobj) for seed in range(2)]
    nibabel.save(nibabel.Nifti1Image(np.stack(volumes, axis=-1), AFFINE), tmp_path / "both.nii.gz")
    client = serve(model)
    assert post(client, (tmp_path / "both.nii.gz").read_bytes(), "both.nii.gz").status_code == 200
    answer = post(client, (tmp_path / "0.nii").read_bytes(), "one.nii")
    assert (answer.status_code, error(answer).partition(",")[0]) == (422, "one.nii comes with channel 0")
