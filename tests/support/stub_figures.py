"""Empty pictures in place of a run's figures, which take three quarters of a tiny run's time.

Whatever looks at figures has the real ones: the tests of `reporting/`, of the README, of the notebook and of the
quickstart, and every run that is started as a process of its own.
"""

from contextlib import contextmanager
from functools import cache
from io import BytesIO

from matplotlib.figure import Figure

from hf_mae.files.atomic import atomic_write_file
from hf_mae.reporting import figures

REAL_SAVE = figures._save


@cache
def make_empty_figure(suffix: str) -> bytes:
    content = BytesIO()
    Figure(figsize=(0.5, 0.5)).savefig(content, format=suffix[1:])
    return content.getvalue()


def save_stub_figure(figure, path):
    for suffix in (".png", ".pdf"):
        with atomic_write_file(path.with_name(path.name + suffix)) as temporary:
            temporary.write_bytes(make_empty_figure(suffix))


def use_stub_figures(enabled: bool = True) -> None:
    """Figures of this process, and of those that are forked from it, are empty from here on; or drawn again."""
    figures._save = save_stub_figure if enabled else REAL_SAVE


@contextmanager
def draw_real_figures():
    """Within the block, figures are drawn."""
    before = is_using_stub_figures()
    use_stub_figures(False)
    try:
        yield
    finally:
        use_stub_figures(before)


def is_using_stub_figures() -> bool:
    """Whether the figures of this process are empty."""
    return figures._save is save_stub_figure
