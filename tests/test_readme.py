"""Every command in README.md and docs/ runs as printed."""

import shutil

import pytest
from support import fake_hub
from support.documented_commands import read_commands, run
from support.other_programs import write_outputs
from support.paths import ROOT, SHARED, load_script
from support.stub_figures import use_stub_figures

# tests/test_migrating.py runs the commands of the other page.
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md") if path.stem != "migrating")]
# Commands that take half an hour; the test runs two updates.
LONG = ("--recipe polyp_crops",)


@pytest.fixture(scope="module")
def project(tiny_pth, toy, tmp_path_factory):
    """A folder with the files that the README assumes (checkpoint.pth, images/, image.jpg) and the scripts."""
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


@pytest.fixture(scope="module")
def first_run(project):
    """The run that the README creates."""
    folder = project[0].with_name("first")
    shutil.copytree(project[0], folder, symlinks=True)
    commands = read_commands((ROOT / "README.md").read_text())
    language, first = next(command for command in commands if "--output_dir runs/first" in command[1])
    done = run(language, first, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "runs" / "first"


@pytest.mark.launch
@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_command_runs_in_the_order_of_the_page(project, page, request, tmp_path):
    """Each page has its own folder, with the run that the README creates. Figures are drawn for the README only."""
    template, hub = project
    folder = tmp_path / "project"
    shutil.copytree(template, folder, symlinks=True)
    if SHARED.is_dir():
        (tmp_path / "shared").symlink_to(SHARED)
    if "runs/first" in (ROOT / page).read_text() and page not in ("README.md", "docs/quickstart.md"):
        shutil.copytree(request.getfixturevalue("first_run"), folder / "runs" / "first")
        shutil.copy(folder / "runs" / "first" / "predictions_test.csv", folder / "resnet.csv")  # of another program
        write_outputs(folder)
    use_stub_figures(page != "README.md")
    for language, command in read_commands((ROOT / page).read_text()):
        if any(word in command for word in LONG):
            if not SHARED.is_dir():
                continue  # the real images are not part of the repository
            command += (
                " --max_steps 2 --eval_strategy no --load_best_model_at_end false --torch_compile false --bf16 false"
            )
            command = command.replace("--seeds 0 1 2", "--seeds 0")
            if "hf-mae pretrain" in command:
                command = command.replace("--load_best_model_at_end false", "").replace("--eval_strategy no", "")
        done = run(language, command, folder, hub if "hf-mae push" in command else None)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, command


@pytest.mark.launch
@pytest.mark.slow
def test_the_notebook_runs_and_displays_its_results(project, tmp_path):
    """All cells run in a kernel; results are displayed as tables and figures."""
    import nbformat
    from nbclient import NotebookClient

    folder = tmp_path / "project"
    shutil.copytree(project[0], folder, symlinks=True)
    notebook = nbformat.read(ROOT / "docs" / "first_model.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "remove the outputs"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert sum("image/png" in data for data in outputs) == 4
    pages = [data["text/html"] for data in outputs if "text/html" in data]
    for words in ("class", "on the validation split", "<th>macro F1</th>", "95 % interval"):
        assert any(words in page for page in pages), f"no output contains {words}"


def test_the_flag_reference_is_up_to_date():
    """Run `python scripts/write_flag_reference.py` after a change of a flag."""
    page = load_script("write_flag_reference").render_page()
    assert page == (ROOT / "docs" / "reference.md").read_text()
    assert "`--layer_decay`" in page and "`--mask_ratio`" in page and "`--tta`" in page
