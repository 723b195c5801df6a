"""t-SNE and UMAP figures of features."""

from pathlib import Path

import numpy as np

from ..errors import UsageError
from ..settings.evaluation import ProbeArguments
from . import figures


def plot_embeddings(
    folder: Path, features: np.ndarray, labels: np.ndarray, names: list[str], options: ProbeArguments
) -> None:
    """t-SNE and UMAP figures of the judged images."""
    if options.tsne and len(features) > 3:
        from sklearn.manifold import TSNE

        flat = TSNE(perplexity=min(30.0, (len(features) - 1) / 3), random_state=options.seed).fit_transform(features)
        figures.plot_scatter(flat, labels, names, folder / "tsne", "t-SNE of the frozen features")
    if options.umap:
        try:
            from umap import UMAP
        except ImportError:
            raise UsageError("--umap needs a package that is not installed: pip install 'hf_mae[umap]'.") from None
        flat = UMAP(random_state=options.seed).fit_transform(features)
        figures.plot_scatter(flat, labels, names, folder / "umap", "UMAP of the frozen features")
