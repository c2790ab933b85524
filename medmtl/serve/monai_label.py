"""What the MONAI Label plug-in of 3D Slicer asks a server for, as far as automatic segmentation needs it.

Written after its client and server (Project-MONAI/MONAILabel, December 2025). The plug-in reads `/info/`, sends the
volume to `/datastore/` or opens a session with it, and posts to `/infer/MODEL`; it expects a form with `params` and the
mask in the format that it named. A model is the network for the nearest task, or for one of its tasks.
Nothing is learnt from labels here, so training, active learning and a store of labels are answered by 501.
"""

import json
import os
import secrets
import shutil
from http import HTTPStatus
from itertools import chain
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from medmtl.data.classes import Classes
from medmtl.io.itk import Grid, write_itk
from medmtl.io.stored import LPS_TO_RAS
from medmtl.predict.model import Model
from medmtl.serve.answers import RequestError
from medmtl.serve.predicting import Result
from medmtl.serve.service import Service
from medmtl.serve.uploads import Form, Upload, label_of
from medmtl.version import __version__

NEAREST = "nearest_task"  # the model whose task is chosen by the image
FORMATS = (".nrrd", ".nii.gz")  # of masks, the default of the plug-in first
NOT_DONE = ("train", "activelearning", "scoring", "batch", "datastore/label")
CLIENT = "client_id"  # parameter by which the plug-in names its user


def monai_label(service: Service) -> APIRouter:
    """The routes, which are left out of `/openapi.json`: that of MONAI Label describes them."""
    router = APIRouter(include_in_schema=False)
    model = service.predictor.model

    @router.get("/info/")
    def info() -> dict[str, Any]:
        return info_of(model)

    @router.put("/datastore/")
    async def add_image(request: Request, image: str = "") -> dict[str, str]:
        async with service.received(request) as (form, folder):
            upload = form.file("file")
            name = label_of(image or upload.label)
            service.images.add(_kept_as(request, params_of(form), name), upload, folder)
        return {"image": name}

    @router.put("/session/")
    async def open_session(request: Request) -> dict[str, Any]:
        async with service.received(request, ("files",)) as (form, folder):
            name, upload = secrets.token_hex(16), form.file("files")
            service.images.add(name, upload, folder)
        return {"session_id": name, "session_info": _session(upload, service)}

    @router.get("/session/{name}")
    def session(name: str) -> dict[str, Any]:
        return _session(service.images.get(name), service)

    @router.delete("/session/{name}")
    def close_session(name: str) -> dict[str, Any]:
        found = _session(service.images.get(name), service)
        service.images.remove(name)
        return found

    @router.post("/infer/{name:path}")
    async def infer(
        request: Request, name: str, image: str = "", session_id: str = "", output: str = "all"
    ) -> Response:
        if name not in (NEAREST, *model.tasks):
            known = ", ".join([NEAREST, *model.tasks])
            raise RequestError(HTTPStatus.NOT_FOUND, f"there is no model {name[:80]}", f"use one of: {known}")
        if output not in ("image", "json", "all"):
            raise RequestError(HTTPStatus.BAD_REQUEST, f"output={output[:80]}", "use image, json or all")
        async with service.received(request) as (form, folder):
            params = params_of(form)
            wanted = str(params.get("result_extension") or FORMATS[0])
            if wanted not in FORMATS:
                raise RequestError(
                    HTTPStatus.BAD_REQUEST, f"result_extension {wanted[:80]}", f"use {' or '.join(FORMATS)}"
                )
            if "file" in form.files:
                upload = form.files["file"]
            elif session_id or image:
                key = session_id or _kept_as(request, params, label_of(image))
                upload = _copied(service.images.get(key), folder)
            else:
                raise RequestError(HTTPStatus.BAD_REQUEST, "neither file, image nor session_id is given", "send a scan")
            task = name if name in model.tasks else None
            result = await service.predicted(request, upload, folder, task, None)
        return _answer(result, output, wanted, folder)

    async def not_done() -> None:
        raise RequestError(HTTPStatus.NOT_IMPLEMENTED, "medmtl serve predicts, and learns from no labels")

    for place in NOT_DONE:
        router.add_api_route(f"/{place}/{{_:path}}", not_done, methods=["GET", "POST", "PUT", "DELETE"])
    router.add_api_route("/datastore/label", not_done, methods=["GET", "POST", "PUT", "DELETE"])
    return router


