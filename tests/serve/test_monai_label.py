"""The plug-in of 3D Slicer gets what it asks for, in the order and the words in which its client asks.

The requests are written after the client of MONAI Label: it looks for a login, reads `/info/`, sends the volume as a
form whose file has a whole path for a name, and takes the answer apart as a form: parts with a file name are results.
"""

import json
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from fastapi.testclient import TestClient
from predict_sample import class_model, save_classes, save_scan

LIMIT = "----------lImIt_of_THE_fIle_eW_$"  # of the client's forms


def form(fields, files):
    """A form as the client writes it."""
    lines = []
    for name, value in fields.items():
        lines += [f"--{LIMIT}", f'Content-Disposition: form-data; name="{name}"', "", value]
    for name, (path, content) in files.items():
        head = f'Content-Disposition: form-data; name="{name}"; filename="{path}"'
        lines += [f"--{LIMIT}", head, "Content-Type: application/octet-stream", "", content]
    body = b"".join((part if isinstance(part, bytes) else part.encode()) + b"\r\n" for part in lines)
    return body + f"--{LIMIT}--\r\n\r\n".encode(), {"content-type": f"multipart/form-data; boundary={LIMIT}"}


def infer(client, place, params=None, files=None):
    params = {"client_id": "user-xyz", "result_extension": ".nrrd", "result_dtype": "uint8", **(params or {})}
    content, headers = form({"params": json.dumps(params)}, files or {})
    return client.post(place, content=content, headers=headers)


def parts_of(answer) -> tuple[dict, dict[str, bytes]]:
    """Parameters, and file name -> content, as the client finds them."""
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + answer.content)
    parts: list[Message] = message.get_payload()
    named = {part.get_param("name", header="content-disposition"): part for part in parts}
    files = {part.get_filename(): part.get_payload(decode=True) for part in parts if part.get_filename()}
    return json.loads(named["params"].get_payload(decode=True)), files


def test_a_user_who_segments_a_volume_gets_its_mask_and_the_verdict(client, model, scan, tmp_path):
    assert client.get("/auth/").status_code != 200  # no login
    info = client.get("/info/").json()
    assert not info.get("config")
    assert client.get("/train/?check_if_running=true").status_code != 200  # no training is running
    assert list(info["models"]) == ["nearest_task", "LiverCT", "KidneyT2"]
    assert {each["type"] for each in info["models"].values()} == {"segmentation"}
    assert info["models"]["KidneyT2"]["labels"] == {"KidneyT2": 1}
    assert info["labels"] == ["LiverCT", "KidneyT2"]
    content, headers = form({"params": '{"client_id": "user-xyz"}'}, {"file": ("/tmp/Slicer/tmpab12.nii.gz", scan)})
    sent = client.put("/datastore/?image=Volume+1", content=content, headers=headers)
    assert (sent.status_code, sent.json()) == (200, {"image": "Volume 1"})
    for _ in range(2):  # a scan is kept
        answer = infer(client, "/infer/KidneyT2?image=Volume+1")
        assert answer.status_code == 200
    params, files = parts_of(answer)
    assert params["label_names"] == {"KidneyT2": 1}
    assert (params["verdict"], params["mask"]) == ("in-distribution", "reliable")
    assert params["record"]["p_value"] == 0.5
    assert model.calls == [("scan", "KidneyT2", None)] * 2
    ((name, mask),) = files.items()
    assert name.endswith(".nrrd")
    (tmp_path / "mask.nrrd").write_bytes(mask)
    found, image = (SimpleITK.ReadImage(str(tmp_path / each)) for each in ("mask.nrrd", "made/scan.nii.gz"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(found), SimpleITK.GetArrayFromImage(image) > 100)
    for grid in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(found, grid)(), getattr(image, grid)(), atol=1e-5)


def test_a_session_holds_a_scan_until_it_is_closed(client, scan, home):
    answer = client.put("/session/", files=[("files", ("tmp.nii.gz", scan))], data={"client_id": "user-xyz"})
    name = answer.json()["session_id"]
    assert answer.json()["session_info"]["image"] == "tmp.nii.gz"
    assert client.get(f"/session/{name}").status_code == 200
    params, files = parts_of(infer(client, f"/infer/nearest_task?image=&session_id={name}"))
    assert params["label_names"] == {"LiverCT": 1}
    assert len(files) == 1
    assert client.delete(f"/session/{name}").status_code == 200
    assert client.get(f"/session/{name}").status_code == client.delete(f"/session/{name}").status_code == 404
    assert infer(client, f"/infer/nearest_task?session_id={name}").status_code == 404
    assert len(list(home.iterdir())) == 1  # the result


@pytest.mark.parametrize(("extension", "output"), [(".nii.gz", "image"), (".nrrd", "image"), (".nrrd", "json")])
def test_a_scan_can_come_with_the_request_and_the_answer_in_another_form(client, scan, tmp_path, extension, output):
    place = f"/infer/LiverCT?output={output}"
    answer = infer(client, place, {"result_extension": extension}, {"file": ("/x/y.nii.gz", scan)})
    assert answer.status_code == 200
    if output == "json":
        assert answer.json()["record"]["input"] == "y.nii.gz"
        return
    path = tmp_path / f"mask{extension}"
    path.write_bytes(answer.content)
    assert SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).sum() == 48


