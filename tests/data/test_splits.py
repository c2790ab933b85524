"""Splits: each patient on one side in all tasks, the given fractions, the same for the same seed."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from medmtl.data.splits import (
    PARTS,
    apply_splits,
    cases_by_part,
    fewer_training_cases,
    fold_patients,
    read_splits,
    split_patients,
    write_splits,
)
from medmtl.errors import DataError

GOLDEN = {
    **dict.fromkeys(["a000", "a005", "a006", "a007", "a008", "a009"], "train"),
    **dict.fromkeys(["a002", "a003"], "val"),
    **dict.fromkeys(["a001", "a004"], "test"),
}


def people(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number:03d}" for number in range(count)]


def random_tasks(rng: np.random.Generator) -> dict[str, list[str]]:
    """Up to five tasks whose patients overlap at random, some with several cases of a patient."""
    pool = np.array(people("p", int(rng.integers(12, 120))))
    tasks = {}
    for number in range(rng.integers(1, 6)):
        chosen = rng.choice(pool, int(rng.integers(10, len(pool) + 1)), replace=False)
        tasks[f"task{number}"] = [str(name) for name in rng.permutation(np.r_[chosen, chosen[:3]])]
    return tasks


@pytest.mark.parametrize("seed", range(4))
def test_every_patient_gets_one_part_whatever_the_order_of_tasks_and_cases(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tasks = random_tasks(rng)
    parts = split_patients(tasks, val=0.2, test=0.2, seed=seed)
    assert set(parts) == {patient for names in tasks.values() for patient in names}
    assert set(parts.values()) == set(PARTS)
    shuffled = {name: list(rng.permutation(tasks[name])) for name in rng.permutation(list(tasks))}
    assert split_patients(shuffled, val=0.2, test=0.2, seed=seed) == parts


@pytest.mark.parametrize("count", [5, 23, 90])
@pytest.mark.parametrize(("val", "test"), [(0.1, 0.3), (0.0, 0.25), (0.25, 0.0)])
def test_a_task_gets_its_fractions(count: int, val: float, test: float) -> None:
    parts = list(split_patients({"A": people("a", count)}, val=val, test=test).values())
    for part, share in (("val", val), ("test", test)):
        assert abs(parts.count(part) - share * count) <= 0.5
        assert bool(parts.count(part)) == bool(share)


@pytest.mark.parametrize("seed", range(4))
def test_tasks_that_share_some_patients_each_get_the_fractions(seed: int) -> None:
    tasks = {"A": people("p", 60), "B": people("p", 90)[40:], "Apart": people("q", 30)}
    parts = split_patients(tasks, val=0.2, test=0.2, seed=seed)
    for names in tasks.values():
        for part in ("val", "test"):
            assert abs(sum(parts[name] == part for name in names) - 0.2 * len(names)) <= 2


@pytest.mark.parametrize(
    ("count", "val", "test"),
    [(3, 0.05, 0.05), (3, 0.2, 0.2), (3, 0.33, 0.33), (4, 0.4, 0.4), (3, 0.45, 0.5), (3, 0.05, 0.9)],
)
def test_a_small_task_has_a_patient_in_each_part_whatever_the_fractions(count: int, val: float, test: float) -> None:
    parts = split_patients({"A": people("a", count)}, val=val, test=test)
    assert len(parts) == count
    assert set(parts.values()) == set(PARTS)


@pytest.mark.parametrize("seed", range(4))
def test_a_small_task_that_shares_patients_with_larger_ones_has_a_patient_in_each_part(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tasks = {name: people(name, int(rng.integers(20, 60))) for name in ("A", "B", "Z")}
    # In the order of the split, the patients of Z come after those of the small task: it lies amid them and not last.
    tasks["Z"] += tasks["B"][:3]
    tasks["Small"] = [*people("s", 3), *(str(rng.choice(tasks[name])) for name in ("A", "B"))]
    parts = split_patients(tasks, seed=seed)
    for names in tasks.values():
        assert {parts[name] for name in names} == set(PARTS)


def test_a_split_is_the_same_on_every_machine() -> None:
    assert split_patients({"A": people("a", 10)}, val=0.2, test=0.2, seed=0) == GOLDEN


def test_an_unrelated_task_moves_no_patient() -> None:
    tasks = {"A": people("p", 40), "B": people("p", 50)[20:]}
    alone = split_patients(tasks, seed=3)
    for first in (True, False):
        other = {"Other": people("q", 33)}
        together = split_patients({**other, **tasks} if first else {**tasks, **other}, seed=3)
        assert {patient: together[patient] for patient in alone} == alone


def test_tasks_that_share_patients_through_a_third_are_split_as_one() -> None:
    chain = {"A": ["x", *people("a", 7)], "C": ["y", *people("c", 7)], "B": ["x", "y", *people("b", 3)]}
    for seed in range(20):
        parts = split_patients(chain, seed=seed)
        assert list(parts.values()).count("test") == 4  # of 19; split apart it would be 2 + 2 + 1
        for names in chain.values():
            assert {parts[patient] for patient in names} == {"train", "val", "test"}


def test_another_seed_gives_another_split() -> None:
    tasks = {"A": people("a", 40)}
    splits = [split_patients(tasks, seed=seed) for seed in range(5)]
    assert all(one != other for number, one in enumerate(splits) for other in splits[:number])


@pytest.mark.parametrize(("val", "test"), [(0.5, 0.5), (1.0, 0.0), (-0.1, 0.2), (0.2, -0.1), (float("nan"), 0.2)])
def test_fractions_that_leave_nothing_to_train_on_are_refused(val: float, test: float) -> None:
    with pytest.raises(DataError, match="val"):
        split_patients({"A": people("a", 10)}, val=val, test=test)


@pytest.mark.parametrize("tiny", [["x"], ["x", "y", "y", "y"], ["a000"], ["a000", "a001"], ["a000", "x"]])
def test_a_task_of_one_or_two_patients_is_refused_by_name_even_if_others_share_them(tiny: list[str]) -> None:
    complaint = f"task Tiny: its {len(set(tiny))} patients leave none for (train|val|test)"
    for seed in range(5):
        with pytest.raises(DataError, match=complaint):
            split_patients({"A": people("a", 20), "Tiny": tiny}, seed=seed)


def test_a_split_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    splits = {"A": {"train": ["a", "b"], "val": ["é"], "test": []}, "B": {part: [part] for part in PARTS}}
    path = tmp_path / "run" / "splits.json"
    write_splits(path, splits)
    assert read_splits(path) == splits == json.loads(path.read_text())
    assert [found.name for found in path.parent.iterdir()] == ["splits.json"]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("folds", [2, 3, 5])
def test_every_patient_is_tested_in_exactly_one_fold(folds: int, seed: int) -> None:
    tasks = random_tasks(np.random.default_rng(seed))
    found = fold_patients(tasks, folds, val=0.2, seed=seed)
    everybody = {patient for patients in tasks.values() for patient in patients}
    tested = [patient for parts in found for patient, part in parts.items() if part == "test"]
    assert sorted(tested) == sorted(everybody)
    assert all(set(parts) == everybody and set(parts.values()) == set(PARTS) for parts in found)


@pytest.mark.parametrize("seed", range(4))
def test_each_fold_has_patients_of_each_task_in_each_part_and_its_share_of_the_test(seed: int) -> None:
    tasks = random_tasks(np.random.default_rng(seed))
    for parts in fold_patients(tasks, 4, val=0.2, seed=seed):
        for patients in map(set, tasks.values()):
            assert {parts[patient] for patient in patients} == set(PARTS)
    lone = {"a": people("a", 40), "b": people("b", 23)}
    for parts in fold_patients(lone, 4, val=0.2, seed=seed):
        shares = {task: [sum(parts[p] == part for p in names) for part in PARTS] for task, names in lone.items()}
        assert shares["a"] == [22, 8, 10]
        assert shares["b"][2] in (5, 6)
        assert shares["b"][1] in (4, 5)


def test_folds_are_the_same_whatever_the_order_of_the_patients_and_differ_by_seed() -> None:
    names = people("a", 30)
    forward = fold_patients({"a": names}, 5)
    assert forward == fold_patients({"a": names[::-1]}, 5)
    assert forward != fold_patients({"a": names}, 5, seed=1)


@pytest.mark.parametrize(("count", "folds", "val"), [(4, 5, 0.2), (2, 2, 0.2), (20, 1, 0.2), (20, 2, 0.6)])
def test_folds_that_leave_nothing_to_train_or_test_on_are_refused(count: int, folds: int, val: float) -> None:
    with pytest.raises(DataError, match="fold"):
        fold_patients({"a": people("a", count)}, folds, val)


def test_smaller_training_sets_are_contained_in_larger_ones_and_change_no_other_part() -> None:
    patient_of = {f"{patient}-{scan}": patient for patient in people("a", 12) for scan in range(2)}
    split = cases_by_part(patient_of, split_patients({"a": list(patient_of.values())}))
    sizes = [fewer_training_cases(split, patient_of, cases) for cases in range(len(split["train"]) + 2)]
    for number, (smaller, larger) in enumerate(itertools.pairwise(sizes)):
        assert len(smaller["train"]) == min(number, len(split["train"]))
        assert set(smaller["train"]) <= set(larger["train"])
        assert (smaller["val"], smaller["test"]) == (split["val"], split["test"])
    assert sizes[-1] == split


def test_tasks_that_share_patients_keep_the_same_ones_in_a_smaller_training_set() -> None:
    tasks = {name: {f"{name}-{patient}": patient for patient in people("a", 20)} for name in ("one", "two")}
    part_of = split_patients({name: list(found.values()) for name, found in tasks.items()})
    kept = [fewer_training_cases(cases_by_part(found, part_of), found, 4)["train"] for found in tasks.values()]
    assert [case.removeprefix("one-") for case in kept[0]] == [case.removeprefix("two-") for case in kept[1]]


def split_file(folder: Path, **parts: list[str]) -> Path:
    path = folder / "split.json"
    path.write_text(json.dumps({"liver": {"train": [], "val": [], "test": [], **parts}}))
    return path


def test_a_split_file_is_used_as_it_is_and_what_it_does_not_list_is_not_used(tmp_path: Path) -> None:
    path = split_file(tmp_path, train=["a"], val=["c"], test=["b"])
    cases = {"liver": {"a": "A", "b": "B", "c": "C", "d": "D"}}
    assert apply_splits(path, cases) == (
        {"liver": {"train": ["a"], "val": ["c"], "test": ["b"]}},
        {"A": "train", "B": "test", "C": "val"},
    )


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"train": ["a"], "val": ["x"]}, "task liver, case x: listed in"),
        ({"train": ["a"], "val": ["b"], "test": ["a2"]}, "task liver, case a2: .* patient A in train and test"),
        ({"train": ["a"], "test": ["b"]}, "task liver: .* no case for val"),
    ],
)
def test_a_split_file_that_cannot_be_used_is_refused_by_name(
    tmp_path: Path, parts: dict[str, list[str]], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        apply_splits(split_file(tmp_path, **parts), {"liver": {"a": "A", "a2": "A", "b": "B"}})


def test_a_split_file_gives_all_tasks_a_calibration_part_or_none(tmp_path: Path) -> None:
    part = {"train": ["a"], "val": ["b"], "test": []}
    path, known = tmp_path / "split.json", {name: {case: case for case in "abc"} for name in ("liver", "kidney")}
    path.write_text(json.dumps({"liver": part | {"calibration": ["c"]}, "kidney": part}))
    with pytest.raises(DataError, match=r"task kidney: .* no case for calibration"):
        apply_splits(path, known)
    assert apply_splits(path, {"kidney": known["kidney"]})[0] == {"kidney": part}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "is not a split file"),
        ('{"liver": {"train": []}}', "is not a split file"),
        ('{"liver": {"train": ["a"', "is not a split file"),  # cut short
        (None, "there is no split"),
    ],
)
def test_something_else_than_a_split_file_is_refused(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "split.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=says):
        read_splits(path)


def test_a_task_that_the_split_file_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="task kidney is not in the split file"):
        apply_splits(split_file(tmp_path, train=["a"], val=["b"]), {"kidney": {}})


FOLDS = {
    "A": {**dict.fromkeys(people("a", 12), "train"), **dict.fromkeys(people("a", 3), "val")},
    "B": dict.fromkeys([*people("b", 10), "a005"], "train") | {"a001": "val", "b003": "val"},
}


@pytest.mark.parametrize("seed", range(2))
def test_a_fold_sets_who_is_tested_and_the_others_are_split_as_without_it(seed: int) -> None:
    patients = {name: list(fold) for name, fold in FOLDS.items()} | {
        "C": people("c", 20),
        "D": ["a000", *people("d", 9)],
    }
    parts = split_patients(patients, val=0.25, test=0.2, seed=seed, folds=FOLDS)
    assert set(parts) == {patient for names in patients.values() for patient in names}
    for fold in FOLDS.values():
        for patient, part in fold.items():
            assert (parts[patient] == "test") == (part == "val")
    learnt = [parts[patient] for patient in FOLDS["A"] if FOLDS["A"][patient] == "train"]
    assert {part: learnt.count(part) for part in PARTS} == {"train": 7, "val": 2, "test": 0}
    others = split_patients({"C": patients["C"], "D": people("d", 9)}, val=0.25, test=0.2, seed=seed)
    assert {patient: parts[patient] for patient in others} == others


def test_folds_that_disagree_or_leave_no_patient_are_refused() -> None:
    with pytest.raises(DataError, match="task B, patient x: another task's fold has it on the other side"):
        split_patients({}, folds={"A": {"x": "train"}, "B": {"x": "val"}})
    fold = {**dict.fromkeys(people("a", 6), "train"), "x": "val", "y": "val"}
    with pytest.raises(DataError, match="task B: the folds leave it no patient for train"):
        split_patients({"A": list(fold), "B": ["x", "y"]}, folds={"A": fold})


@pytest.mark.parametrize("seed", range(3))
def test_a_calibration_part_has_patients_of_its_own_in_every_task(seed: int, tmp_path: Path) -> None:
    tasks = random_tasks(np.random.default_rng(seed))
    parts = split_patients(tasks, val=0.2, test=0.2, seed=seed, calibration=0.2)
    assert set(parts.values()) == {*PARTS, "calibration"}
    splits = {task: cases_by_part({name: name for name in names}, parts) for task, names in tasks.items()}
    assert all(split["calibration"] for split in splits.values())
    write_splits(tmp_path / "splits.json", splits)
    patients = {task: {name: name for name in names} for task, names in tasks.items()}
    assert apply_splits(tmp_path / "splits.json", patients) == (splits, parts)
    plain = split_patients(tasks, val=0.2, test=0.2, seed=seed)
    assert "calibration" not in cases_by_part({name: name for names in tasks.values() for name in names}, plain)


@pytest.mark.parametrize("seed", range(2))
def test_each_fold_has_a_calibration_part_of_its_own_and_tests_as_without_it(seed: int) -> None:
    tasks = random_tasks(np.random.default_rng(seed)) | {"alone": people("q", 40)}
    plain = fold_patients(tasks, 4, val=0.2, seed=seed)
    for parts, without in zip(fold_patients(tasks, 4, val=0.2, seed=seed, calibration=0.2), plain, strict=True):
        for patients in map(set, tasks.values()):
            assert {parts[patient] for patient in patients} == {*PARTS, "calibration"}
        counts = [sum(parts[name] == part for name in tasks["alone"]) for part in (*PARTS, "calibration")]
        assert counts == [14, 8, 10, 8]
        for part in ("val", "test"):
            assert {name for name in parts if parts[name] == part} >= {name for name in parts if without[name] == part}


def test_shares_that_leave_nothing_to_train_on_are_refused_with_calibration_too() -> None:
    with pytest.raises(
        DataError, match=r"2 folds and a validation share of 0\.2 and a calibration share of 0\.3 leave"
    ):
        fold_patients({"A": people("a", 20)}, 2, val=0.2, calibration=0.3)
    with pytest.raises(DataError, match=r"data\.calibration=0\.5 leave no training cases"):
        split_patients({"A": people("a", 20)}, val=0.3, test=0.2, calibration=0.5)
