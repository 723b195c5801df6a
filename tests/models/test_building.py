"""Stock models from checkpoints, and drop path in both pooling modes."""

import pytest
import torch
from safetensors.torch import load_file
from support.models import tiny_pretrainer

from hf_mae import build_classifier, build_pretrainer
from hf_mae.errors import UsageError
from hf_mae.models.stochastic_depth import get_drop_path_rate, set_drop_path, set_patch_dropout


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_random_weights_are_the_reference_initialisation_of_the_same_sizes(tiny_pth, pooling):
    given, fresh = (
        build_classifier(tiny_pth, pooling=pooling, num_labels=3, random_weights=random) for random in (False, True)
    )
    one, two = given.state_dict(), fresh.state_dict()
    assert {name: value.shape for name, value in one.items()} == {name: value.shape for name, value in two.items()}
    weight = next(name for name in one if name.endswith("layers.0.mlp.fc1.weight"))
    bound = (6 / sum(one[weight].shape)) ** 0.5  # Xavier
    assert not torch.equal(one[weight], two[weight]) and 0.9 * bound < two[weight].abs().max() <= bound
    assert two["classifier.weight"].abs().max() < 1e-3
    positions = next(name for name in one if name.endswith("position_embeddings"))
    torch.testing.assert_close(one[positions], two[positions])  # sines and cosines both times


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_drop_path_rates_grow_linearly_and_leave_the_saved_model_stock(tiny_pth, tmp_path, pooling):
    model = build_classifier(tiny_pth, pooling=pooling, num_labels=3, drop_path=0.4)
    layers = model.base_model.layers
    modules = [layer.drop_path if pooling == "mean" else layer.dropout for layer in layers]
    assert [getattr(m, "drop_prob", 0.0) for m in modules] == pytest.approx([0.0, 0.2, 0.4])
    assert get_drop_path_rate(model) == pytest.approx(0.4)
    model.save_pretrained(tmp_path / "a")
    build_classifier(tiny_pth, pooling=pooling, num_labels=3).save_pretrained(tmp_path / "b")
    assert set(load_file(tmp_path / "a" / "model.safetensors")) == set(load_file(tmp_path / "b" / "model.safetensors"))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_drop_path_drops_whole_branches_of_single_images(tiny_pth, pooling):
    """Per image, each of the two branches of a block is either absent or divided by the share that is kept."""
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
    assert (counts > 40).all(), "each of the four outcomes comes up in about a quarter of the images"
    with torch.no_grad():
        plain = build_classifier(tiny_pth, pooling=pooling, num_labels=3)
        pixels = torch.randn(2, 3, 32, 32)
        base = model.eval().base_model(pixels).last_hidden_state
        torch.testing.assert_close(base, plain.eval().base_model(pixels).last_hidden_state)
    set_drop_path(model, 0.0)
    assert get_drop_path_rate(model) == 0.0


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_patch_dropout_keeps_a_random_share_with_its_positions_and_evaluates_all(tiny_pth, pooling):
    model = build_classifier(tiny_pth, pooling=pooling, num_labels=3)
    pixels = torch.randn(64, 3, 32, 32)
    with torch.no_grad():
        whole = model.eval().base_model.embeddings(pixels)
        logits = model(pixel_values=pixels).logits
        set_patch_dropout(model, 0.5)
        torch.testing.assert_close(model(pixel_values=pixels).logits, logits)
        kept = model.train().base_model.embeddings(pixels)
        assert kept.shape == (64, 1 + 8, 48) and torch.equal(kept[:, 0], whole[:, 0])
        distance = torch.cdist(kept[:, 1:], whole[:, 1:])
        which = distance.argmin(-1)
        assert distance.amin(-1).max() < 1e-2  # each is one of the image's own patches, where it was
        assert all(len(set(row.tolist())) == 8 for row in which)
        assert which.flatten().bincount(minlength=16).min() > 10  # none is always left out
        assert model(pixel_values=pixels).logits.shape == (64, 3)
    set_patch_dropout(model, 0.0)
    assert type(model.base_model.embeddings.dropout) is torch.nn.Dropout


def test_labels_are_kept_and_checked(tiny_pth):
    model = build_classifier(tiny_pth, id2label={0: "cecum", 1: "polyps"}, label2id={"cecum": 0, "polyps": 1})
    assert model.config.num_labels == 2 and model.config.label2id["polyps"] == 1
    with pytest.raises(UsageError, match="num_labels is 3"):
        build_classifier(tiny_pth, num_labels=3, id2label={0: "a", 1: "b"})
    with pytest.raises(UsageError, match="without gaps"):
        build_classifier(tiny_pth, id2label={0: "a", 2: "b"})
    with pytest.raises(UsageError, match="do not agree"):
        build_classifier(tiny_pth, id2label={0: "a", 1: "b"}, label2id={"a": 1, "b": 0})


def test_a_head_for_other_classes_is_replaced(tiny_pth, tmp_path):
    model = build_classifier(tiny_pth, id2label={0: "cecum", 1: "polyps"})
    model.save_pretrained(tmp_path)
    same = build_classifier(tmp_path, id2label={0: "cecum", 1: "polyps"})
    assert torch.equal(same.classifier.weight, model.classifier.weight)
    other = build_classifier(tmp_path, id2label={0: "polyps", 1: "cecum"})
    assert any("other names or in another order" in note for note in other.conversion_report.notes)


def test_from_scratch_is_initialised_as_the_reference_does():
    """Sine-cosine positions (fixed), Xavier-uniform linear layers and patches, zero biases, normal(0.02) tokens."""
    model = tiny_pretrainer()
    embeddings = model.vit.embeddings
    for positions in (embeddings.position_embeddings, model.decoder.decoder_pos_embed):
        assert not positions.requires_grad and not positions[:, 0].any()
        width = positions.shape[-1]
        omega = 1 / 10000 ** (torch.arange(width // 4, dtype=torch.float64) / (width / 4))
        # patch 6 of a 4 x 4 grid: column 2, row 1; the reference encodes the column first
        expected = torch.cat([(2 * omega).sin(), (2 * omega).cos(), omega.sin(), omega.cos()])
        torch.testing.assert_close(positions[0, 7].double(), expected, atol=1e-6, rtol=0)
    patches = embeddings.patch_embeddings.projection.weight
    assert patches.abs().max() <= (6 / (48 + 192)) ** 0.5 + 1e-6
    # qkv is one matrix of (144, 48) there, so its bound is that of the fused matrix
    query = model.vit.layers[0].attention.q_proj.weight
    bound = (6 / (144 + 48)) ** 0.5
    assert 0.95 * bound < query.abs().max() <= bound + 1e-6
    assert all(not p.any() for n, p in model.named_parameters() if n.endswith("bias"))
    assert 0.01 < model.decoder.mask_token.std() < 0.03


def test_the_positions_are_those_of_a_reference_checkpoint(golden):
    from hf_mae.conversion import read_checkpoint
    from hf_mae.conversion.initialization import sincos_position_embedding

    state = read_checkpoint(golden / "checkpoint-399.pth").state
    torch.testing.assert_close(sincos_position_embedding(48, 4), state["pos_embed"], atol=1e-6, rtol=0)
    torch.testing.assert_close(sincos_position_embedding(32, 4), state["decoder_pos_embed"], atol=1e-6, rtol=0)


def test_unknown_size_is_an_error():
    with pytest.raises(UsageError, match="vit_base_patch16"):
        build_pretrainer(size="vit_giant")
