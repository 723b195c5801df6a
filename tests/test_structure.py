"""Structure of the package: private names of libraries, portability, the documentation site."""

import ast
import inspect
import json
import os
import re
import subprocess
import sys

import grimp
import numpy as np
import pytest
import yaml
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from support.paths import ROOT

import hf_mae
from hf_mae.settings.commands import COMMANDS

PACKAGE = ROOT / "hf_mae"
SOURCES = [path for folder in (PACKAGE, ROOT / "conversion") for path in folder.rglob("*.py")]


def find_import_cycles() -> list[list[str]]:
    """Groups of modules that import each other, also inside functions."""
    graph = grimp.build_graph("hf_mae")
    modules = sorted(graph.modules)
    numbers = {module: number for number, module in enumerate(modules)}
    edges = [
        (numbers[importer], numbers[imported])
        for importer in modules
        for imported in graph.find_modules_directly_imported_by(importer)
    ]
    matrix = csr_array((np.ones(len(edges)), tuple(zip(*edges))), shape=(len(modules), len(modules)))
    _, groups = connected_components(matrix, connection="strong")
    return [
        [modules[number] for number in np.flatnonzero(groups == group)]
        for group in np.flatnonzero(np.bincount(groups) > 1)
    ]


def test_no_modules_import_each_other():
    assert find_import_cycles() == []


def test_no_package_has_more_than_a_quarter_of_the_lines():
    lines: dict[str, int] = {}
    for path in SOURCES:
        package = path.relative_to(PACKAGE).parts[0] if path.is_relative_to(PACKAGE) else "conversion"
        lines[package] = lines.get(package, 0) + len(path.read_text(encoding="utf-8").splitlines())
    assert max(lines.values()) <= sum(lines.values()) / 4, lines


def test_public_names_are_those_of_the_contract_and_the_commands():
    """The names of ../shared/DESIGN.md, and one function per command."""
    contract = {"FinetuningArguments", "MaeFinetuner", "PretrainingArguments", "MaePretrainer", "load_image_folder"}
    contract |= {"build_classifier", "parameter_groups", "UsageError", "RunRecord", "compare"}
    commands = {command.function_name for command in COMMANDS.values()}
    assert set(hf_mae.__all__) == contract | commands and len(hf_mae.__all__) == len(set(hf_mae.__all__))
    for name in commands:
        function = getattr(hf_mae, name)
        assert (function.__name__, function.__module__) == (name, f"hf_mae.workflows.{name}")
        assert [*inspect.signature(function).parameters] == ["arguments", "recipe", "flags"] and function.__doc__


def test_the_main_path_is_one_page():
    path = PACKAGE / "workflows" / "finetune.py"
    imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    assert len(path.read_text().splitlines()) < 150
    assert len({(node.level, node.module) for node in imports if node.level}) <= 20


def test_private_names_of_other_libraries_are_used_in_compat_only():
    """Attributes that start with an underscore, of anything except `self` and `cls`."""
    found = []
    for path in SOURCES:
        if path.parent == PACKAGE / "compat":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr):
                owner = node.value
                own = isinstance(owner, ast.Name) and owner.id in ("self", "cls")
                own |= isinstance(owner, ast.Attribute) and node.attr in ("_requested_lrs",)
                if not own:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}")
    assert not found


def test_calls_that_can_load_code_forbid_it():
    """`from_pretrained` runs code of the source if the user agrees, pickles run code, and so do other loaders."""
    guards = {
        r"(.*\.)?from_pretrained": "trust_remote_code=False",
        r"torch\.load": "weights_only=True",
        r"(pickle|dill|joblib|torch\.hub|evaluate|runpy)\.\w*(load|run_path)\w*|pd\.read_pickle": None,
        r"pipeline|exec|eval": None,
        r"(importlib\.util\.)?(spec_from_file_location|exec_module)": None,
    }
    found = []
    for path in SOURCES:
        for node in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            name, call = ast.unparse(node.func), ast.unparse(node)
            own_class = re.match(r"type\(.*\)\.from_pretrained", name)  # of a model that is loaded
            for pattern, guard in guards.items():
                if re.fullmatch(pattern, name):
                    if not own_class and (guard is None or guard not in call):
                        found.append(f"{path.relative_to(ROOT)}:{node.lineno} {call}")
            if re.search(r"trust_remote_code=(?!False)|allow_pickle=True|weights_only=False", call):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} {call}")
    assert not found


def test_yaml_of_a_user_is_read_by_one_function():
    """`yaml.load` has no limit on references, sizes and depths; the templates are files of the package."""
    found = {
        f"{path.parent.name}/{path.name}"
        for path in SOURCES
        if re.search(r"yaml\.(safe_|full_|unsafe_)?load(_all)?\(|OmegaConf|metadata_load\(", path.read_text())
    }
    assert found == {"settings/yaml_files.py", "reporting/text_templates.py"}


@pytest.mark.launch
def test_the_package_works_without_posix_modules_and_signals(tiny_pth, toy, tmp_path):
    """Every module is imported, a folder is locked, and a model is converted, evaluated and used without `fcntl`,
    `resource`, SIGUSR1, fork and similar names."""
    program = ROOT / "tests" / "support" / "windows.py"
    argv = [sys.executable, program, tmp_path, tiny_pth, toy / "labelled"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    second_lock, written, *_ = done.stdout.splitlines()
    assert second_lock.startswith("FileMessage.")
    assert written == "text ['text.txt']"
    assert "imagenet-vit-base" in done.stdout and "accuracy" in done.stdout
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 19


@pytest.mark.launch
def test_the_documentation_site_builds_without_warnings(tmp_path):
    """Every page is in the navigation, every link and anchor resolves, every public name is documented."""
    done = subprocess.run(
        ["bash", ROOT / "scripts" / "build_docs.sh", tmp_path],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    built = {path.parent.name for path in tmp_path.glob("*/index.html")}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"} <= built
    page = (tmp_path / "api" / "hf_mae.html").read_text()
    assert all(f'id="{name}"' in page for name in hf_mae.__all__)


def test_the_kubernetes_job_in_the_docs_matches_its_schema():
    """The classes of the training operator read the job: no unknown field, no missing field."""
    from kubeflow.training import models
    from kubernetes import client

    page = (ROOT / "docs" / "scale.md").read_text()
    job = yaml.safe_load(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1])
    for name in dir(models):
        if not hasattr(client, name):
            setattr(client.models, name, getattr(models, name))  # the deserializer looks up classes here

    class Response:
        data = json.dumps(job)

    api = client.ApiClient()
    read = api.deserialize(Response, "KubeflowOrgV1PyTorchJob")
    assert api.sanitize_for_serialization(read) == job
    arguments = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["args"]
    flags = (ROOT / "docs" / "reference.md").read_text()
    assert all(argument in flags for argument in arguments if argument.startswith("--"))
