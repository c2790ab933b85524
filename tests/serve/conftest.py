from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from predict_sample import BrightModel, save_scan

from medmtl.predict.model import Model
from medmtl.serve.app import create_app
from medmtl.serve.options import Options
from medmtl.serve.predicting import Predictor
from medmtl.serve.service import Service

ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture
def model() -> BrightModel:
    """A stand-in whose verdicts follow from the name of an image, which is always the server's own."""
    bright = BrightModel()
    bright.tasks = {name: task.known for name, task in bright.tasks.items()}
    return bright


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The temporary folder of the server."""
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def service_of(home: Path) -> Callable[..., Service]:
    """Make a service: `service_of(model, max_upload=1)`."""

    def make(model: Model, **options: Any) -> Service:
        given = Options("run", **options)
        return Service.of(Predictor(model, "d" * 64, given), home, given)

    return make


@pytest.fixture
def serve(service_of: Callable[..., Service], undrawn: None) -> Iterator[Callable[..., TestClient]]:
    """Serve a model: `serve(model, queue=1)` is a client; `.service` is what it asks."""
    with ExitStack() as stack:

        def start(model: Model, **options: Any) -> TestClient:
            service = service_of(model, **options)
            client = stack.enter_context(TestClient(create_app(service), base_url=ADDRESS))
            client.service = service
            return client

        yield start


@pytest.fixture
def client(serve: Callable[..., TestClient], model: BrightModel) -> TestClient:
    """A client of a server with the stand-in."""
    return serve(model)


@pytest.fixture
def scan(tmp_path: Path) -> bytes:
    """A NIfTI file."""
    return save_scan(tmp_path / "made" / "scan.nii.gz").read_bytes()
