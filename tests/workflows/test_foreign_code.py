"""No command runs code of a model folder, a data folder or a metric folder, whatever the user answers."""

import json
import pickle
import shutil

import pytest
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from hf_mae.cli.main import main
from hf_mae.settings.commands import COMMANDS, command_options

VARIABLES = ("TRUST_REMOTE_CODE", "HF_TRUST_REMOTE_CODE", "HF_DATASETS_TRUST_REMOTE_CODE", "HF_ALLOW_CODE_EVAL")
CLASSES = ("AutoConfig", "AutoModel", "AutoModelForImageClassification", "AutoImageProcessor", "AutoProcessor")
MODEL_OPTIONS = ("model_name_or_path", "teacher", "runs")
DATA_OPTIONS = ("data_dir", "images")


class Gadget:
    """A pickle of it opens a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A folder with a tiny classifier and its image processor."""
    folder = tmp_path_factory.mktemp("classifier")
    sizes = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 96}
    ViTForImageClassification(ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=2)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture
def executed(tmp_path, monkeypatch):
    """A path that planted code writes; the user answers y to each question, and the environment allows code."""
    import datasets

    monkeypatch.setattr("builtins.input", lambda *_: (tmp_path / "executed").write_text("a question") and "y")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_TRUST_REMOTE_CODE", True, raising=False)
    for name in VARIABLES:
        monkeypatch.setenv(name, "1")
    return tmp_path / "executed"


def plant(folder, executed):
    """Writes code and pickles with the names that libraries look for."""
    folder.mkdir(exist_ok=True)
    for name in ("mine", "modeling_mine", "handler", "pipeline", "__init__", folder.name):
        (folder / f"{name}.py").write_text(f"open({str(executed)!r}, 'w').write({name!r})\n")
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt", "x.npy", "x.pkl"):
        (folder / name).write_bytes(pickle.dumps(Gadget(executed)))
    return folder


def change_json(path, change):
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def plant_model(source, target, executed, file):
    """Copies a classifier; its config.json or preprocessor_config.json names the planted code."""
    shutil.copytree(source, target)
    plant(target, executed)
    names = {name: "mine.Mine" for name in CLASSES}
    change_json(
        target / file, {"auto_map": names, "custom_pipelines": {"image-classification": {"impl": "pipeline.X"}}}
    )
    return target


def plant_data(folder, executed):
    """Writes a dataset of a loading script, as `datasets` ran it before version 4."""
    plant(folder, executed)
    (folder / "dataset_infos.json").write_text(json.dumps({"default": {"builder_name": folder.name}}))
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: '*.py'\n---\n")
    return folder


def command_arguments(command, values, output):
    """Returns the arguments and flags of a command for paths by the name of its option; None if it takes none."""
    words = [word for word in command.arguments.replace("--", "").replace("[", "").replace("]", "").split()]
    names = [word for word in words if word in values]
    if not names:
        return None
    options = command_options(command.name)
    flags = [word for name in names for word in (f"--{name}", str(values[name]))]
    for name in ("output_dir", "output"):
        if name in words or (command.is_training and name in options):
            flags += [f"--{name}", f"{output}.pth" if name == "output" else str(output)]
    return [command.name, *flags, *(["--use_cpu", "true"] if command.is_training else [])]


def check_refused(argv, executed, capfd):
    """Checks that a command ends with one sentence, and ran nothing."""
    status = main(argv)
    error = capfd.readouterr().err.strip()
    assert not executed.exists(), f"{argv}: {executed.read_text()}"
    assert status in (1, 2) and error and "Traceback" not in error, f"{argv}: {status}, {error}"
    assert f"hf-mae {argv[0]}: " in error.splitlines()[-1], f"{argv}: {error}"


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_code_in_a_model_folder(classifier, toy, executed, tmp_path, capfd, file):
    model = plant_model(classifier, tmp_path / "model", executed, file)
    values = dict.fromkeys(MODEL_OPTIONS, model) | dict.fromkeys(DATA_OPTIONS, toy / "labelled")
    check_each_command(values, MODEL_OPTIONS, executed, tmp_path / "out", capfd)


def test_code_in_a_data_folder(classifier, executed, tmp_path, capfd):
    data = plant_data(tmp_path / "data", executed)
    values = dict.fromkeys(MODEL_OPTIONS, classifier) | dict.fromkeys(DATA_OPTIONS, data)
    check_each_command(values, DATA_OPTIONS, executed, tmp_path / "out", capfd)


def test_code_in_a_metric_folder(classifier, toy, executed, tmp_path, capfd):
    metric = plant(tmp_path / "metric", executed)
    values = {"model_name_or_path": classifier, "teacher": classifier, "data_dir": toy / "labelled"}
    for command in COMMANDS.values():
        options = command_options(command.name)
        for name in {"metric_for_best_model", "score", "select_by"} & options.keys():
            argv = command_arguments(command, values, tmp_path / "out") or [command.name]
            check_refused([*argv, f"--{name}", str(metric)], executed, capfd)


def check_each_command(values, planted, executed, output, capfd):
    checked = 0
    for command in COMMANDS.values():
        argv = command_arguments(command, values, output)
        if argv and any(f"--{name}" in argv for name in planted):
            check_refused(argv, executed, capfd)
            checked += 1
    assert checked > 10
