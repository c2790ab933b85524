"""Execute the notebooks and write them with their outputs and pictures into docs/tutorials: `make tutorials` calls it.

python docs/hooks/tutorials.py [NOTEBOOK ...] [--set 'EPOCHS = 2' ...]

Notebooks are stored without outputs. Executing them takes minutes to half an hour each, so their pages are kept in git
and `make docs` only reads them; tests/docs/test_tutorials.py fails where a page no longer has the code of its notebook.
"""

import argparse
import base64
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "tutorials"
LONGEST = 40  # lines of the output of a cell; the middle of a longer one is left out
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def execute(path: Path, settings: Sequence[str]) -> tuple[Any, str]:
    """Execute a notebook in an empty folder.

    Args:
        path: the notebook.
        settings: lines that replace those of the cell tagged `parameters` which set the same name.

    Returns:
        The notebook with outputs, and the lines that were replaced in it, as written.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    used = []
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            names = set(re.findall(r"^(\w+) = ", cell.source, flags=re.MULTILINE))
            used = [line for line in settings if line.split(" = ")[0] in names]
            cell.metadata["shown"] = cell.source
            cell.source = "\n".join([cell.source, *used])
    os.environ["PYTHONWARNINGS"] = "ignore::UserWarning"  # of libraries, to developers; the kernel inherits it
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=None, resources={"metadata": {"path": folder}}).execute()
    return notebook, ", ".join(f"`{line}`" for line in used)


def render(notebook: Any, name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown.

    Args:
        notebook: with its outputs.
        name: of the page, without its ending.

    Returns:
        The text, and its pictures by file name.
    """
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.metadata.get('shown', cell.source)}\n```")
        lines = [line for output in cell.outputs for line in _lines(output)]
        if lines:
            shown = [*lines[: LONGEST // 2], "...", *lines[-LONGEST // 2 :]] if len(lines) > LONGEST else lines
            parts.append("\n".join(["```text", *shown, "```"]))
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                file = f"{name}-{len(pictures) + 1}.png"
                pictures[file] = base64.b64decode(output.data["image/png"])
                parts.append(f"![Output of the cell above]({file})")
    return "\n\n".join(parts) + "\n", pictures


def _lines(output: Any) -> Iterator[str]:
    """The lines of an output that a reader needs: no progress bars, and of the error stream those of medmtl."""
    data = output.get("data", {})
    text = "" if "image/png" in data else output.get("text") or data.get("text/plain", "")
    for line in ANSI.sub("", text).replace(str(Path.home()), "~").strip("\n").split("\n"):
        kept = line.rpartition("\r")[2].rstrip()
        if kept and (output.get("name") != "stderr" or kept.startswith("medmtl:")):
            yield kept


def write(path: Path, settings: Sequence[str]) -> None:
    """Execute a notebook and write its page and pictures.

    Args:
        path: the notebook.
        settings: see `execute`.
    """
    notebook, used = execute(path, settings)
    text, pictures = render(notebook, path.stem)
    values = f"with {used} in place of the values below" if used else "with the values below"
    note = (
        f"*This page is `notebooks/{path.name}`, executed on {date.today()} {values} (`make tutorials`). The phantoms "
        "are generated, and a short training says little even about these.*"
    )
    for old in PAGES.glob(f"{path.stem}-*.png"):
        old.unlink()
    for file, content in pictures.items():
        (PAGES / file).write_bytes(content)
    title, _, rest = text.partition("\n")
    (PAGES / f"{path.stem}.md").write_text(f"{title}\n\n{note}\n{rest}")


def main() -> None:
    """Write the pages of the notebooks that are named, or of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, default=sorted((ROOT / "notebooks").glob("*.ipynb")))
    parser.add_argument("--set", action="append", default=[], metavar="LINE", help="such as 'EPOCHS = 2'")
    options = parser.parse_args()
    for path in options.notebooks:
        write(path, options.set)


if __name__ == "__main__":
    main()
