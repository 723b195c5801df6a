"""t-SNE and UMAP plots of features."""

from pathlib import Path

import numpy as np

from ..errors import UsageError
from ..runs.record import FIGURES_DIR
from ..settings.evaluation import ProbeArguments
from . import notebook  # noqa: F401 (records as HTML)
from .figures.study import plot_scatter
from .messages import ReportingMessage


def plot_embeddings(
    folder: Path, features: np.ndarray, labels: np.ndarray, names: list[str], options: ProbeArguments
) -> None:
    """Plots t-SNE and UMAP embeddings of features (images, dimensions), coloured by class id (images,)."""
    if options.tsne and len(features) > 3:
        from sklearn.manifold import TSNE

        points = TSNE(perplexity=min(30.0, (len(features) - 1) / 3), random_state=options.seed).fit_transform(features)
        plot_scatter(points, labels, names, folder / FIGURES_DIR / "tsne", "t-SNE of the frozen features")
    if options.umap:
        try:
            from umap import UMAP
        except ImportError:
            raise UsageError(ReportingMessage.UMAP_MISSING) from None
        points = UMAP(random_state=options.seed).fit_transform(features)
        plot_scatter(points, labels, names, folder / FIGURES_DIR / "umap", "UMAP of the frozen features")
