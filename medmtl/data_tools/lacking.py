"""Classes that a dataset declares and that do not occur in some of its labelled cases."""

from collections.abc import Iterator, Sequence

from medmtl.data.layouts import Corpus
from medmtl.data_tools.outliers import COMMON
from medmtl.results.dataset import CaseFacts, Finding

NAMED = 5  # cases in a message


def lacking(cases: Sequence[CaseFacts], corpus: Corpus) -> Iterator[Finding]:
    """Find classes that many cases lack; a case that lacks what nearly all others have is one of the outliers.

    Args:
        cases: those that could be read.
        corpus: what the dataset declares.

    Yields:
        A note for each class that labelled cases lack, where the dataset declares several.
    """
    labelled = [case for case in cases if case.labels]
    for name, values in corpus.organs.items() if len(corpus.organs) > 1 else ():
        without = [case.case for case in labelled if not set(values) & set(case.volumes_ml)]
        if len(without) > (1 - COMMON) * len(labelled):
            more = f" and {len(without) - NAMED} more" if len(without) > NAMED else ""
            text = (
                f"{len(without)} of {len(labelled)} labelled cases have no {name}: {', '.join(without[:NAMED])}{more}"
            )
            fix = "if it is there and not marked, name the cases in `missing` of the task"
            yield Finding("note", "lacks", labelled[0].dataset, "", text, fix)
