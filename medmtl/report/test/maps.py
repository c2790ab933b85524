"""The calibration map of a case: where the predicted probability of organ is too high, and where too low."""

from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from medmtl.report.drawing import add_legend, draw_outlines, extent_of, lay_out
from medmtl.report.outline import DASHED, Outline
from medmtl.report.slices import CaseSlices
from medmtl.report.style import DARK, INK, style

# Purple to orange, which no common colour blindness confuses (ColorBrewer); white where the two agree.
COLOURS = "PuOr_r"
# The same for all cases and reports, so that maps can be compared.
LIMIT_POINTS = 50
# Dark, for the colours beneath them are light.
TRUTH = Outline("truth", INK, "solid", 1.3)
PREDICTION = Outline("prediction", INK, DASHED, 1.0)
_FOOT = 0.58  # inches


def calibration_map(slices: CaseSlices, title: str) -> Figure:
    """The signed gap around each voxel of the band, in colour over the slices of a case.

    Args:
        slices: the planes of the case.
        title: written above, for example the case, its Dice and its rank.
    """
    with style(dark=True):
        figure, panels, scale = lay_out(slices, title, more_foot=_FOOT)
        points = Normalize(-LIMIT_POINTS, LIMIT_POINTS)
        for axes, plane in panels:
            axes.imshow(100 * plane.gap.T, cmap=COLOURS, norm=points, origin="lower", extent=extent_of(plane))
            draw_outlines(axes, plane, TRUTH, PREDICTION)
        height = figure.get_figheight()
        place = figure.add_axes((0.2, (0.25 + 0.36) / height, 0.6, 0.09 / height))
        bar = figure.colorbar(ScalarMappable(points, COLOURS), cax=place, orientation="horizontal", extend="both")
        bar.set_ticks((-50, -25, 0, 25, 50), labels=("\N{MINUS SIGN}50", "\N{MINUS SIGN}25", "0", "+25", "+50"))
        bar.set_label("probability minus observed frequency of organ (percentage points)", fontsize=7.5, labelpad=2)
        bar.ax.tick_params(labelsize=7.5, length=2, pad=1.5)
        for x, across, words in ((0.17, "right", "too low"), (0.83, "left", "too high")):
            figure.text(x, (0.25 + 0.405) / height, words, ha=across, va="center", fontsize=7.5)
        add_legend(figure, *(look._replace(colour=DARK.ink).handle for look in (TRUTH, PREDICTION)), scale)
    return figure
