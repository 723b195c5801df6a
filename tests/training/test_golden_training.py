"""`MaeFinetuner` and `MaePretrainer` reproduce runs of the original MAE code (facebookresearch/mae) to 1e-5."""

import pytest
import torch
from safetensors.torch import load_file
from support.models import TINY, TINY_DECODER, TensorItems

from hf_mae import (
    FinetuningArguments,
    MaeFinetuner,
    MaePretrainer,
    PretrainingArguments,
    build_classifier,
    parameter_groups,
)
from hf_mae.conversion.key_mapping import to_transformers_state_dict
from hf_mae.conversion.layouts.mae import TARGETS
from hf_mae.models.building import build_pretrainer

TOLERANCE = 1e-5
CASES = ["gap_smoothing", "cls_weighted"]


def recording(trainer_class):
    """A trainer class that records the loss of every micro-batch and the learning rates of every update."""

    class Recording(trainer_class):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.losses, self.rates = [], []

        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            if len(self.rates) <= self.state.global_step:
                self.rates.append(sorted({group["lr"] for group in self.optimizer.param_groups}))
            self.losses.append(loss.item())
            return loss

    return Recording


COMMON = {"save_strategy": "no", "use_cpu": True, "disable_tqdm": True, "train_sampling_strategy": "sequential"}


def hyper_parameters(case: dict) -> dict:
    return COMMON | {
        "num_train_epochs": case["epochs"],
        "per_device_train_batch_size": case["batch"],
        "gradient_accumulation_steps": case["accum"],
        "base_learning_rate": case["blr"],
        "warmup_epochs": case["warmup"],
        "weight_decay": case["wd"],
    }


def classifier(golden, name, case):
    path = golden / f"{name}_initial.pth"
    return build_classifier(path, pooling="mean" if case["global_pool"] else "cls", num_labels=5, **TINY)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("way", ["adamw_torch_fused", "adamw_torch", "compiled"])
