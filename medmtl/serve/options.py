"""Options of `medmtl serve`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from medmtl.commands.flags import TRUST_HELP, OneLineParser

DESCRIPTION = (
    "Answer over HTTP: a page to drop a scan on, POST /predict for programs (the interface is described at "
    "/openapi.json), and what the MONAI Label plug-in of 3D Slicer asks for. Masks and verdicts are those of medmtl "
    "predict. One image is predicted at a time, and others wait. There is no password: only this machine is listened "
    "to, unless --host says otherwise. Results are kept in a temporary folder, which is removed at the end."
)
EXAMPLE = "example: medmtl serve --run runs/multitask"
MEGABYTE = 10**6


@dataclass(frozen=True)
class Options:
    """What to serve, where, and within which bounds.

    Attributes:
        run: run folder, or exported folder.
        host: address to listen on.
        port: to listen on; 0: any that is free.
        allow_host: names, besides addresses, by which browsers may reach the server.
        device: `cpu`, `cuda` or `auto`.
        fast: leave out the additional pass over the mirrored image, by which masks are checked.
        trust: import and build any class that the checkpoint names.
        max_upload: of a request, MB.
        queue: requests that may be received or wait, besides the image that is being predicted.
        receive: seconds in which a request must have arrived.
        keep: how many results are kept at most.
        keep_minutes: how long each of them is.
    """

    run: str
    host: str = "127.0.0.1"
    port: int = 8000
    allow_host: Sequence[str] = ()
    device: str = "auto"
    fast: bool = False
    trust: bool = False
    max_upload: int = 512
    queue: int = 8
    receive: int = 120
    keep: int = 100
    keep_minutes: int = 60

    @property
    def upload_bytes(self) -> int:
        """The most bytes of a request."""
        return self.max_upload * MEGABYTE

    @property
    def unpacked_bytes(self) -> int:
        """The most bytes that a zip may unpack to."""
        return 4 * self.upload_bytes


def parse(argv: Sequence[str]) -> Options:
    """Read a command line.

    Args:
        argv: what follows `medmtl serve`.

    Raises:
        ConfigError: an option is unknown, missing, or outside its domain.
    """
    return Options(**vars(serve_parser().parse_args(argv)))


def serve_parser() -> argparse.ArgumentParser:
    """The options of `medmtl serve`."""
    parser = OneLineParser(prog="medmtl serve", description=DESCRIPTION, epilog=EXAMPLE, allow_abbrev=False)
    parser.add_argument(
        "--run", required=True, help="run folder, for example runs/multitask, or a folder of medmtl export"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, reached from this machine alone)"
    )
    parser.add_argument(
        "--port", type=_port, default=8000, metavar="N", help="to listen on (default: 8000; 0: any that is free)"
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="name by which the server is reached, where that is no address and not localhost; may be given again",
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: cuda if available)"
    )
    parser.add_argument(
        "--fast",
        action="store_true",
        help="check masks by their volume alone, without an additional pass over the mirrored image",
    )
    parser.add_argument("--trust", action="store_true", help=TRUST_HELP)
    for option, default, metavar, text in (
        ("--max-upload", 512, "MB", "the most of a request; a zip may unpack to four times that"),
        ("--queue", 8, "N", "requests that may arrive or wait besides the one being predicted; others get 503"),
        ("--receive", 120, "SECONDS", "in which a request must have arrived"),
        ("--keep", 100, "N", "results to keep at most"),
        ("--keep-minutes", 60, "MINUTES", "for which a result is kept"),
    ):
        parser.add_argument(
            option,
            type=_not_negative if option == "--queue" else _above_zero,
            default=default,
            metavar=metavar,
            help=f"{text} (default: {default})",
        )
    return parser


def _port(text: str) -> int:
    value = _not_negative(text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port: use 0 to 65535")
    return value


def _above_zero(text: str) -> int:
    value = _not_negative(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def _not_negative(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number that fits")
    return int(text)
