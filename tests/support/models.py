"""Tiny models, and data sets of tensors."""

import torch

TINY = {"num_attention_heads": 3}  # of the golden checkpoints, whose width does not determine it
TINY_DECODER = {"decoder_num_attention_heads": 4}


def tiny_pretrainer(seed: int = 0):
    """A `ViTMAEForPreTraining` for 32 pixels, with the initial weights of the original code."""
    from hf_mae.models.building import build_pretrainer

    torch.manual_seed(seed)
    return build_pretrainer(
        image_size=32,
        patch_size=8,
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=192,
        decoder_hidden_size=32,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=128,
        norm_pix_loss=True,
    )


class TensorItems(torch.utils.data.Dataset):
    """A data set of tensors for `MaeFinetuner`."""

    def __init__(self, **columns):
        self.columns = columns

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index):
        item = {name: column[index] for name, column in self.columns.items()}
        if "labels" in item and torch.as_tensor(item["labels"]).ndim == 0:
            item["labels"] = int(item["labels"])
        return item
