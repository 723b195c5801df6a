"""Converting a ViT-L checkpoint (1.2 GB, keys of timm) needs less than 2.2 times its size in memory."""

import subprocess
import sys

import pytest

SAVE_CHECKPOINT = """
import sys, timm, torch
with torch.device("meta"):
    model = timm.create_model("vit_large_patch16_224", num_classes=0)
torch.save({"model": {name: torch.full(t.shape, 0.02) for name, t in model.state_dict().items()}}, sys.argv[1])
"""
CONVERT = """
import resource, sys
from transformers.utils import logging
from hf_mae.conversion import convert_checkpoint
logging.disable_progress_bar()
convert_checkpoint(sys.argv[1], sys.argv[2], num_labels=22)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_the_peak_memory_of_vit_large_is_below_2_2_times_the_file_size(tmp_path):
    source = tmp_path / "vit_large.pth"
    subprocess.run([sys.executable, "-c", SAVE_CHECKPOINT, source], check=True)
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, source, tmp_path / "out"], check=True, capture_output=True, text=True
    )
    size = source.stat().st_size
    assert size > 1.1e9
    assert int(done.stdout.split()[-1]) < 2.2 * size
