#!/usr/bin/env bash
# The complete workflow on a small generated data set: bash scripts/quickstart.sh [OUTPUT_DIR]
# Pre-trains a tiny MAE, exports it as an original MAE checkpoint (.pth), converts it, fine-tunes, evaluates, predicts.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
out="${1:-$(mktemp -d "${TMPDIR:-/tmp}/hf_mae_quickstart.XXXXXX")}"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
say() { printf '\n== %s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

say "Generate a toy data set with 3 classes of drawings"
run python "$ROOT/scripts/make_toy_data.py" "$out/data" --images 100

say "Pre-train a tiny MAE for a few epochs and export it in the original .pth format"
run hf-mae pretrain --recipe quickstart_pretrain --data_dir "$out/data/unlabelled" --output_dir "$out/pretrained"
run hf-mae export "$out/pretrained" "$out/checkpoint.pth"

say "1. Convert: .pth -> stock transformers weights, verified on random input"
run hf-mae convert "$out/checkpoint.pth" "$out/converted" --verify

say "2. Fine-tune: layer-wise learning-rate decay, best epoch by macro F1"
run hf-mae finetune --recipe quickstart --model_name_or_path "$out/checkpoint.pth" \
    --data_dir "$out/data/labelled" --output_dir "$out/finetuned"

say "3. Evaluate on the test split"
run hf-mae evaluate --model_name_or_path "$out/finetuned" --data_dir "$out/data/labelled" --split test --output_dir "$out/test"

say "4. Predict with stock transformers: pipeline(\"image-classification\")"
python - "$out/finetuned" "$out/data/labelled/test" <<'PYTHON'
import sys
from pathlib import Path

from transformers import pipeline
from transformers.utils import logging

logging.disable_progress_bar()
classifier = pipeline("image-classification", model=sys.argv[1], device="cpu")
for image in sorted(Path(sys.argv[2]).glob("*/*_000.jpg")):
    best = classifier(str(image))[0]
    print(f"{image.parent.name + '/' + image.name:24} -> {best['label']:6} {best['score']:.3f}")
PYTHON
say "Done. Look at $out/finetuned: README.md (model card), figures/confusion_matrix_test.png, figures/learning_curves.png"
