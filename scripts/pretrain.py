"""Masked pre-training for `accelerate launch`; the flags are those of `hf-mae pretrain`.

    accelerate launch --config_file accelerate_configs/ddp.yaml scripts/pretrain.py \\
        --data_dir FRAMES --output_dir runs/pretrained --size vit_base_patch16

The steps are in `hf_mae/workflows/pretrain.py`.
"""

import sys

from hf_mae.cli.main import console_main

if __name__ == "__main__":
    console_main(["pretrain", *sys.argv[1:]])
