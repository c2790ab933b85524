"""The same image or patient on both sides of a split."""

from medmtl.data.layouts.layout import Fold
from medmtl.data_tools.leaks import duplicates, shared_patients, torn_folds
from medmtl.results.dataset import CaseFacts, Finding


def case(name: str, *digests: str, patient: str = "", part: str = "training", dataset: str = "A") -> CaseFacts:
    return CaseFacts(dataset, name, patient or name, part, (), image_digests=digests)


def rules(findings: list[Finding]) -> list[tuple[str, str]]:
    assert all(finding.severity == "warning" for finding in findings)
    return [(finding.rule, finding.case) for finding in findings]


def test_different_images_are_no_duplicates() -> None:
    assert not list(duplicates([case("one", "x", "y"), case("two", "z"), case("blank", ""), case("blank2", "")]))


def test_an_image_that_occurs_twice_is_told_of_the_later_case() -> None:
    findings = list(duplicates([case("one", "x", "y"), case("two", "z"), case("three", "w", "y")]))
    assert rules(findings) == [("duplicate", "three")]
    assert "the same image as one, but another patient" in findings[0].message
    (finding,) = duplicates([case("one", "x", patient="p"), case("two", "x", patient="p")])
    assert finding.message == "the same image as one"


def test_a_test_image_that_is_a_training_image_is_a_leak() -> None:
    findings = list(duplicates([case("one", "x"), case("two", "x", part="test")]))
    assert rules(findings) == [("leak", "two")]


def test_two_tasks_may_share_the_image_of_a_patient_but_not_of_two() -> None:
    first, same = case("one", "x", patient="p"), case("one", "x", patient="p", dataset="B")
    assert not list(duplicates([first, same]))
    findings = list(duplicates([first, case("one", "x", patient="q", dataset="B")]))
    assert rules(findings) == [("duplicate", "one")]
    assert "one of A" in findings[0].message


def test_two_channels_alike_are_told() -> None:
    assert rules(list(duplicates([case("one", "x", "x")]))) == [("duplicate", "one")]


def test_a_label_under_another_image_is_told() -> None:
    cases = [
        CaseFacts("A", name, name, "training", (), image_digests=(image,), label_digest="same")
        for name, image in (("one", "x"), ("two", "y"))
    ]
    (finding,) = duplicates(cases)
    assert (finding.case, finding.message) == ("two", "its label is that of one, its image is not")


def test_a_patient_with_training_and_test_images_is_a_leak() -> None:
    cases = [case("a1", patient="a"), case("b1", patient="b"), case("b2", patient="b", part="test")]
    assert rules(list(shared_patients(cases))) == [("leak", "b2")]


def test_a_fold_with_a_patient_or_an_image_on_both_sides_is_told_once() -> None:
    cases = [case("a1", "1", patient="a"), case("a2", "2", patient="a"), case("b", "3"), case("c", "4"), case("d", "3")]
    whole = Fold(("a1", "a2", "b", "d"), ("c",))
    torn = Fold(("a1", "b"), ("a2", "c", "d"))
    assert not list(torn_folds(cases, [whole]))
    (finding,) = torn_folds(cases, [whole, torn])
    assert finding.case == ""
    assert "fold 1: 2 validation cases" in finding.message
    assert "a2 has the patient of a1" in finding.message
