"""MMPretrain: the same networks as in `mae`, with other names."""

from dataclasses import replace

from .mae import MAE

MMPRETRAIN = replace(
    MAE,
    name="mmpretrain",
    title="MAE and ViT of MMPretrain",
    anchor=r"(?:backbone\.)?patch_embed\.projection\.weight",
    renames=(
        (r"^backbone\.", ""),
        (r"^neck\.ln1\.", "decoder_norm."),
        (r"^neck\.", ""),
        (r"^patch_embed\.projection\.", "patch_embed.proj."),
        (r"^layers\.(\d+)\.", r"blocks.\1."),
        (r"^((?:decoder_)?blocks\.\d+)\.ln([12])\.", r"\1.norm\2."),
        (r"^((?:decoder_)?blocks\.\d+)\.ffn\.layers\.0\.0\.", r"\1.mlp.fc1."),
        (r"^((?:decoder_)?blocks\.\d+)\.ffn\.layers\.1\.", r"\1.mlp.fc2."),
        (r"^ln1\.", "norm."),
        (r"^ln2\.", "fc_norm."),
        (r"^head\.(layers\.head|fc)\.", "head."),
    ),
)
