"""Common style of all figures, which are PNG (300 dpi) and PDF (vector graphics), drawn without pyplot.

Colours are for colour-blind readers (Okabe and Ito), line styles and markers distinguish curves in greyscale too, and
text has 6 to 8 points at a width of one column (85 mm) or two.
"""

import logging
import warnings
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any, ParamSpec

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.text import Text

from ...errors import summarize_exception, warn
from ...files.atomic import atomic_write_file, is_disk_full_error
from ..messages import ReportingMessage

logger = logging.getLogger(__name__)
P = ParamSpec("P")
FALLBACK_FONTS = (
    *("Noto Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans", "WenQuanYi Zen Hei"),
    *("Microsoft YaHei", "PingFang SC", "Hiragino Sans", "Noto Sans Arabic", "Noto Naskh Arabic", "Arial Unicode MS"),
    *("Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Emoji", "Segoe UI Emoji", "Symbola"),
)
MAX_LABELLED_CLASSES = 60  # if there are more classes, figures show the worst ones, or no names
ONE_COLUMN, TWO_COLUMNS = 3.35, 7.0  # inches
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito
LINE_STYLES = ("-", "--", "-.", ":")
MARKERS = "osD^v<>P"
DARK, LIGHT, GREY = "#0072B2", "#9fcbe6", "#b0b0b0"
STYLE: Any = {
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.linewidth": 0.4,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.1,
    "pdf.fonttype": 42,  # text stays editable
    "figure.dpi": 300,
}


class PlainTextFigure(Figure):
    """A figure that shows text literally: dollar signs do not start mathtext, and characters of other scripts are taken
    from fonts that have them."""

    def _disable_mathtext(self) -> None:
        for text in self.findobj(Text):
            text.set_parse_math(False)
            text.set_fontfamily(font_families())

    def tight_layout(self, **kwargs: Any) -> None:
        """Calls `Figure.tight_layout` with the fonts and the literal text of this class."""
        self._disable_mathtext()
        super().tight_layout(**kwargs)

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """Calls `Figure.savefig` with the fonts and the literal text of this class."""
        self._disable_mathtext()
        super().savefig(*args, **kwargs)


def legend_label(text: str) -> str:
    """Returns a name as a legend shows it: Matplotlib leaves out labels that begin with an underscore."""
    return f"\u200a{text}" if text.startswith("_") else text  # a hair space


def truncate_text(text: str, length: int) -> str:
    """Shortens a text to `length` characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def save_figure(figure: Figure, path: Path, dpi: int) -> None:
    """Writes a figure atomically, in the format of the file name, and warns of characters that no font has."""
    with warnings.catch_warnings(record=True) as caught, atomic_write_file(path) as temporary:
        warnings.simplefilter("always")
        undated: dict[str, Any] = {"metadata": {"CreationDate": None}} if path.suffix == ".pdf" else {}
        figure.savefig(temporary, format=path.suffix[1:], dpi=dpi, bbox_inches="tight", **undated)
    missing = {str(entry.message) for entry in caught if "missing from font" in str(entry.message)}
    if missing and path.suffix == ".png":
        warn(logger, ReportingMessage.GLYPHS_MISSING, name=path.name, count=len(missing))


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG and PDF; `path` is the file without its suffix."""
    for suffix in (".png", ".pdf"):
        save_figure(figure, path.with_name(path.name + suffix), dpi=300)


def colour(number: int) -> str:
    """Returns the colour of a curve or class."""
    return COLOURS[number % len(COLOURS)]


def line_style(number: int) -> dict[str, Any]:
    """Returns the colour and line style of a curve; the first 28 differ."""
    return {"color": colour(number), "linestyle": LINE_STYLES[number // len(COLOURS) % len(LINE_STYLES)]}


@cache
def font_families() -> list[str]:
    """Returns the fonts in order of preference: that of matplotlib, then the installed fonts of other scripts."""
    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]


def log_figure_errors(plot_function: Callable[P, None]) -> Callable[P, None]:
    """Decorates a plot function: it draws in the common style, and a failure is logged as a warning, so that the other
    results are written. A full disk still raises."""

    @wraps(plot_function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with rc_context(STYLE):
                plot_function(*args, **kwargs)
        except Exception as error:  # matplotlib raises exceptions of any class
            if is_disk_full_error(error):
                raise
            name = plot_function.__name__.removeprefix("plot_")
            warn(logger, ReportingMessage.FIGURE_FAILED, name=name, error=summarize_exception(error))

    return wrapper