def test_classes_have_the_label_values_of_the_mask(serve, tmp_path):
    client = serve(class_model(Organs={"classes": {"soft": 7, "bright": 3}}))
    save_classes(tmp_path / "x.nii.gz")
    assert client.get("/info/").json()["models"]["Organs"]["labels"] == {"soft": 7, "bright": 3}
    files = {"file": ("/x/x.nii.gz", (tmp_path / "x.nii.gz").read_bytes())}
    answer = infer(client, "/infer/nearest_task", {"result_extension": ".nii.gz"}, files)
    params, masks = parts_of(answer)
    assert params["label_names"] == {"soft": 7, "bright": 3}
    (tmp_path / "mask.nii.gz").write_bytes(masks["mask.nii.gz"])
    assert set(np.unique(np.asarray(nibabel.load(tmp_path / "mask.nii.gz").dataobj))) == {0, 3, 7}


def test_scans_of_two_users_are_told_apart(client, tmp_path):
    for user, organ in (("one", True), ("two", False)):
        scan = save_scan(tmp_path / f"{user}.nii.gz", organ=organ).read_bytes()
        content, headers = form({"params": json.dumps({"client_id": user})}, {"file": ("/x.nii.gz", scan)})
        client.put("/datastore/?image=Volume", content=content, headers=headers)
    for user, volume in (("one", 0.432), ("two", 0.0)):
        params, _ = parts_of(infer(client, "/infer/LiverCT?image=Volume", {"client_id": user}))
        assert params["record"]["volume_ml"] == pytest.approx(volume)


REFUSED = [
    ("/infer/Spleen?image=x", {}, 404, "there is no model Spleen: use one of: nearest_task, LiverCT, KidneyT2"),
    ("/infer/LiverCT?image=x", {}, 404, "this scan is not kept, or no longer: send the scan again"),
    ("/infer/LiverCT?image=/etc/passwd", {}, 404, "this scan is not kept, or no longer"),
    ("/infer/LiverCT?session_id=../../x", {}, 404, "this scan is not kept, or no longer"),
    ("/infer/LiverCT", {}, 400, "neither file, image nor session_id is given"),
    ("/infer/LiverCT?image=x&output=dicom_seg", {}, 400, "output=dicom_seg: use image, json or all"),
    ("/infer/LiverCT?image=x", {"result_extension": ".exe"}, 400, "result_extension .exe: use .nrrd or .nii.gz"),
    ("/train/LiverCT", {}, 501, "medmtl serve predicts, and learns from no labels"),
    ("/activelearning/random", {}, 501, "medmtl serve predicts"),
]


@pytest.mark.parametrize(("place", "params", "status", "said"), REFUSED)
def test_what_is_not_there_or_not_done_is_said_in_a_line(client, place, params, status, said):
    answer = infer(client, place, params)
    assert answer.status_code == status
    assert answer.json()["error"].startswith(said)


def test_labels_are_not_taken_and_parameters_are_json(client, scan):
    assert client.put("/datastore/label?image=x", files={"label": ("x.nrrd", b"")}).status_code == 501
    content, headers = form({"params": "[" * 5000}, {"file": ("/x.nii.gz", scan)})
    answer = client.post("/infer/LiverCT", content=content, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "the part `params` of the form is no JSON object")


def test_a_kept_scan_has_no_second_place_on_disk_where_links_are_possible(client, scan, home, model):
    content, headers = form({"client_id": "a"}, {"file": ("/x.nii.gz", scan)})
    client.put("/datastore/?image=x", content=content, headers=headers)
    kept: list[Path] = [path for path in home.rglob("upload-0")]
    names: list[int] = []
    model.before = lambda _: names.append(kept[0].stat().st_nlink)
    assert infer(client, "/infer/LiverCT?image=x", {"client_id": "a"}).status_code == 200
    assert (names, kept[0].stat().st_nlink) == ([2], 1)


def test_scans_of_one_name_from_two_addresses_are_told_apart(client, serve, model, scan):
    content, headers = form({"client_id": "user-xyz"}, {"file": ("/x.nii.gz", scan)})
    assert client.put("/datastore/?image=x", content=content, headers=headers).status_code == 200
    assert infer(client, "/infer/LiverCT?image=x").status_code == 200
    elsewhere = TestClient(client.app, base_url="http://127.0.0.1:8000", client=("192.0.2.7", 50000))
    answer = infer(elsewhere, "/infer/LiverCT?image=x")
    assert (answer.status_code, "send" in answer.json()["error"]) == (404, True)


@pytest.mark.parametrize("client_id", [["a"], 3, {"a": 1}])
def test_a_user_whose_name_is_no_text_is_refused_in_a_line(client, scan, client_id):
    content, headers = form({"params": json.dumps({"client_id": client_id})}, {"file": ("/x.nii.gz", scan)})
    for answer in (
        client.put("/datastore/?image=x", content=content, headers=headers),
        infer(client, "/infer/LiverCT?image=x", {"client_id": client_id}),
    ):
        assert (answer.status_code, answer.json()["error"]) == (400, "client_id is no text")
