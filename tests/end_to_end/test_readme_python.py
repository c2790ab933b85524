"""The README's lines of Python run as they stand there."""

import re
import shutil
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_a_scan_is_segmented_with_a_verdict_in_three_lines(
    trained: Path, phantoms: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "load(" in block]
    assert len(list(filter(None, block.splitlines()))) == 3
    shutil.copytree(trained, workplace / "runs" / "multitask")
    shutil.copy(next((phantoms / "LiverCT" / "imagesTr").glob("*.nii.gz")), workplace / "scan.nii.gz")
    capsys.readouterr()
    exec(compile(block, "README.md", "exec"), {})
    in_distribution, p_value, volume_ml = capsys.readouterr().out.split()
    assert in_distribution in ("True", "False", "None")
    assert 0 < float(p_value) <= 1
    assert float(volume_ml) >= 0
