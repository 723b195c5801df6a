"""How many wrong labels `hf-mae audit --labels` finds, where some were made wrong on purpose.

Of all images, whatever their split, a share gets another class; models of a cross-validation by patients
(here: source frames, the files' stems) are trained on the labels as they are, and the audit lists what it suspects.

    python scripts/study_label_audit.py --model runs/frames --data ../shared/data/polyp_crops --out runs/labels

Prints, for each number of images that a person looks at, from the top of the list, how many of them were made wrong
(precision), and how many of those made wrong are among them (recall). Images whose published label is wrong count as
mistakes of the audit.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

import hf_mae


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="what is fine-tuned")
    parser.add_argument("--data", required=True, type=Path, help="SPLIT/CLASS/IMAGE")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--recipe", default="polyp_crops")
    parser.add_argument("--share", type=float, default=0.05, help="of the labels, which are made wrong")
    parser.add_argument("--folds", default="5")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the trainings, whose scores are averaged")
    args = parser.parse_args()
    wrong, images = write_manifest(args.data, args.out / "manifest.csv", args.share)
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
    found = hf_mae.audit(labels=[str(args.out / "crossval")], output_dir=str(args.out / "audit"))
    hits = np.cumsum([issue.image.file_name in wrong for issue in found.issues])
    print(f"{len(wrong)} of {images} labels were made wrong; {len(hits)} are suspected.")
    for looked in sorted({20, 50, len(wrong), 100, len(hits)}):
        if looked <= len(hits):
            of = hits[looked - 1]
            print(f"  the first {looked:4}: precision {of / looked:.0%}, recall {of / len(wrong):.0%}")


def write_manifest(data: Path, path: Path, fraction: float) -> tuple[set[str], int]:
    """Writes `file_name,label,group`; returns the files whose labels are wrong, and the number of all."""
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
