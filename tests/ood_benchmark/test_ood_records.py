"""Records: the table of scores comes back as it was written."""

from dataclasses import fields
from pathlib import Path

import pytest

from medmtl.errors import RunError
from medmtl.results.benchmark import Record, read_records, write_records

RECORDS = [
    Record("spectral", "in_distribution", "LiverCT", 0, "LiverCT", "a", "p", 0.1, 0.9, 0.5, False),
    Record("spectral", "calibration", "LiverCT", 0, "LiverCT", "b", "q", 1 / 3, None),
    Record("spectral", "covariate", "noise", 5, "LiverCT", "a", "p", 2e-17, 0.25, 0.05, True),
    Record("ihf", "far", "Others, with a comma", 0, "", "c", "c", -4.0),
]


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    write_records(tmp_path / "ood.csv", RECORDS)
    assert read_records(tmp_path / "ood.csv") == RECORDS
    header = (tmp_path / "ood.csv").read_text().splitlines()[0]
    assert header == "detector,group,condition,severity,task,case,patient,score,dice,p_value,rejected"
    assert header.split(",") == [field.name for field in fields(Record)]


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "detector,group,condition,severity\nspectral,far,X,zero\n"])
def test_another_table_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "ood.csv").write_text(text)
    with pytest.raises(RunError, match=r"ood\.csv"):
        read_records(tmp_path / "ood.csv")


def test_a_table_of_an_earlier_version_is_refused_by_its_column(tmp_path: Path) -> None:
    header = "detector,group,source,severity,task,case,patient,score,dice,p_value,rejected"
    (tmp_path / "ood.csv").write_text(f"{header}\nspectral,familiar,Liver,0,Liver,a,p,0.5,,,\n")
    with pytest.raises(RunError, match=r"ood\.csv has no column condition: run `medmtl ood` again"):
        read_records(tmp_path / "ood.csv")


def test_a_missing_table_is_answered_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="medmtl ood"):
        read_records(tmp_path / "ood.csv")
