"""Empty images instead of the figures of a run, because figures take three quarters of the time of a tiny run.

Tests that inspect figures use real ones: `test_figures.py`, the README, the notebook and the quickstart.
"""

from contextlib import contextmanager
from functools import cache
from io import BytesIO

from matplotlib.figure import Figure

from hf_mae.files.atomic import atomic_write_file
from hf_mae.reporting.figures import style

REAL_SAVE = style.save


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
    """Replaces the figures of this process and its forks with empty ones, or restores them."""
    style.save = save_stub_figure if enabled else REAL_SAVE


@contextmanager
def draw_real_figures():
    """Draws real figures within the block."""
    before = is_using_stub_figures()
    use_stub_figures(False)
    try:
        yield
    finally:
        use_stub_figures(before)


def is_using_stub_figures() -> bool:
    """Whether the figures of this process are empty."""
    return style.save is save_stub_figure
