"""Commands of the reference, of RETFound and of timm, flag by flag.

The tables are of main_finetune.py of facebookresearch/mae and of rmaphoh/RETFound_MAE, and of train.py of timm 1.0.
"""

import shlex
from dataclasses import dataclass, field
from pathlib import PurePath

from ..errors import CommandLineError

# Theirs -> ours, with the same values.
_BOTH = {
    "batch_size": "per_device_train_batch_size",
    "epochs": "num_train_epochs",
    "drop_path": "drop_path",
    "clip_grad": "max_grad_norm",
    "weight_decay": "weight_decay",
    "lr": "learning_rate",
    "layer_decay": "layer_decay",
    "min_lr": "min_learning_rate",
    "warmup_epochs": "warmup_epochs",
    "aa": "auto_augment",
    "smoothing": "smoothing",
    "reprob": "random_erasing",
    "mixup": "mixup",
    "cutmix": "cutmix",
    "mixup_prob": "mixup_prob",
    "mixup_switch_prob": "mixup_switch_prob",
    "mixup_mode": "mixup_mode",
    "seed": "seed",
    "resume": "resume_from_checkpoint",
}
_MAE = _BOTH | {
    "accum_iter": "gradient_accumulation_steps",
    "input_size": "image_size",
    "blr": "base_learning_rate",
    "finetune": "model_name_or_path",
    "data_path": "data_dir",
    "output_dir": "output_dir",
    "num_workers": "dataloader_num_workers",
}
_TIMM = _BOTH | {
    "data_dir": "data_dir",
    "initial_checkpoint": "model_name_or_path",
    "model": "model_name_or_path",
    "validation_batch_size": "per_device_eval_batch_size",
    "grad_accum_steps": "gradient_accumulation_steps",
    "img_size": "image_size",
    "lr_base": "base_learning_rate",
    "workers": "dataloader_num_workers",
    "output": "output_dir",
    "checkpoint_hist": "save_total_limit",
    "log_interval": "logging_steps",
    "model_ema_decay": "ema",
}
_TIMM_SHORT = {"b": "batch_size", "j": "workers", "vb": "validation_batch_size"}
# Theirs that need no counterpart, and why.
_NOT_NEEDED = {
    **dict.fromkeys(("nb_classes", "num_classes"), "the data tells"),
    "model": "the checkpoint tells",
    "dist_eval": "every image counts once, on any number of processes",
    **dict.fromkeys(("world_size", "local_rank", "dist_url", "dist_on_itp", "device"), "accelerate launch tells"),
    **dict.fromkeys(("pin_mem", "no_pin_mem"), "images are pinned where there is a GPU"),
    "start_epoch": "the checkpoint tells",
    "savemodel": "the best epoch is always saved",
    "adaptation": "finetune; --freeze_backbone true trains the head alone",
    "model_arch": "the checkpoint tells",
    **dict.fromkeys(("opt", "sched", "opt_betas"), "AdamW with a cosine, as the reference"),
    **dict.fromkeys(("channels_last", "fuser", "fast_norm"), "speed is ours to find"),
}
# What is written where theirs gives a flag without a value.
_SWITCHES = {
    "global_pool": ("pooling", "mean"),
    "cls_token": ("pooling", "cls"),
    "amp": ("fp16", "true"),
    "freeze_backbone": ("freeze_backbone", "true"),
    "model_ema": ("ema", "0.9998"),
}
# Defaults of theirs that differ from ours, where they are not given.
_DEFAULTS = {
    "retfound": {"warmup_epochs": "10"},
    "timm": {
        "epochs": "300",
        "batch_size": "128",
        "weight_decay": "2e-5",
        "layer_decay": "1",
        "drop_path": "0",
        "aa": "none",
        "reprob": "0",
        "min_lr": "0",
    },
}
_LAUNCH = ("nproc_per_node", "nproc-per-node", "nnodes", "node_rank", "master_port", "master_addr", "use_env")


@dataclass
class Translation:
    """A command here.

    Args:
        source: whose command it was: `mae`, `retfound` or `timm`.
        processes: that it starts on one machine.
        verb: `finetune` or `evaluate`.
        flags: ours.
        not_needed: flags of theirs that need no counterpart, and why.
        without: flags of theirs that have none.
        remarks: what else is to be known.
    """

    source: str
    processes: int = 1
    verb: str = "finetune"
    flags: dict[str, str] = field(default_factory=dict)
    not_needed: dict[str, str] = field(default_factory=dict)
    without: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def command(self) -> str:
        """The command line."""
        words = [word for name, value in self.flags.items() for word in (f"--{name}", *shlex.split(value))]
        start = ["hf-mae", self.verb]
        if self.processes > 1:
            start = ["accelerate", "launch", "--num_processes", str(self.processes), "-m", "hf_mae", self.verb]
        return shlex.join([*start, *words])

    def summary(self) -> str:
        """The command, and what became of every flag that is not in it."""
        lines = [self.command(), ""]
        lines += [f"# not needed: --{name} ({why})" for name, why in self.not_needed.items()]
        lines += [f"# no counterpart: --{name}" for name in self.without]
        return "\n".join([*lines, *(f"# {text}" for text in self.remarks)]).rstrip()


