"""The house: what the layout promises, and no linter looks at."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

import hf_mae
from hf_mae.settings.commands import COMMANDS

PACKAGE = ROOT / "hf_mae"
SOURCES = [path for folder in (PACKAGE, ROOT / "conversion") for path in folder.rglob("*.py")]
LONGEST = 50  # lines of a function, without its docstring


def module_of(verb: str) -> str:
    return verb.replace("-", "_")


def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]


def test_no_function_is_longer_than_a_reader_can_hold():
    long = []
    for path in SOURCES:
        for node in functions(path):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body and (lines := body[-1].end_lineno - body[0].lineno + 1) > LONGEST:
                long.append(f"{path.relative_to(ROOT)}: {node.name} ({lines} lines)")
    assert not long


def test_nothing_but_the_command_line_prints():
    found = [
        str(path.relative_to(PACKAGE))
        for path in SOURCES
        if path.parent != PACKAGE / "cli"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    ]
    assert found == ["sharing/onnx_example.py"]  # a program of its own


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_verb_of_the_command_line_is_a_parser_and_a_main(verb):
    names = [node.name for node in functions(PACKAGE / "cli" / f"{module_of(verb)}.py") if node.name[0] != "_"]
    assert names == ["parser", "main"]


@pytest.mark.parametrize(
    "verb", [verb for verb in COMMANDS if verb not in ("configs", "recipes", "benchmarks", "translate", "completion")]
)
def test_every_verb_has_a_workflow(verb):
    assert (PACKAGE / "workflows" / f"{module_of(verb)}.py").is_file()


def test_workflows_parse_nothing():
    for path in (PACKAGE / "workflows").glob("*.py"):
        assert not re.search(r"\bargparse\b|sys\.argv", path.read_text()), path


def test_private_names_of_other_libraries_are_in_compat_alone():
    """An attribute that begins with an underscore, of anything but `self`, `cls`, or a module of this package."""
    found = []
    for path in SOURCES:
        if path.parent == PACKAGE / "compat":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr):
                owner = node.value
                ours = isinstance(owner, ast.Name) and owner.id in ("self", "cls")
                ours |= isinstance(owner, ast.Attribute) and node.attr in ("_asked",)
                if not ours:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}")
    assert not found


def test_files_are_written_in_one_room():
    """Elsewhere nothing opens a file to write, but libraries that write their own."""
    writes = re.compile(r"open\([^)]*[\"'][wa]b?[\"']|\.write_text\(|\.write_bytes\(")
    found = [
        f"{path.relative_to(ROOT)}: {match.group(0)}"
        for path in SOURCES
        if path.parent != PACKAGE / "files"
        for match in writes.finditer(path.read_text())
    ]
    # What `kept` and `whole_file` hand out; and the app of a Space, which has nothing of the package.
    assert found == [
        "hf_mae/data/check.py: .write_text(",
        'hf_mae/data/packing.py: open(temporary, "wb"',
        'hf_mae/data/packing.py: open(fileobj=hashed, mode="w"',
        'hf_mae/sharing/space_app.py: open(path, "w"',
    ]


def test_conversion_knows_errors_files_and_compat_alone():
    names = re.compile(r"from hf_mae(?:\.(\w+))?")
    found = {
        match.group(1) for path in (ROOT / "conversion").glob("*.py") for match in names.finditer(path.read_text())
    }
    assert found == {"errors", "files", "compat", "_lazy"}


@pytest.mark.launch
def test_nothing_that_only_posix_has_is_needed_to_begin(tmp_path):
    """Every module is imported, and a folder locked, without `fcntl`, `resource`, SIGUSR1 and the like."""
    program = ROOT / "tests" / "support" / "windows.py"
    done = subprocess.run([sys.executable, program, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    refused, kept, *_ = done.stdout.splitlines()
    assert "is being written by another run (process " in refused
    assert kept == "kept ['kept.txt']"
    assert "imagenet-vit-base" in done.stdout


@pytest.mark.launch
def test_the_docs_site_is_built_without_a_warning(tmp_path):
    """Every page in the navigation, every link and anchor right, and every public name in the reference."""
    done = subprocess.run(
        ["bash", ROOT / "scripts" / "build_docs.sh", tmp_path],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    built = {path.parent.name for path in tmp_path.glob("*/index.html")}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"} <= built
    reference = (tmp_path / "api" / "hf_mae.html").read_text()
    assert all(f'id="{name}"' in reference for name in hf_mae.__all__)


def test_the_kubernetes_job_of_the_docs_is_of_its_schema():
    """The training operator's own classes read it whole: every field is theirs, and none that they need is missing."""
    import json

    import yaml
    from kubeflow.training import models
    from kubernetes import client

    page = (ROOT / "docs" / "scale.md").read_text()
    job = yaml.safe_load(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1])
    for name in dir(models):
        if not hasattr(client, name):
            setattr(client.models, name, getattr(models, name))  # where its reader looks for classes

    class Answer:
        data = json.dumps(job)

    api = client.ApiClient()
    read = api.deserialize(Answer, "KubeflowOrgV1PyTorchJob")
    assert api.sanitize_for_serialization(read) == job
    words = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["args"]
    known = (ROOT / "docs" / "reference.md").read_text()
    assert all(word in known for word in words if word.startswith("--"))
