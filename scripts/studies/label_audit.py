"""Precision and recall of `hf-mae audit --runs` on labels that were flipped on purpose.

A fraction of all images gets a wrong class. The models of a cross-validation by patient (here: source frame, from the
file name) are trained on these labels, and the audit lists suspected label errors.

    python scripts/studies/label_audit.py --model runs/frames --data ../shared/data/polyp_crops --out runs/labels

Prints precision and recall of the flipped labels for several lengths of the list. Images with a wrong published label
count as false positives.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

import hf_mae


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint to fine-tune")
    parser.add_argument("--data", required=True, type=Path, help="SPLIT/CLASS/IMAGE")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--recipe", default="polyp_crops")
    parser.add_argument("--fraction", type=float, default=0.05, help="fraction of labels to flip")
    parser.add_argument("--folds", default="5")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the trainings; scores are averaged")
    args = parser.parse_args()
    wrong, images = write_manifest(args.data, args.out / "manifest.csv", args.fraction)
    hf_mae.crossval(
        recipe=args.recipe,
        model_name_or_path=args.model,
        data_dir=str(args.data),
        manifest=str(args.out / "manifest.csv"),
        output_dir=str(args.out / "crossval"),
        folds=args.folds,
        seeds=args.seeds,
        load_best_model_at_end=False,
        eval_strategy="no",
        save_strategy="no",
    )
    found = hf_mae.audit(runs=[str(args.out / "crossval")], output_dir=str(args.out / "audit"))
    hits = np.cumsum([issue.image.file_name in wrong for issue in found.issues])
    print(f"{len(wrong)} of {images} labels were flipped; {len(hits)} are suspected.")
    for length in sorted({20, 50, len(wrong), 100, len(hits)}):
        if length <= len(hits):
            correct = hits[length - 1]
            print(f"  first {length:4}: precision {correct / length:.0%}, recall {correct / len(wrong):.0%}")


def write_manifest(data: Path, path: Path, fraction: float) -> tuple[set[str], int]:
    """Writes a manifest `file_name,label,group`; returns the files with flipped labels and the number of images."""
    files = sorted(data.glob("*/*/*.*"))
    names = sorted({file.parent.name for file in files})
    random = np.random.default_rng(0)
    wrong = {files[place] for place in random.choice(len(files), round(fraction * len(files)), replace=False)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["file_name", "label", "group"])
        for file in files:
            others = [name for name in names if name != file.parent.name]
            label = random.choice(others) if file in wrong else file.parent.name
            writer.writerow([file.relative_to(data), label, file.stem])
    return {str(file.relative_to(data)) for file in wrong}, len(files)


if __name__ == "__main__":
    main()
