"""The pages of the tutorials are the notebooks, executed."""

import base64
import re
from pathlib import Path

import nbformat
import pytest
from doc_pages import DOCS, ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from tutorials import render

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_page_has_the_code_of_its_notebook_and_its_pictures(path: Path) -> None:
    page = (DOCS / "tutorials" / f"{path.stem}.md").read_text()
    code = re.findall(r"^```python\n(.*?)\n```$", page, flags=re.MULTILINE | re.DOTALL)
    cells = nbformat.read(path, as_version=4).cells
    assert code == [cell.source for cell in cells if cell.cell_type == "code"], "run `make tutorials`"
    for cell in cells:
        if cell.cell_type == "markdown" and not cell.source.startswith("# "):
            assert cell.source in page, "run `make tutorials`"
    shown = re.findall(r"!\[[^]]*\]\(([^)]+)\)", page)
    assert shown
    assert {DOCS / "tutorials" / name for name in shown} == {*(DOCS / "tutorials").glob(f"{path.stem}-*.png")}
    assert "site-packages" not in page  # advice of libraries, with a path of the machine
    assert re.search(r"executed on \d{4}-\d\d-\d\d with ", page)


def test_outputs_are_kept_without_progress_and_the_advice_of_libraries() -> None:
    picture = base64.b64encode(b"\x89PNG").decode()
    cell = new_code_cell(
        "fit()",
        outputs=[
            new_output("stream", name="stdout", text="1 %\r99 %\r100 %\nDice 0.9\n"),
            new_output("stream", name="stdout", text=f"in {Path.home()}/runs\n"),
            new_output("stream", name="stderr", text="library: advice\nmedmtl: error: no case\n"),
            new_output("display_data", data={"image/png": picture, "text/plain": "<Figure>"}),
        ],
    )
    text, pictures = render(new_notebook(cells=[new_markdown_cell("# Title"), cell]), "one")
    assert text == (
        "# Title\n\n```python\nfit()\n```\n\n```text\n100 %\nDice 0.9\nin ~/runs\nmedmtl: error: no case\n```\n\n"
        "![Output of the cell above](one-1.png)\n"
    )
    assert pictures == {"one-1.png": b"\x89PNG"}
