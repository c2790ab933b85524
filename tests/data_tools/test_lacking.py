"""Classes that many labelled cases lack are listed with their cases."""

from medmtl.data.layouts import Corpus
from medmtl.data_tools.lacking import lacking
from medmtl.results.dataset import CaseFacts

DECLARED = Corpus((), organs={"liver": (1,), "tumour": (2,)})


def cases(*volumes_ml: dict[int, float]) -> list[CaseFacts]:
    return [
        CaseFacts("Liver", f"c{number}", f"c{number}", "training", (), ("label",), volumes_ml=volumes)
        for number, volumes in enumerate(volumes_ml)
    ]


def test_a_class_that_many_cases_lack_is_noted_with_their_names() -> None:
    (found,) = lacking(cases(*[{1: 5.0}] * 7, *[{1: 5.0, 2: 1.0}] * 3), DECLARED)
    assert (found.severity, found.rule) == ("note", "lacks")
    assert found.message == "7 of 10 labelled cases have no tumour: c0, c1, c2, c3, c4 and 2 more"


def test_a_class_that_nearly_all_cases_have_is_left_to_the_outliers() -> None:
    assert not list(lacking(cases(*[{1: 5.0, 2: 1.0}] * 19, {1: 5.0}), DECLARED))


def test_a_dataset_with_one_label_lacks_none() -> None:
    assert not list(lacking(cases(*[{}] * 5), Corpus((), organs={"liver": (1,)})))
