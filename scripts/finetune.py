"""Fine-tuning for `accelerate launch`; the flags are those of `hf-mae finetune`.

    accelerate launch --config_file accelerate_configs/ddp.yaml scripts/finetune.py \\
        --model_name_or_path checkpoint-399.pth --data_dir IMAGES --output_dir runs/first

The steps (load data, build the model, train, evaluate, save) are in `hf_mae/workflows/finetune.py`.
"""

import sys

from hf_mae.cli.main import console_main

if __name__ == "__main__":
    console_main(["finetune", *sys.argv[1:]])
