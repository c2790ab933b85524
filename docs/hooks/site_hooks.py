"""Hooks of MkDocs: pages that are made from the code, and no page that needs the network."""

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
from generated import PAGES

LOADED = re.compile(r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="(https?:[^"]+)"')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those of the folder."""
    for path, make in PAGES.items():
        files.append(File.generated(config, path, content=make()))
    return files


def on_post_page(output: str, page: Page, **_: object) -> str:
    """Refuse a page that loads something from another place.

    Raises:
        PluginError: names the page and what it would load.
    """
    for address in LOADED.findall(output):
        raise PluginError(f"{page.file.src_uri} would load {address}: the site is read offline")
    return output
