"""Digests: the same for the same content, another after any change, and not read twice."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from medmtl.data.case import Case, LabelFile
from medmtl.data.digests import Digests


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember files that were written a moment ago."""
    monkeypatch.setattr("medmtl.data.digests.SETTLED", 0)


def test_a_digest_follows_the_content_and_is_not_read_twice(
    save_volume: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, label = save_volume("image.nii", [[[1.0]]]), save_volume("label.nii", [[[0.0]]])
    case = Case("a", "a", (image,), (LabelFile(label),))
    with Digests(tmp_path / "data.json") as digests:
        first = digests.case(case)
    with monkeypatch.context() as patched, Digests(tmp_path / "data.json") as again:
        patched.setattr("hashlib.file_digest", lambda *_: pytest.fail("read again"))
        assert again.case(case) == first
    with Digests(tmp_path / "data.json") as digests:
        assert digests.case(Case("b", "b", (save_volume("copy.nii", [[[1.0]]]),), case.labels)) == first
        save_volume("image.nii", [[[2.0, 3.0]]])
        assert digests.case(case) != first


def test_a_digest_follows_the_channels_and_what_a_mask_stands_for(
    save_volume: Callable[..., Path], tmp_path: Path
) -> None:
    one, other = (save_volume(f"{value}.nii", [[[value]]]) for value in (1.0, 2.0))
    case = Case("a", "a", (one, other), (LabelFile(one, 1),), (0, 1))
    changes = [
        {"channels": (1, 0)},
        {"channels": (0,)},
        {"images": (other, one)},
        {"labels": (LabelFile(one, 2),)},
        {"labels": (LabelFile(one),)},
    ]
    with Digests(tmp_path / "data.json") as digests:
        found = {digests.case(replace(case, **change)) for change in [{}, *changes]}
        found.add(digests.case(case, "organ [1], unknown 3"))
    assert len(found) == 2 + len(changes)


def test_digests_that_a_crash_cut_short_are_made_again(save_volume: Callable[..., Path], tmp_path: Path) -> None:
    case = Case("a", "a", (save_volume("image.nii", [[[1.0]]]),))
    with Digests(tmp_path / "data.json") as digests:
        first = digests.case(case)
    (tmp_path / "data.json").write_text("")
    with Digests(tmp_path / "data.json") as digests:
        assert digests.case(case) == first


def test_a_change_that_leaves_size_and_time_of_modification_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(b"one")
    case, times = Case("a", "a", (path,)), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    with Digests(tmp_path / "data.json") as digests:
        first = digests.case(case)
        while path.stat().st_ctime_ns == times[1]:  # a clock tick
            path.write_bytes(b"two")
            os.utime(path, ns=times)
        assert digests.case(case) != first


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medmtl.data.digests.SETTLED", 10**12)
    path = tmp_path / "a.nii"
    path.write_bytes(b"one")
    with Digests(tmp_path / "data.json") as digests:
        digests.case(Case("a", "a", (path,)))
    assert not (tmp_path / "data.json").exists()


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr", "a.hdr", "a.HEAD", "series"])
def test_a_digest_follows_the_voxels_beside_a_header(name: str, tmp_path: Path) -> None:
    voxels = {"a.HEAD": "a.BRIK", "series": "series/1.dcm", "a.hdr": "a.img"}.get(name, "a.raw")
    if name == "series":
        (tmp_path / name).mkdir()
    elif name in ("a.mhd", "a.nhdr"):
        image = SimpleITK.GetImageFromArray(np.zeros((4, 4, 4), np.uint8))
        SimpleITK.WriteImage(image, str(tmp_path / name))
    else:
        (tmp_path / name).write_bytes(b"header")
    with Digests(tmp_path / "data.json") as digests:
        found = []
        for value in (1, 2):
            (tmp_path / voxels).write_bytes(bytes([value]) * 64)
            found.append(digests.case(Case("a", "a", (tmp_path / name,))))
    assert found[0] != found[1]


def test_what_cannot_be_remembered_is_no_error(save_volume: Callable[..., Path], tmp_path: Path) -> None:
    case = Case("a", "a", (save_volume("image.nii", [[[1.0]]]),), ())
    (tmp_path / "file").write_bytes(b"")
    with Digests(tmp_path / "file" / "data.json") as digests:
        digests.case(case)
    assert not (tmp_path / "file").is_dir()
