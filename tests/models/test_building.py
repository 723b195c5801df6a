"""Stock models from checkpoints and from scratch, drop path and patch dropout."""

import pytest
import torch
from safetensors.torch import load_file
from support.messages import raises
from support.models import tiny_pretrainer

from hf_mae import build_classifier
from hf_mae.conversion.facts import FactCode, fact
from hf_mae.models.building import build_pretrainer
from hf_mae.models.messages import ModelMessage
from hf_mae.models.stochastic_depth import apply_patch_dropout, get_drop_path_rate, set_drop_path


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_random_weights_have_the_sizes_of_the_checkpoint_and_the_original_initialization(tiny_pth, pooling):
    loaded, random_model = (
        build_classifier(tiny_pth, pooling=pooling, num_labels=3, random_weights=random) for random in (False, True)
    )
    one, two = loaded.state_dict(), random_model.state_dict()
    assert {name: value.shape for name, value in one.items()} == {name: value.shape for name, value in two.items()}
    weight = next(name for name in one if name.endswith("layers.0.mlp.fc1.weight"))
    bound = (6 / sum(one[weight].shape)) ** 0.5  # Xavier
    assert not torch.equal(one[weight], two[weight]) and 0.9 * bound < two[weight].abs().max() <= bound
    assert two["classifier.weight"].abs().max() < 1e-3
    positions = next(name for name in one if name.endswith("position_embeddings"))
    torch.testing.assert_close(one[positions], two[positions])  # sines and cosines in both models


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_drop_path_rates_grow_linearly_and_the_saved_model_is_stock(tiny_pth, tmp_path, pooling):
    model = build_classifier(tiny_pth, pooling=pooling, num_labels=3, drop_path=0.4)
    layers = model.base_model.layers
    modules = [layer.drop_path if pooling == "mean" else layer.dropout for layer in layers]
    assert [getattr(m, "drop_prob", 0.0) for m in modules] == pytest.approx([0.0, 0.2, 0.4])
    assert get_drop_path_rate(model) == pytest.approx(0.4)
    model.save_pretrained(tmp_path / "a")
    build_classifier(tiny_pth, pooling=pooling, num_labels=3).save_pretrained(tmp_path / "b")
    assert set(load_file(tmp_path / "a" / "model.safetensors")) == set(load_file(tmp_path / "b" / "model.safetensors"))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_drop_path_drops_branches_per_image(tiny_pth, pooling):
    """For each image, each of the two branches of a block is either dropped or divided by the keep probability."""
    model = build_classifier(tiny_pth, pooling=pooling, num_labels=3, drop_path=0.5)
    layer = model.base_model.layers[2]
    x = torch.randn(1, 17, 48).expand(256, -1, -1)
    with torch.no_grad():
        attention = layer.attention(layer.layernorm_before(x[:1]))[0]
        possible = []
        for first in (x[:1], x[:1] + attention / 0.5):
            mlp = layer.mlp(layer.layernorm_after(first))
            possible += [first, first + mlp / 0.5]
        torch.manual_seed(0)
        out = layer.train()(x)
    distance = torch.stack([(out - p).abs().amax(dim=(1, 2)) for p in possible])  # (4, 256)
    assert distance.min(dim=0).values.max() < 1e-5
    counts = distance.argmin(dim=0).bincount(minlength=4)
    assert (counts > 40).all(), "each of the four outcomes occurs for about a quarter of the images"
    with torch.no_grad():
        plain = build_classifier(tiny_pth, pooling=pooling, num_labels=3)
        pixels = torch.randn(2, 3, 32, 32)
        base = model.eval().base_model(pixels).last_hidden_state
        torch.testing.assert_close(base, plain.eval().base_model(pixels).last_hidden_state)
    set_drop_path(model, 0.0)
    assert get_drop_path_rate(model) == 0.0


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_patch_dropout_selects_patches_with_their_positions_in_training_only(tiny_pth, pooling):
    model = build_classifier(tiny_pth, pooling=pooling, num_labels=3)
    pixels = torch.randn(64, 3, 32, 32)
    with torch.no_grad():
        all_tokens = model.eval().base_model.embeddings(pixels)
        logits = model(pixel_values=pixels).logits
    with torch.no_grad(), apply_patch_dropout(model, 0.5):
        torch.testing.assert_close(model(pixel_values=pixels).logits, logits)
        tokens = model.train().base_model.embeddings(pixels)
        assert tokens.shape == (64, 1 + 8, 48) and torch.equal(tokens[:, 0], all_tokens[:, 0])
        distance = torch.cdist(tokens[:, 1:], all_tokens[:, 1:])
        indices = distance.argmin(-1)
        assert distance.amin(-1).max() < 1e-2  # each is a patch of the image with its position
        assert all(len(set(row.tolist())) == 8 for row in indices)
        assert indices.flatten().bincount(minlength=16).min() > 10  # no patch is always dropped
        assert model(pixel_values=pixels).logits.shape == (64, 3)
    assert type(model.base_model.embeddings.dropout) is torch.nn.Dropout


