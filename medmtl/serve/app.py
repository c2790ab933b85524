"""The application: predict a scan, and fetch what was found; `/openapi.json` describes it."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from medmtl.results.prediction import PredictedCase
from medmtl.serve.answers import RequestError, error, failed
from medmtl.serve.guards import Guard
from medmtl.serve.monai_label import monai_label
from medmtl.serve.page import page_of
from medmtl.serve.predicting import Result
from medmtl.serve.service import Service
from medmtl.version import __version__

logger = logging.getLogger(__name__)

EXPIRY_SECONDS = 15  # between two looks at what is over
ANSWER = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "links": {"type": "object", "additionalProperties": {"type": "string"}},
        "record": {"$ref": "#/components/schemas/PredictedCase"},
    },
}
FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "a scan as medmtl predict reads it, or a zipped DICOM series",
                        },
                        "task": {"type": "string", "description": "whose organ to segment; without it the nearest"},
                        "modality": {"type": "string", "description": "CT, MR, PET or other"},
                    },
                }
            }
        },
    }
}
ERRORS = {
    "400": "the form is malformed, or was cut off",
    "403": "asked by a page of another site, or by an unknown name",
    "404": "not kept, or no longer",
    "408": "the scan did not arrive in time",
    "413": "the scan is too large",
    "415": "not an image that can be read",
    "422": "the image cannot be predicted",
    "503": "all places are taken: Retry-After says when to try again",
}
ERROR = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
Responses = dict[int | str, dict[str, Any]]


def create_app(service: Service) -> ASGIApp:
    """The application of a service, with its guards."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        expiring = asyncio.create_task(_expire(service))
        try:
            yield
        finally:
            expiring.cancel()
            await asyncio.to_thread(service.work.close)

    app = FastAPI(
        title="medmtl serve",
        version=__version__,
        description="Masks and verdicts of medmtl predict. For research: no part of it is a diagnosis.",
        docs_url=None,  # it would load a script from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_exception_handler(RequestError, _refused)
    app.add_exception_handler(HTTPException, _unknown)
    app.add_exception_handler(Exception, _failed)
    app.add_exception_handler(RequestValidationError, _invalid)
    _add_routes(app, service)
    app.include_router(monai_label(service))
    described = app.openapi()
    schema = TypeAdapter(PredictedCase).json_schema(ref_template="#/components/schemas/{model}")
    described.setdefault("components", {}).setdefault("schemas", {})["PredictedCase"] = schema
    return Guard(app, [service.options.host, *service.options.allow_host])


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.get("/", include_in_schema=False)
    def start() -> Response:
        return page_of(service)

    @app.post("/predict", openapi_extra=FORM, responses=_documented("record and addresses", ANSWER))
    async def predict(request: Request) -> Response:
        """Segment a scan, and say whether the image is like those of the training and the mask can be relied on."""
        async with service.received(request) as (form, folder):
            task, modality = form.texts.get("task") or None, form.texts.get("modality") or None
            result = await service.predicted(request, form.file("file"), folder, task, modality)
        links = {"page": f"/results/{folder.name}", **_links(folder.name, result)}
        return JSONResponse({"id": folder.name, "links": links, "record": result.case.to_dict()})

    @app.get("/results/{name}", responses=_documented("a page with the verdicts and a slider", None))
    def page(name: str) -> Response:
        """What was found, for a reader."""
        result = service.results.get(name)
        return page_of(service, result, _links(name, result))

    @app.get("/results/{name}/{file}", responses=_documented("mask, record.json or picture.png", None))
    def file(name: str, file: str) -> Response:
        """A file of a result: the mask on the scan's own grid, the record of `medmtl predict`, the picture."""
        result = service.results.get(name)
        if file == "record.json":
            return JSONResponse(result.case.to_dict())
        path = result.files.get(file)
        if path is None or not path.is_file():
            named = ", ".join(["record.json", *result.files])
            raise RequestError(HTTPStatus.NOT_FOUND, f"there is no {file[:80]}", f"ask for one of: {named}")
        return FileResponse(path, filename=f"{result.case.case}_{file}")

    @app.delete("/results/{name}", status_code=HTTPStatus.NO_CONTENT)
    def forget(name: str) -> None:
        """Remove a result before its time is over."""
        service.results.remove(name)


def _links(name: str, result: Result) -> dict[str, str]:
    files = {kind: f"/results/{name}/{file}" for kind, file in result.case.files.items()}
    return {**files, "record": f"/results/{name}/record.json"}


def _documented(what: str, schema: dict[str, Any] | None) -> Responses:
    found = {"description": what, "content": {"application/json": {"schema": schema}} if schema else {}}
    errors: Responses = {
        status: {"description": meaning, "content": {"application/json": {"schema": ERROR}}}
        for status, meaning in ERRORS.items()
        if schema or status in ("403", "404")
    }
    return {200: found, **errors}


async def _expire(service: Service) -> None:
    while True:
        await asyncio.sleep(EXPIRY_SECONDS)
        await asyncio.to_thread(service.expire)


async def _refused(_: Request, refused: Exception) -> Response:
    assert isinstance(refused, RequestError)
    logger.info("refused (%d): %s", refused.status, refused.line)
    return error(refused.status, refused.line, refused.headers)


async def _failed(_: Request, failure: Exception) -> Response:
    return failed(failure)


async def _unknown(request: Request, unknown: Exception) -> Response:
    assert isinstance(unknown, HTTPException)
    path = request.url.path[:80]
    if unknown.status_code == HTTPStatus.NOT_FOUND:
        return error(HTTPStatus.NOT_FOUND, f"there is no {path}: /openapi.json lists what there is")
    return error(unknown.status_code, f"{request.method} {path}: {unknown.detail}", dict(unknown.headers or {}))


async def _invalid(request: Request, _: Exception) -> Response:
    return error(HTTPStatus.UNPROCESSABLE_ENTITY, f"{request.url.path[:80]}: a parameter is missing or malformed")
