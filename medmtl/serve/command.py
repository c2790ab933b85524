"""The command `medmtl serve`."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from rich.console import Console

from medmtl.errors import ConfigError, RunError
from medmtl.extras import how_to_install
from medmtl.io.stored import MAX_VOXELS_VARIABLE
from medmtl.predict.command import source_of
from medmtl.predict.model import Model
from medmtl.predict.records import digest_of
from medmtl.serve.options import Options
from medmtl.terminal import terminal
from medmtl.training.trust import use_current_folder

try:
    import uvicorn

    from medmtl.serve.app import create_app
    from medmtl.serve.guards import is_local
    from medmtl.serve.predicting import Predictor
    from medmtl.serve.service import Service
except ImportError as missing:
    if (missing.name or "").startswith("medmtl"):
        raise
    raise ConfigError(f"{missing.name or missing} is not installed", fix=how_to_install("serve")) from None

MOST_VOXELS = 2**27  # of a volume, 512 x 512 x 512, where the environment names no other number
BACKLOG = 512  # connections that wait to be accepted
MOST_CONNECTIONS = 1000
GRACE_SECONDS = 60  # in which answers are finished after the server was told to stop


def run_serve(options: Options) -> None:
    """Serve a run until Ctrl-C or a termination.

    Args:
        options: what to serve, where, and within which bounds.

    Raises:
        MedMTLError: for everything that the user can fix.
    """
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # its errors are answered
    os.environ.setdefault(MAX_VOXELS_VARIABLE, str(MOST_VOXELS))
    with _listening(options) as listening:
        source = source_of(options.run)
        if options.trust:
            use_current_folder()
        model = Model.load(source, options.device, trust=options.trust, fast=options.fast)
        with TemporaryDirectory(prefix="medmtl-serve-") as folder:
            service = Service.of(Predictor(model, digest_of(source), options), Path(folder).resolve(), options)
            _say(terminal(), options, model, listening)
            config = uvicorn.Config(
                create_app(service),
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=MOST_CONNECTIONS,
                timeout_graceful_shutdown=GRACE_SECONDS,
                ws="none",
            )
            _Server(config, service).run([listening])


class _Server(uvicorn.Server):
    """A server that refuses what waits as soon as it is told to stop, and finishes what it has begun."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal."""
        self._service.work.stop()
        super().handle_exit(sig, frame)


@contextmanager
def _listening(options: Options) -> Iterator[socket.socket]:
    """A socket that listens, before anything large is read.

    Raises:
        RunError: the port is taken, or there is no such address.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        made = socket.create_server((options.host, options.port), family=family, backlog=BACKLOG)
    except OSError as error:
        where = f"{options.host}, port {options.port}, cannot be listened on ({error.strerror or error})"
        raise RunError(where, fix="choose another with --port or --host") from None
    with made:
        yield made


def _say(console: Console, options: Options, model: Model, listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    host = f"[{options.host}]" if ":" in options.host else options.host
    address = f"http://{host}:{port}"
    lines = [
        f"serving {options.run} ({model.name}): {', '.join(model.tasks)}",
        f"page: {address}/",
        f"programs: POST {address}/predict, described at {address}/openapi.json",
        f"3D Slicer: {address} as the server of the MONAI Label plug-in",
    ]
    if not is_local(options.host):
        lines.append("whoever reaches this address can send scans: there is no password, and nothing is encrypted")
    for line in [*lines, "Ctrl-C stops it"]:
        console.print(line, soft_wrap=True)
