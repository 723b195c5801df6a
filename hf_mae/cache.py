"""Where everything is kept that need not be made twice."""

from pathlib import Path


def cache_folder() -> Path:
    """Where prepared images, verdicts on files, downloads and converted checkpoints are kept: `$HF_HOME/hf_mae`."""
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "hf_mae"
