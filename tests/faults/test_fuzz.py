"""Mutated inputs: whatever is wrong with one, it ends in an error for users."""

import json
import random
from contextlib import suppress
from pathlib import Path

import pytest
from faults import fuzz

from medmtl.cli import main
from medmtl.errors import MedMTLError
from medmtl.experiment.plan.job import Job
from medmtl.experiment.plan.prepare import _finished
from medmtl.results.prediction import PredictedCase

CHEAP = (
    "record",
    "splits",
    "job",
    "arms",
    "digests",
    "manifest",
    "observation",
    "tables",
    "dataset",
    "listed",
    "image",
)


def test_no_mutated_input_is_a_traceback() -> None:
    for target in CHEAP:
        found = fuzz.run(inputs=12, seed=5, seconds=10, only=target)
        assert not found.faults, "\n".join(found.faults.values())
    found = fuzz.run(inputs=30, seed=5, seconds=4)
    assert not found.faults, "\n".join(found.faults.values())


def test_an_input_depends_on_seed_and_number_alone() -> None:
    values = [fuzz.mutated(fuzz.JOB, random.Random("3:4")) for _ in range(2)]
    assert repr(values[0]) == repr(values[1]) != repr(fuzz.JOB)
    assert fuzz.torn(b"header", random.Random(1)) == fuzz.torn(b"header", random.Random(1))


def test_what_is_no_error_for_users_is_a_fault() -> None:
    found = fuzz.Result()
    for error in (MedMTLError("refused"), SystemExit(2), KeyError("x"), KeyError("y"), MemoryError()):

        def fail(_: object, raised: BaseException = error) -> None:
            raise raised

        fuzz._one(found, "x", 0, fail, random.Random(0))
    assert found.refused == 2
    assert found.times.total() == 3
    assert sorted(kind.partition(" ")[0] for kind in found.faults) == ["KeyError", "MemoryError"]


def test_every_place_of_a_record_is_mutated() -> None:
    """Each key of a nested record is changed, removed or replaced by some of the first mutations."""
    changed = set()
    for number in range(400):
        found = fuzz.mutated(fuzz.JOB, random.Random(number))
        if isinstance(found, dict):
            changed |= {key for key in fuzz.JOB if key not in found or repr(found[key]) != repr(fuzz.JOB[key])}
    assert changed == set(fuzz.JOB)


@pytest.mark.parametrize(("kind", "whole"), [(Job, fuzz.JOB), (PredictedCase, fuzz.RECORD)])
def test_every_odd_value_in_every_place_of_a_record_is_refused_or_of_its_type(kind: type, whole: dict) -> None:
    assert kind.from_dict(whole)
    for key in whole:
        for value in fuzz.ODD:
            with suppress(ValueError):
                read = kind.from_dict({**whole, key: value})
                hash(read.name if kind is Job else read.case)
    for value in fuzz.ODD:
        with pytest.raises(ValueError, match=r"has to be an object|lacks|cannot have"):
            kind.from_dict(value)


def test_what_is_odd_in_a_manifest_is_read_as_if_it_were_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = Job.from_dict(fuzz.JOB)
    own = {"finished": True, "fingerprint": job.fingerprint, "seconds": 3}
    whole: dict[str, dict] = {"experiment": own, "wandb": {"fit": ["id"]}}
    places = [(part, key) for part, facts in whole.items() for key in (None, *facts)]
    for part, key in places:
        for value in fuzz.ODD:
            changed = {**whole, part: value if key is None else {**whole[part], key: value}}
            job.run.path.mkdir(parents=True, exist_ok=True)
            job.run.manifest.write_text(json.dumps(changed))
            assert job.finished in (True, False)
            assert isinstance(job.seconds, float)
            assert job.run.wandb_runs("fit") == ["id"] or part == "wandb"
            _finished(Path())
    job.run.manifest.write_text(json.dumps(whole))
    assert (job.finished, job.seconds, job.run.wandb_runs("fit")) == (True, 3.0, ["id"])


@pytest.mark.parametrize("section", ["wandb", "calibration", "scaling", "spectral", "data", "model", "trainer"])
def test_a_section_that_is_a_number_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], section: str
) -> None:
    config = {**fuzz.Fuzz(tmp_path).config, section: 7.5}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", str(tmp_path / "config.yaml"), "--run", str(tmp_path / "run")])
    assert ended.value.code == 2
    assert section in capsys.readouterr().err.splitlines()[-1]