def info_of(model: Model) -> dict[str, Any]:
    """What the server says of itself."""
    every = {name: labels_of(name, task.classes) for name, task in model.tasks.items()}
    union = {label: number for number, label in enumerate(dict.fromkeys(chain.from_iterable(every.values())), 1)}
    described = {
        NEAREST: (union, "the task is that whose training images are nearest to the image"),
        **{name: (labels, f"{name}: {model.tasks[name].preprocessing}") for name, labels in every.items()},
    }
    return {
        "name": f"medmtl: {model.name}",
        "description": "Masks and verdicts of medmtl predict; for research, no part of it is a diagnosis",
        "version": __version__,
        "labels": list(union),
        "models": {
            name: {"type": "segmentation", "labels": labels, "dimension": 3, "description": text, "config": {}}
            for name, (labels, text) in described.items()
        },
        **{nothing: {} for nothing in ("trainers", "strategies", "scoring", "train_stats", "datastore")},
    }


def labels_of(task: str, classes: Classes) -> dict[str, int]:
    """The labels of a task's masks: name -> value; of an organ of interest the name is that of the task."""
    return {task: 1} if classes.merged else dict(zip(classes.names, classes.written, strict=True))


def params_of(form: Form) -> dict[str, Any]:
    """The parameters that the plug-in sends as JSON in a part of a form.

    Raises:
        RequestError: they are none.
    """
    texts = form.texts
    try:
        found = json.loads(texts.get("params") or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RequestError(HTTPStatus.BAD_REQUEST, "the part `params` of the form is no JSON object")
    return {CLIENT: texts.get(CLIENT), **found}


def _kept_as(request: Request, params: dict[str, Any], name: str) -> tuple[str, str, str]:
    """What a scan of the datastore is kept as.

    Slicer calls volumes of many users by the same name, and its users all `user-xyz` unless they change that, so that
    the address which they come from is a part of it.

    Raises:
        RequestError: the name of the user is no text.
    """
    client = params.get(CLIENT) or ""
    if not isinstance(client, str):
        raise RequestError(HTTPStatus.BAD_REQUEST, f"{CLIENT} is no text")
    return "" if request.client is None else request.client.host, client, name


def _session(upload: Upload, service: Service) -> dict[str, Any]:
    return {"name": upload.label, "image": upload.label, "expiry": 60 * service.options.keep_minutes}


def _copied(upload: Upload, folder: Path) -> Upload:
    """A second name for a scan that is kept, which the prediction may move and remove."""
    path = folder / "image"
    try:
        os.link(upload.path, path)
    except FileNotFoundError:  # its time was over just now
        raise RequestError(HTTPStatus.NOT_FOUND, "this scan is no longer kept", "send it again") from None
    except OSError:
        shutil.copyfile(upload.path, path)
    return Upload(path, upload.label)


def _answer(result: Result, output: str, wanted: str, folder: Path) -> Response:
    case = result.case
    params = {
        "label_names": dict(case.labels) or {case.task: 1},
        "verdict": case.verdict,
        "mask": case.mask_verdict,
        "record": case.to_dict(),
    }
    if output == "json":
        return JSONResponse(params)
    mask = _in_format(result.files[str(case.mask)], folder / f"mask{wanted}")
    if output == "image":
        return FileResponse(mask, filename=f"mask{wanted}")
    limit = secrets.token_hex(16)
    start = f'--{limit}\r\nContent-Disposition: form-data; name="params"\r\nContent-Type: application/json\r\n\r\n'
    middle = f'\r\n--{limit}\r\nContent-Disposition: form-data; name="image"; filename="mask{wanted}"\r\n'
    kind = "Content-Type: application/octet-stream\r\n\r\n"
    head = f"{start}{json.dumps(params)}{middle}{kind}".encode()
    content = head + mask.read_bytes() + f"\r\n--{limit}--\r\n".encode()
    return Response(content, media_type=f"multipart/form-data; boundary={limit}")


def _in_format(mask: Path, wanted: Path) -> Path:
    """A mask in the format that was asked for, on the same grid."""
    if mask.name.endswith("".join(wanted.suffixes)):
        return mask
    if not mask.name.endswith(".nii.gz"):
        raise RequestError(HTTPStatus.BAD_REQUEST, f"the mask is {mask.suffix}, as the scan is", "send it as NIfTI")
    image = nibabel.load(mask)
    affine = LPS_TO_RAS @ image.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    grid = Grid(tuple(spacing), tuple(affine[:3, 3]), tuple((affine[:3, :3] / spacing).ravel()))
    write_itk(wanted, np.asanyarray(image.dataobj), grid)
    return wanted
