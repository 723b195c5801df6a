"""Flags of tiny trainings."""

TINY_SETTINGS = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 32,
    "patch_size": 8,
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 4,
    "per_device_train_batch_size": 20,
    "learning_rate": 1e-3,
    "warmup_epochs": 1,
}


def pretrain_flags(toy, out, **more):
    """Flags of `hf-mae pretrain` from scratch."""
    settings = {"data_dir": toy / "unlabelled", "output_dir": out} | TINY_SETTINGS | more
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]
