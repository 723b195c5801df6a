"""Empty pictures in place of a run's figures, which take three quarters of a tiny run's time.

Whatever looks at figures has the real ones: the tests of `reporting/`, of the README, of the notebook and of the
quickstart, and every run that is started as a process of its own.
"""

from contextlib import contextmanager
from functools import cache
from io import BytesIO

from matplotlib.figure import Figure

from hf_mae.files.writing import whole_file
from hf_mae.reporting import figures

DRAWN = figures._save


@cache
def empty(suffix: str) -> bytes:
    content = BytesIO()
    Figure(figsize=(0.5, 0.5)).savefig(content, format=suffix[1:])
    return content.getvalue()


def sketch(figure, path):
    for suffix in (".png", ".pdf"):
        with whole_file(path.with_name(path.name + suffix)) as temporary:
            temporary.write_bytes(empty(suffix))


def sketched(wanted: bool = True) -> None:
    """Figures of this process, and of those that are forked from it, are empty from here on; or drawn again."""
    figures._save = sketch if wanted else DRAWN


@contextmanager
def drawn():
    """Within the block, figures are drawn."""
    before = are_sketched()
    sketched(False)
    try:
        yield
    finally:
        sketched(before)


def are_sketched() -> bool:
    """Whether the figures of this process are empty."""
    return figures._save is sketch
