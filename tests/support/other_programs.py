"""Output files of other programs for the images of `images/test`, in the formats that these programs write."""

from pathlib import Path

import numpy as np
import pandas as pd


def write_outputs(folder: Path) -> pd.DataFrame:
    """Writes the files that docs/statistics.md reads; returns `filename`, `label` and the scores by class name."""
    root, rng = folder / "images" / "test", np.random.default_rng(0)
    files = sorted(path for path in root.glob("*/*"))
    names, labels = sorted(path.name for path in root.iterdir()), [path.parent.name for path in files]
    ids = np.array([names.index(label) for label in labels])
    scores = rng.dirichlet(np.ones(len(names)), len(files)).astype(np.float32)
    relative = [path.relative_to(root).as_posix() for path in files]
    for split in ("train", "test"):
        table = pd.DataFrame({"file_name": [str(path.absolute()) for path in files], "label": labels})
        table.join(pd.DataFrame(rng.normal(size=(len(files), 3)), columns=["x0", "x1", "x2"])).to_csv(
            folder / f"features_{split}.csv", index=False
        )
    # AutoGluon: a data frame of predict_proba has the index of the test data
    order = rng.permutation(len(files))
    test = pd.DataFrame({"image": [str(path.absolute()) for path in files], "label": labels}).iloc[order]
    test.to_csv(folder / "autogluon_test.csv", index=False)
    pd.DataFrame(scores[order], columns=names, index=test.index).to_csv(folder / "autogluon_proba.csv")
    # timm: save_results of inference.py
    columns = {"filename": relative} | {f"prob_{index}": scores[:, index] for index in range(len(names))}
    pd.DataFrame(columns).to_csv(folder / "timm_output.csv", index=False)
    # RETFound: lists of numbers and of rows in evaluate()
    np.savez(folder / "retfound.npz", labels=list(ids), scores=list(scores))
    return pd.DataFrame({"filename": relative, "label": labels} | dict(zip(names, scores.T)))
