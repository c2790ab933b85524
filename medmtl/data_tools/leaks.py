"""The same image or the same patient on both sides of a split."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from medmtl.data.layouts.layout import Fold
from medmtl.results.dataset import CaseFacts, Finding


def duplicates(cases: Iterable[CaseFacts]) -> Iterator[Finding]:
    """Find images and labels that occur twice, in whatever file, header, type or order of the axes.

    Args:
        cases: of all datasets that are checked together.

    Yields:
        For each pair, a warning for the later of the two. Nothing where two tasks share an image of one patient, which
        is how one image serves two organs.
    """
    cases = list(cases)
    for case in cases:
        digests = [digest for digest in case.image_digests if digest]
        if len(set(digests)) < len(digests):
            text = "two channels hold the same values"
            yield Finding("warning", "duplicate", case.dataset, case.case, text, "check the files of the channels")
    seen: dict[str, CaseFacts] = {}
    for case in cases:
        first = next((seen[digest] for digest in case.image_digests if digest in seen), None)
        if first is not None:
            yield from _same_image(first, case)
        elif case.label_digest and case.label_digest in seen:
            other = seen[case.label_digest]
            if other.dataset == case.dataset:
                text = f"its label is that of {other.case}, its image is not"
                yield Finding("warning", "duplicate", case.dataset, case.case, text, "one of them has a wrong label")
        for digest in (*case.image_digests, case.label_digest):
            if digest:
                seen.setdefault(digest, case)


def repeated(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Find names that several cases of one dataset have, which training refuses: it could not tell them apart."""
    times = Counter(case.case for case in cases)
    for name in [name for name, number in times.items() if number > 1]:
        one, other, *_ = (" ".join(case.images) for case in cases if case.case == name)
        text = f"{times[name]} cases have this name: {one}"
        text += " is listed again" if one == other else f" and {other}"
        yield Finding("error", "name", cases[0].dataset, name, text, "rename or remove one")


def _same_image(first: CaseFacts, case: CaseFacts) -> Iterator[Finding]:
    near = first.dataset == case.dataset
    text = f"the same image as {first.case}" if near else f"the same image as {first.case} of {first.dataset}"
    if first.part != case.part:
        text += f", one for {first.part} and one for {case.part}: a test image must not be in the training data"
        yield Finding("warning", "leak", case.dataset, case.case, text, "remove one of them")
    elif first.patient != case.patient:
        text += ", but another patient: a split by patient can tear them apart"
        yield Finding("warning", "duplicate", case.dataset, case.case, text, "remove one, or give both one patient")
    elif near:
        yield Finding("warning", "duplicate", case.dataset, case.case, text, "remove one of them")


def shared_patients(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Find patients of one dataset who have both a labelled case and a test image."""
    trained = {case.patient: case for case in cases if case.part == "training"}
    for case in cases:
        if case.part == "test" and case.patient in trained:
            text = f"patient {case.patient} is also that of the training case {trained[case.patient].case}"
            yield Finding("warning", "leak", case.dataset, case.case, text, "test on other patients")


def torn_folds(cases: Sequence[CaseFacts], folds: Sequence[Fold]) -> Iterator[Finding]:
    """Find patients and images that a split of the dataset's own has in training and validation at once.

    Args:
        cases: of one dataset.
        folds: its splits.

    Yields:
        A warning for each fold that is torn: its first pair, and how many there are.
    """
    known = {case.case: case for case in cases}
    for number, fold in enumerate(folds):
        train = [known[name] for name in fold.train if name in known]
        val = [known[name] for name in fold.val if name in known]
        patients = {case.patient: case for case in train}
        images = {digest: case for case in train for digest in case.image_digests if digest}
        torn = [(case, patients[case.patient], "patient") for case in val if case.patient in patients]
        for case in val:
            twin = next((images[digest] for digest in case.image_digests if digest in images), None)
            if twin is not None and twin.patient != case.patient:
                torn.append((case, twin, "image"))
        if torn:
            case, other, what = torn[0]
            text = f"fold {number}: {len(torn)} validation cases share a patient or an image with a training case; "
            text += f"{case.case} has the {what} of {other.case}"
            yield Finding("warning", "leak", case.dataset, "", text, "split by patient, as medmtl does without them")
