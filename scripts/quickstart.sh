#!/usr/bin/env bash
# The main job end to end on a small set made on the spot: bash scripts/quickstart.sh [OUTPUT_FOLDER]
# Pre-trains a tiny MAE, writes it as a reference checkpoint (.pth), converts it, fine-tunes, evaluates, predicts.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
out="${1:-$(mktemp -d "${TMPDIR:-/tmp}/hf_mae_quickstart.XXXXXX")}"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
say() { printf '\n== %s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

say "A toy data set: 3 classes of drawings"
run python "$ROOT/scripts/make_toy_data.py" "$out/data" --images 100

say "A checkpoint to start from: a tiny MAE, pre-trained for a moment, in the reference's layout"
run hf-mae pretrain --recipe quickstart_pretrain --data_dir "$out/data/unlabelled" --output_dir "$out/pretrained"
run hf-mae export "$out/pretrained" "$out/checkpoint.pth"

say "1. Convert: .pth -> stock transformers weights, checked on random input"
run hf-mae convert "$out/checkpoint.pth" "$out/converted" --verify

say "2. Fine-tune: layer-wise lr decay, best epoch by macro F1"
run hf-mae finetune --recipe quickstart --model_name_or_path "$out/checkpoint.pth" \
    --data_dir "$out/data/labelled" --output_dir "$out/finetuned"

say "3. Evaluate on the test split"
run hf-mae evaluate --model_name_or_path "$out/finetuned" --data_dir "$out/data/labelled" --split test --output_dir "$out/test"

say "4. Predict, as anyone would: pipeline(\"image-classification\")"
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
say "Done. Look at $out/finetuned: README.md (model card), confusion_matrix_test.png, learning_curves.png"