def test_labels_are_stored_and_checked(tiny_pth):
    model = build_classifier(tiny_pth, id2label={0: "cecum", 1: "polyps"}, label2id={"cecum": 0, "polyps": 1})
    assert model.config.num_labels == 2 and model.config.label2id["polyps"] == 1
    with raises(ModelMessage.NUM_LABELS_DIFFER, num_labels=3, count=2):
        build_classifier(tiny_pth, num_labels=3, id2label={0: "a", 1: "b"})
    with raises(ModelMessage.LABEL_IDS_HAVE_GAPS, count=2):
        build_classifier(tiny_pth, id2label={0: "a", 2: "b"})
    with raises(ModelMessage.LABEL_MAPS_DISAGREE):
        build_classifier(tiny_pth, id2label={0: "a", 1: "b"}, label2id={"a": 1, "b": 0})


def test_a_head_with_other_classes_is_replaced(tiny_pth, tmp_path):
    model = build_classifier(tiny_pth, id2label={0: "cecum", 1: "polyps"})
    model.save_pretrained(tmp_path)
    same = build_classifier(tmp_path, id2label={0: "cecum", 1: "polyps"})
    assert torch.equal(same.classifier.weight, model.classifier.weight)
    other = build_classifier(tmp_path, id2label={0: "polyps", 1: "cecum"})
    assert fact(FactCode.HEAD_CLASSES_DIFFER) in other.conversion_report.notes


def test_models_from_scratch_have_the_original_initialization():
    """Fixed sine-cosine positions, Xavier-uniform linear layers and patches, zero biases, normal(0.02) tokens."""
    model = tiny_pretrainer()
    embeddings = model.vit.embeddings
    for positions in (embeddings.position_embeddings, model.decoder.decoder_pos_embed):
        assert not positions.requires_grad and not positions[:, 0].any()
        width = positions.shape[-1]
        omega = 1 / 10000 ** (torch.arange(width // 4, dtype=torch.float64) / (width / 4))
        # patch 6 of a 4 x 4 grid: column 2, row 1; the original code encodes the column first
        expected = torch.cat([(2 * omega).sin(), (2 * omega).cos(), omega.sin(), omega.cos()])
        torch.testing.assert_close(positions[0, 7].double(), expected, atol=1e-6, rtol=0)
    patches = embeddings.patch_embeddings.projection.weight
    assert patches.abs().max() <= (6 / (48 + 192)) ** 0.5 + 1e-6
    # in the original code qkv is one (144, 48) matrix, so the bound is that of the fused matrix
    query = model.vit.layers[0].attention.q_proj.weight
    bound = (6 / (144 + 48)) ** 0.5
    assert 0.95 * bound < query.abs().max() <= bound + 1e-6
    assert all(not p.any() for n, p in model.named_parameters() if n.endswith("bias"))
    assert 0.01 < model.decoder.mask_token.std() < 0.03


def test_position_embeddings_equal_those_of_an_original_checkpoint(golden):
    from hf_mae.conversion import read_checkpoint
    from hf_mae.conversion.initialization import sincos_position_embedding

    state = read_checkpoint(golden / "checkpoint-399.pth").state
    torch.testing.assert_close(sincos_position_embedding(48, 4), state["pos_embed"], atol=1e-6, rtol=0)
    torch.testing.assert_close(sincos_position_embedding(32, 4), state["decoder_pos_embed"], atol=1e-6, rtol=0)


def test_unknown_sizes_are_rejected():
    with raises(ModelMessage.UNKNOWN_SIZE, size="vit_giant"):
        build_pretrainer(size="vit_giant")
