"""Every command of the README and of docs/ runs, as it stands there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import fake_hub
from support.cli_process import run_cli, run_python
from support.paths import ROOT, SHARED, load_script
from support.stub_figures import use_stub_figures

PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
# Run elsewhere: by CI itself, by tests of their own, by whoever installs, and, as benchmarks, by hand.
ELSEWHERE = (
    *("scripts/test.sh", "scripts/quickstart.sh", "scripts/build_docs.sh", "scripts/benchmark_", "scripts/study_"),
    *("pip install", "hf-mae demo"),
)
# Half an hour each: two updates of them are run.
LONG = ("--recipe polyp_crops",)
# 100 epochs of the few images here: two of them are run.
CHOOSES_EPOCHS = "hf-mae finetune checkpoint.pth images --auto"


def environment() -> dict:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}


def commands(page: str) -> list[tuple[str, str]]:
    found = []
    for language, block in re.findall(r"```(bash|python)\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL):
        if language == "python":
            found.append((language, block))
            continue
        for command in re.sub(r"\\\n\s*", "", block).splitlines():
            command = command.split(" #")[0].strip()
            if command.startswith(CHOOSES_EPOCHS):
                command += " --num_train_epochs 2"
            if command and not any(word in command for word in ELSEWHERE):
                found.append((language, command))
    return found


@pytest.fixture(scope="module")
def place(tiny_pth, toy, tmp_path_factory):
    """A folder with what the README says you have: checkpoint.pth, images/, image.jpg, and the project's files."""
    folder = tmp_path_factory.mktemp("readme") / "project"
    shutil.copytree(toy / "labelled", folder / "images")
    shutil.copy(tiny_pth, folder / "checkpoint.pth")
    shutil.copytree(toy / "unlabelled", folder / "frames")
    shutil.copy(toy / "unlabelled" / "frame_0000.jpg", folder / "image.jpg")
    (folder / "more").mkdir()
    from PIL import Image

    Image.open(folder / "image.jpg").save(folder / "more" / "1.png")
    for name in ("accelerate_configs", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    if SHARED.is_dir():
        (folder.parent / "shared").symlink_to(SHARED)
    with fake_hub.run_fake_hub() as (_, url):
        yield folder, fake_hub.hub_environment(url, folder)


@pytest.mark.launch
@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_command_runs_in_the_order_of_the_page(place, page, tmp_path):
    """In a folder of its own for each page, but with the run that the README makes, and with figures that are drawn for
    the README alone."""
    made, hub = place
    folder = tmp_path / "project"
    shutil.copytree(made, folder, symlinks=True)
    if SHARED.is_dir():
        (tmp_path / "shared").symlink_to(SHARED)
    if "runs/first" in (ROOT / page).read_text() and page not in ("README.md", "docs/quickstart.md"):
        first = next(command for _, command in commands("README.md") if "--output_dir runs/first" in command)
        subprocess.run(["bash", "-c", first], cwd=folder, check=True, capture_output=True, env=environment())
    use_stub_figures(page != "README.md")
    for language, command in commands(page):
        if any(word in command for word in LONG):
            if not SHARED.is_dir():
                continue  # the real images are beside the checkout only where the project is developed
            command += (
                " --max_steps 2 --eval_strategy no --load_best_model_at_end false --torch_compile false --bf16 false"
            )
            command = command.replace("--seeds 0 1 2", "--seeds 0")
            if "hf-mae pretrain" in command:
                command = command.replace("--load_best_model_at_end false", "").replace("--eval_strategy no", "")
        done = run(language, command, folder, hub if "hf-mae push" in command else None)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, command


def run(language: str, command: str, folder: Path, env: dict | None) -> subprocess.CompletedProcess:
    """As a user would; an `hf-mae` in a fork of a process that has it imported."""
    words = shlex.split(command) if language == "bash" else []
    if words[:1] == ["hf-mae"]:
        return run_cli(*words[1:], cwd=folder, env=env)
    if language == "python":
        return run_python(command, folder)
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, text=True, env=environment() | (env or {})
    )


@pytest.mark.launch
@pytest.mark.slow
def test_the_notebook_runs_and_shows_its_results(place, tmp_path):
    """Each cell in a kernel, as a user's; results are tables, and figures stand between them."""
    import nbformat
    from nbclient import NotebookClient

    folder = tmp_path / "project"
    shutil.copytree(place[0], folder, symlinks=True)
    notebook = nbformat.read(ROOT / "docs" / "first_model.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "it is kept without what it printed"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    shown = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert sum("image/png" in data for data in shown) == 4
    pages = [data["text/html"] for data in shown if "text/html" in data]
    for words in ("class", "judge", "<th>macro F1</th>", "95 % interval"):
        assert any(words in page for page in pages), f"no result shows {words}"


def test_the_page_of_flags_is_that_of_the_parsers():
    """`python scripts/write_flag_reference.py` writes it anew."""
    page = load_script("write_flag_reference").render_page()
    assert page == (ROOT / "docs" / "reference.md").read_text()
    assert "`--layer_decay`" in page and "`--mask_ratio`" in page and "`--tta`" in page


def test_links_between_the_pages_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\((?!http|api/)([^)#]+)", (ROOT / page).read_text()):  # api/ is built
            assert (ROOT / page).parent.joinpath(link).exists(), f"{page}: {link}"
