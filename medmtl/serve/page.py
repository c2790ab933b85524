"""The pages: what `medmtl.report` makes, with a policy by which they run their own script and load nothing else."""

import base64
import hashlib
import re
from collections.abc import Mapping
from types import MappingProxyType

from fastapi.responses import HTMLResponse

from medmtl.io.input import MODALITIES
from medmtl.report.predict.gallery import read_stack
from medmtl.report.predict.served import Shown, served_page
from medmtl.serve.predicting import Result
from medmtl.serve.service import Service
from medmtl.version import __version__

NONE: Mapping[str, str] = MappingProxyType({})


def page_of(service: Service, result: Result | None = None, links: Mapping[str, str] = NONE) -> HTMLResponse:
    """The page to drop a scan on.

    Args:
        service: that serves it.
        result: the scan that was predicted last; None: none yet.
        links: its files -> their addresses.
    """
    predictor, options = service.predictor, service.options
    facts = {
        "checkpoint": predictor.model.name,
        "digest": predictor.digest,
        "trained on": ", ".join(predictor.model.tasks),
        "medmtl": __version__,
    }
    kept = f"{options.keep_minutes} minutes, or until {options.keep} newer results are there"
    shown = None
    if result is not None:
        picture = result.files["picture.png"].read_bytes()
        shown = Shown(result.case, picture, read_stack(result.slices), links)
    page = served_page(list(predictor.model.tasks), MODALITIES, facts, kept, shown)
    return HTMLResponse(page, headers={"Content-Security-Policy": policy_of(page)})


def policy_of(page: str) -> str:
    """A content security policy for a page: its own script, requests to this server, and pictures within it."""
    digests = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        for script in re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    ]
    scripts = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
