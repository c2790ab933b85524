"""Pictures of the images whose verdict is wrong: they are read again, for a benchmark keeps no voxels."""

from collections.abc import Iterable, Mapping, Sequence

from matplotlib.figure import Figure

from medmtl.data.reading import load_image
from medmtl.ood_benchmark.images import Image
from medmtl.ood_benchmark.worker import shifted
from medmtl.report.ood.wrong import SHOWN, Wrong
from medmtl.report.predict.picture import case_figure


def draw_wrong(images: Iterable[Image], wrong: Mapping[str, Sequence[Wrong]], seed: int) -> dict[str, Figure]:
    """Draw the first images of each kind.

    Args:
        images: of the benchmark.
        wrong: kind -> images whose verdict is wrong.
        seed: of the shifts.

    Returns:
        Place of an image -> figure.
    """
    known = {(image.group, image.condition, image.severity, image.task, image.case.name): image for image in images}
    drawn = {}
    for each in (each for own in wrong.values() for each in own[:SHOWN]):
        record = each.record
        image = known[record.group, record.condition, record.severity, record.task, record.case]
        drawn[each.place] = case_figure(f"{each.kind}: {each.name}", shifted(load_image(image.case), image, seed), None)
    return drawn
