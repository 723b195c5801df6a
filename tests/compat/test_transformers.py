"""Contract tests of `compat.transformers`: they fail when the private names of transformers change."""

import dataclasses
import inspect

import pytest
import torch
from support.models import TINY, TensorItems
from transformers import (
    BeitForImageClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    ViTForImageClassification,
)
from transformers.integrations import integration_utils

from hf_mae import FinetuningArguments, MaeFinetuner, build_classifier
from hf_mae.compat.transformers import (
    HookedTrainer,
    build_beit_drop_path,
    get_attn_implementation,
    use_attn_implementation,
)
from hf_mae.compat.transformers_source import training_argument_fields
from hf_mae.training.trackers import TRACKERS

# Parameters of the Trainer methods that are overridden or called.
SIGNATURES = {
    "create_accelerator_and_postprocess": [],
    "_get_num_items_in_batch": ["batch_samples", "device"],
    "_get_grad_norm": ["model", "grad_norm"],
    "_save_checkpoint": ["model", "trial"],
    "_save_rng_state": ["output_dir"],
    "_load_from_checkpoint": ["resume_from_checkpoint", "model"],
    "_load_best_model": [],
    "get_batch_samples": ["epoch_iterator", "num_batches", "device"],
    "get_optimizer_cls_and_kwargs": ["args", "model"],
    "create_optimizer": ["model"],
    "create_scheduler": ["num_training_steps", "optimizer"],
    "training_step": ["model", "inputs", "num_items_in_batch"],
    "compute_loss": ["model", "inputs", "return_outputs", "num_items_in_batch"],
    "save_model": ["output_dir", "_internal_call"],
    "get_train_dataloader": [],
    "get_eval_dataloader": ["eval_dataset"],
    "get_test_dataloader": ["test_dataset"],
}


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    return TensorItems(pixel_values=torch.randn(8, 3, 32, 32, generator=generator), labels=torch.arange(8) % 3)


def finetuner(tiny_pth, data, out, **more):
    arguments = {"num_train_epochs": 2, "warmup_epochs": 0, "per_device_train_batch_size": 4, "use_cpu": True}
    arguments |= {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "learning_rate": 1e-2}
    args = FinetuningArguments(output_dir=str(out), **arguments | more)
    model = build_classifier(tiny_pth, num_labels=3, **TINY)
    return MaeFinetuner(model=model, args=args, train_dataset=data, eval_dataset=data)


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_of_the_trainers_methods(name):
    found = [parameter for parameter in inspect.signature(getattr(Trainer, name)).parameters if parameter != "self"]
    assert found == SIGNATURES[name]


def test_every_overridden_private_method_exists():
    private = [name for name in vars(HookedTrainer) if name.startswith("_") and not name.startswith("__")]
    assert private and all(callable(getattr(Trainer, name)) for name in private)


def test_the_loss_normalizer_divides_the_loss(tiny_pth, data, tmp_path):
    """The Trainer calls it once per update with all micro-batches, and passes the result to `compute_loss`."""
    num_batches, passed = [], []

    class RecordingTrainer(MaeFinetuner):
        def loss_normalizer(self, batches, device):
            num_batches.append(len(batches))
            return super().loss_normalizer(batches, device)

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            if model.training:
                passed.append(float(num_items_in_batch))
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    args = finetuner(tiny_pth, data, tmp_path, gradient_accumulation_steps=2, num_train_epochs=1).args
    RecordingTrainer(model=build_classifier(tiny_pth, num_labels=3, **TINY), args=args, train_dataset=data).train()
    assert num_batches == [2] and passed == [8.0, 8.0]