def translate(words: list[str]) -> Translation:
    """A command of theirs as one here.

    Args:
        words: the command, as one text or split into words.

    Raises:
        CommandLineError: it is none of those that are known.
    """
    words = shlex.split(words[0]) if len(words) == 1 else list(words)
    place = next((i for i, word in enumerate(words) if PurePath(word).name in ("main_finetune.py", "train.py")), None)
    if place is None:
        raise CommandLineError(
            "translate takes a command of facebookresearch/mae's or RETFound's main_finetune.py, or of timm's "
            "train.py, in quotes."
        )
    given = _given(words[place + 1 :])
    source = _source(PurePath(words[place]).name, given)
    found = Translation(source, _processes(words[:place]))
    table = _TIMM if source == "timm" else _MAE
    for name, words in given.items():
        _one_flag(found, table, name, words)
    if found.verb == "finetune":
        for name, default in _DEFAULTS.get(source, {}).items():
            if name not in given:
                found.flags.setdefault(table.get(name, name), default)
    _finish(found, given)
    return found


def _given(words: list[str]) -> dict[str, list[str]]:
    """Flags with their values, words before the first flag as `data_dir`."""
    given: dict[str, list[str]] = {}
    name = "data_dir"
    for word in words:
        if word.startswith("-") and not _is_number(word):
            name, equals, value = word.lstrip("-").partition("=")
            name = _TIMM_SHORT.get(name, name).replace("-", "_")
            given[name] = [value] if equals else []
        else:
            given.setdefault(name, []).append(word)
    return given


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _source(script: str, given: dict[str, list[str]]) -> str:
    if script == "train.py":
        return "timm"
    retfound = {"task", "adaptation", "savemodel", "model_arch"} & set(given)
    return "retfound" if retfound or "RETFound" in " ".join(given.get("finetune", [])) else "mae"


def _processes(launcher: list[str]) -> int:
    for number, word in enumerate(launcher):
        name, equals, value = word.lstrip("-").partition("=")
        if name.replace("-", "_") == "nproc_per_node":
            value = value if equals else (launcher[number + 1] if number + 1 < len(launcher) else "")
            return int(value) if value.isdigit() else 1
    return 1


def _one_flag(found: Translation, table: dict[str, str], name: str, value: list[str]) -> None:
    if name in _SWITCHES and name not in table:
        found.flags.setdefault(*_SWITCHES[name])
    elif name in table and not (name == "model" and found.source != "timm"):
        if value:
            found.flags[table[name]] = shlex.join(value)
    elif name in _NOT_NEEDED:
        found.not_needed[name] = _NOT_NEEDED[name]
    elif name not in ("eval", "task", "log_dir", "amp_dtype", "pretrained", "mean", "std", "experiment", *_LAUNCH):
        found.without.append(name)


def _finish(found: Translation, given: dict[str, list[str]]) -> None:
    """What follows from several flags together."""
    if "log_dir" in given:
        found.flags["report_to"] = "tensorboard"
    if "task" in given or "experiment" in given:
        name = (given.get("task") or given.get("experiment") or ["run"])[0].strip("./") or "run"
        folder = found.flags.get("output_dir", "runs").rstrip("/")
        found.flags["output_dir"] = f"{folder}/{name}"
    if {"mean", "std"} <= set(given):
        found.flags["mean_std"] = " ".join([*given["mean"], *given["std"]])
    if given.get("amp_dtype") == ["bfloat16"]:
        found.flags.pop("fp16", None)
        found.flags["bf16"] = "true"
    if found.source == "timm" and given.get("opt") not in (["adamw"], ["adamW"]):
        found.remarks.append(
            "timm trains with another optimizer (SGD, if not given): its learning rate is none for AdamW."
        )
    if found.source == "timm" and found.flags.get("model_name_or_path", "").startswith("vit"):
        found.remarks.append(
            "--model_name_or_path takes weights: a .pth, a folder, a Hub id, or a name of hf-mae checkpoints."
        )
    if "eval" in given:
        _as_evaluation(found)
        return
    found.flags.setdefault("output_dir", "runs/translated")
    found.flags["transforms"] = "imagenet"
    if found.source == "retfound":
        found.flags.setdefault("metric_for_best_model", "f1_auroc_kappa")
        found.remarks.append(
            "Their newer versions keep the epoch with the best (macro F1 + AUROC + kappa) / 3; older ones AUROC."
        )
    found.remarks.append("The data folder has train/, val/ and test/ with a folder for each class, as theirs.")


def _as_evaluation(found: Translation) -> None:
    found.verb = "evaluate"
    model = found.flags.get("resume_from_checkpoint") or found.flags.get("model_name_or_path", "MODEL")
    data = found.flags.get("data_dir", "DATA")
    folder = found.flags.get("output_dir", "runs/evaluated")
    found.flags = {"model_name_or_path": model, "data_dir": data, "split": "test", "output_dir": folder}
    found.remarks.append("A .pth of theirs is converted first: hf-mae convert CHECKPOINT.pth FOLDER --labels CLASSES.")