def test_finetuning_equals_the_original_code(golden, golden_json, tmp_path, name, way):
    case, given = golden_json["cases"][name], load_file(golden / f"{name}.safetensors")
    model = classifier(golden, name, case)
    args = FinetuningArguments(
        output_dir=tmp_path,
        layer_decay=case["ld"],
        smoothing=case.get("smoothing", 0.0),
        class_weights=given["class_weights"].tolist() if "class_weights" in given else "none",
        max_grad_norm=case.get("clip", 0.0),
        drop_path=0.0,
        optim=way if way != "compiled" else "adamw_torch_fused",
        torch_compile=way == "compiled",
        **hyper_parameters(case),
    )
    data = TensorItems(pixel_values=given["train_pixel_values"], labels=given["train_labels"])
    trainer = recording(MaeFinetuner)(model=model, args=args, train_dataset=data)
    trainer.train()
    assert trainer.args.learning_rate == pytest.approx(case["absolute_lr"])
    assert trainer.losses == pytest.approx(case["losses"], abs=TOLERANCE)
    assert len(trainer.rates) == len(case["lrs_per_update"])
    for ours, theirs in zip(trainer.rates, case["lrs_per_update"]):
        assert ours == pytest.approx(theirs, abs=1e-12)
    with torch.no_grad():
        logits = model.eval()(pixel_values=given["eval_pixel_values"]).logits
    torch.testing.assert_close(logits, given["eval_logits"], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_parameter_groups_equal_the_original_code(golden, golden_json, name):
    case = golden_json["cases"][name]
    model = classifier(golden, name, case)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    ours = {
        (round(g["lr_scale"], 12), g["weight_decay"]): {names[id(p)] for p in g["params"]}
        for g in parameter_groups(model, 1.0, case["wd"], case["ld"])
    }
    target = "mean" if case["global_pool"] else "cls"
    theirs = {}
    for group in case["groups"]:
        shapes = {key: torch.zeros(144 if "qkv" in key else 1) for key in group["params"]}
        theirs[round(group["lr_scale"], 12), group["weight_decay"]] = set(
            to_transformers_state_dict(shapes, TARGETS[target]).tensors
        )
    assert ours == theirs


def test_pretraining_equals_the_original_code(golden, golden_json, tmp_path):
    case = golden_json["pretrain_cases"]["pretrain_normpix"]
    given = load_file(golden / "pretrain_normpix.safetensors")
    model = build_pretrainer(golden / "checkpoint-399.pth", **TINY, **TINY_DECODER)
    args = PretrainingArguments(
        output_dir=tmp_path,
        min_learning_rate=case["min_lr"],
        mask_ratio=case["mask_ratio"],
        norm_pix_loss=case["norm_pix_loss"],
        **hyper_parameters(case),
    )
    data = TensorItems(pixel_values=given["train_pixel_values"], noise=given["train_noise"])
    trainer = recording(MaePretrainer)(model=model, args=args, train_dataset=data)
    trainer.train()
    assert trainer.losses == pytest.approx(case["losses"], abs=TOLERANCE)
    assert [rates for rates in trainer.rates] == [pytest.approx([lr], abs=1e-12) for lr in case["lrs_per_update"]]
    with torch.no_grad():
        out = model.eval()(pixel_values=given["eval_pixel_values"], noise=given["eval_noise"])
    torch.testing.assert_close(out.logits, given["eval_pred"], atol=TOLERANCE, rtol=0)
    assert out.loss.item() == pytest.approx(case["eval_loss"], abs=TOLERANCE)


def test_pretraining_has_the_weight_decay_of_the_original_code(golden, golden_json):
    from hf_mae.training.layer_decay import pretraining_parameter_groups

    case = golden_json["pretrain_cases"]["pretrain_normpix"]
    model = build_pretrainer(golden / "checkpoint-399.pth", **TINY, **TINY_DECODER)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    ours = {
        g["weight_decay"] > 0: {names[id(p)] for p in g["params"]}
        for g in pretraining_parameter_groups(model, 1.0, 0.05)
    }
    for decays, key in ((True, "weight_decay"), (False, "no_weight_decay")):
        shapes = {n: torch.zeros(144 if "qkv" in n else 1) for n in case[key]}
        assert ours[decays] == set(to_transformers_state_dict(shapes, TARGETS["pretraining"]).tensors)


@pytest.mark.parametrize("batch, accumulation", [(4, 2), (2, 4)])
@pytest.mark.parametrize("soft", [False, True])
def test_the_split_of_the_batch_does_not_change_the_result(golden, golden_json, tmp_path, batch, accumulation, soft):
    """10 updates of 8 images with class-weighted loss give the same weights for every split into micro-batches."""
    tensors = load_file(golden / "cls_weighted.safetensors")
    labels = tensors["train_labels"]
    if soft:
        labels = torch.softmax(torch.randn(len(labels), 5, generator=torch.Generator().manual_seed(0)), dim=-1)

    def train(batch, accumulation):
        model = classifier(golden, "cls_weighted", golden_json["cases"]["cls_weighted"])
        args = FinetuningArguments(
            output_dir=tmp_path,
            max_steps=10,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            learning_rate=1e-3,
            warmup_epochs=0,
            class_weights=[0.2, 3.0, 1.0, 0.5, 2.0],
            max_grad_norm=1.0,
            **COMMON,
        )
        data = TensorItems(pixel_values=tensors["train_pixel_values"], labels=labels)
        MaeFinetuner(model=model, args=args, train_dataset=data).train()
        return model.state_dict()

    full, split = train(8, 1), train(batch, accumulation)
    # The true gradient of a key bias is zero (softmax cancels it), so AdamW amplifies rounding errors.
    names = [name for name in full if not name.endswith("k_proj.bias")]
    assert max((full[name] - split[name]).abs().max() for name in names) < 1e-5