def test_checkpoints_call_the_hooks_and_all_best_weights_are_loaded(tiny_pth, data, tmp_path):
    calls = []

    class RecordingTrainer(MaeFinetuner):
        def before_checkpoint(self):
            calls.append("before")

        def after_checkpoint(self, folder):
            calls.append(folder.name)
            super().after_checkpoint(folder)

        def load_weights(self, folder):
            calls.append("load")
            super().load_weights(folder)

    saving = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    saving |= {"metric_for_best_model": "loss", "greater_is_better": False}
    args = finetuner(tiny_pth, data, tmp_path, **saving).args
    model = build_classifier(tiny_pth, num_labels=3, **TINY)
    trainer = RecordingTrainer(model=model, args=args, train_dataset=data, eval_dataset=data)
    trainer.train()
    assert calls == ["before", "checkpoint-2", "before", "checkpoint-4", "load"]
    best = BeitForImageClassification.from_pretrained(trainer.state.best_model_checkpoint)
    assert all(torch.equal(value, best.state_dict()[name]) for name, value in model.state_dict().items())
    trainer.load_weights = lambda folder: calls.append(f"resume {folder}")
    trainer._load_from_checkpoint("somewhere")
    assert calls[-1] == "resume somewhere"


def test_the_gradient_norm_is_computed_only_in_logged_updates(tiny_pth, data, tmp_path, monkeypatch):
    computed = []
    stock = Trainer._get_grad_norm
    monkeypatch.setattr(
        Trainer, "_get_grad_norm", lambda self, *args, **kwargs: computed.append(1) or stock(self, *args)
    )
    trainer = finetuner(tiny_pth, data, tmp_path, logging_steps=3)
    trainer.train()
    assert len(computed) == 1  # of updates 1 to 4, the third is logged
    assert [log["step"] for log in trainer.state.log_history if "grad_norm" in log] == [3]


def test_private_state_of_the_trainer(tiny_pth, data, tmp_path):
    trainer = finetuner(tiny_pth, data, tmp_path)
    assert trainer.micro_batch_size == 4 and trainer.model_accepts_loss_kwargs is False
    trainer.create_optimizer()
    scheduler = trainer.create_scheduler(4)
    assert trainer.lr_scheduler is scheduler and trainer._created_lr_scheduler


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_attention_implementation_changes_within_the_block(tiny_pth, pooling):
    model = build_classifier(tiny_pth, pooling=pooling, num_labels=3, **TINY).eval()
    kind = BeitForImageClassification if pooling == "mean" else ViTForImageClassification
    assert isinstance(model, kind) and get_attn_implementation(model) == "sdpa"
    pixel_values = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        before = model(pixel_values=pixel_values).logits
        with use_attn_implementation(model, "eager"):
            assert get_attn_implementation(model) == "eager"
            output = model(pixel_values=pixel_values, output_attentions=True)
            assert output.attentions[0].shape == (1, 3, 17, 17)
        assert get_attn_implementation(model) == "sdpa"
    torch.testing.assert_close(output.logits, before, atol=1e-5, rtol=1e-5)


def test_the_blocks_of_stock_models_have_the_replaced_modules(tiny_pth):
    mean, cls = (build_classifier(tiny_pth, pooling=pooling, num_labels=3, **TINY) for pooling in ("mean", "cls"))
    assert hasattr(mean.base_model.layers[0], "drop_path") and hasattr(cls.base_model.layers[0], "dropout")
    for model in (mean, cls):
        assert isinstance(model.base_model.embeddings.dropout, torch.nn.Dropout)
        assert hasattr(model.base_model.layers[-1], "layernorm_before")
    dropped = build_beit_drop_path(0.5).train()
    torch.manual_seed(0)
    rows = dropped(torch.ones(64, 2, 2))
    assert sorted(rows.unique().tolist()) == [0.0, 2.0]


def test_the_fields_in_the_source_equal_those_of_the_class():
    read = {field.name: field for field in training_argument_fields()}
    real = {field.name: field for field in dataclasses.fields(TrainingArguments) if field.init}
    assert list(read) == list(real)
    for name, field in real.items():
        if isinstance(field.default, (int, float, str)) and read[name].default is not None:
            assert read[name].default == field.default, name
    assert sum(bool(field.help) for field in read.values()) > 100


def test_trackers_exist_in_transformers():
    for name in TRACKERS:
        assert issubclass(getattr(integration_utils, name), TrainerCallback), name


@pytest.mark.skipif(not integration_utils.is_tensorboard_available(), reason="TensorBoard is not installed")
def test_the_tensorboard_callback_keeps_its_writer():
    assert integration_utils.TensorBoardCallback(tb_writer="a writer").tb_writer == "a writer"
