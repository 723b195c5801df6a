"""The pages agree with their sources: numbers with the tables of measurements, names and flags with the code."""

import configparser
import csv
import re
import subprocess
import sys

import pytest
from support.paths import ROOT

from hf_mae.settings.commands import COMMANDS, command_options

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
GENERATED = ("reference.md", "messages.md")
MEASURED, SCALE = "docs/measured.md", "docs/scale.md"
MAX_TERMS = 60

# Page, text with a number, page with its source, row of a table there, column; the last: which of several such rows.
NUMBERS = [
    ("README.md", r"trains at ([\d.]+) images/s on 2 CPU cores", MEASURED, "hf_mae, `--bf16 true`", 1, 0),
    (
        "README.md",
        r"bf16 \(([\d.]+) with torch.compile\)",
        MEASURED,
        "hf_mae, `--bf16 true` and `--torch_compile true`",
        1,
        0,
    ),
    ("README.md", r"same loop \| –; ([\d.]+)", MEASURED, "timm, bf16, fused AdamW, compiled, plain attention", 3, 0),
    ("README.md", r"\| ([\d.]+); – \| [\d.]+; [\d.]+ \|", MEASURED, "stock `Trainer`, bf16", 3, 0),
    ("README.md", r"\| ([\d.]+); [\d.]+ \|\n", MEASURED, "hf_mae, `--bf16 true`", 3, 0),
    (
        "README.md",
        r"\| [\d.]+; ([\d.]+) \|\n",
        MEASURED,
        "hf_mae, `--bf16 true` and `--torch_compile true`",
        3,
        0,
    ),
    ("docs/choices.md", r"\| ([\d.]+) x and [\d.]+ x the images/s", MEASURED, "`endoscopy`", 3, 0),
    ("docs/choices.md", r"x and ([\d.]+) x the images/s", MEASURED, "`imagenet`, crops", 3, 0),
    ("docs/choices.md", r"(\+[\d.]+) \([^)]*\) points of macro recall", MEASURED, "`--sampling square_root`", 2, 0),
    ("docs/choices.md", r"(\([^)]*\)) points of macro recall", MEASURED, "`--sampling square_root`", 2, 0),
    ("docs/choices.md", r"(\+[\d.]+ \([^)]*\)) of macro F1", MEASURED, "`--sampling square_root`", 4, 0),
    ("docs/choices.md", r"weights (\+[\d.]+) and", MEASURED, "`--class_weights balanced`", 2, 0),
    ("docs/choices.md", r"weights \+[\d.]+ and (-[\d.]+)", MEASURED, "`--class_weights balanced`", 4, 0),
    ("docs/choices.md", r"\| ([\d.]+) and [\d.]+ against", MEASURED, "`--ema_decay 0.99`", 1, 0),
    ("docs/choices.md", r"and ([\d.]+) against 81.9", MEASURED, "mean of the weights of the last 10 epochs", 1, 0),
    ("docs/choices.md", r"against ([\d.]+) and [\d.]+ %", MEASURED, "recipe, best epoch of each seed", 1, 0),
    ("docs/choices.md", r"against [\d.]+ and ([\d.]+) %", MEASURED, "mean of the weights of the last 10 epochs", 0, 0),
    ("docs/choices.md", r"\| ([\d.]+ ± [\d.]+) with it", MEASURED, "the same models, `--tta`", 1, 0),
    ("docs/choices.md", r"with it, ([\d.]+ ± [\d.]+) % without", MEASURED, "recipe, last of 40 epochs", 1, 0),
    ("docs/better_models.md", r"three seeds has ([\d.]+) % accuracy", MEASURED, "`hf-mae ensemble` of the three", 1, 0),
    ("docs/better_models.md", r"each member has ([\d.]+)", MEASURED, "recipe, best epoch of each seed", 1, 0),
    ("docs/better_models.md", r"attentive probe has (\d+) %", MEASURED, "`--attentive`, one view", 1, 0),
    (
        "docs/better_models.md",
        r"the linear probe (\d+);",
        MEASURED,
        "linear probe, mean of the patches (two seeds",
        1,
        0,
    ),
    (SCALE, r"from files of 280 KB to tensors, (\d+) with", MEASURED, "`imagenet`, crops", 2, 0),
    (SCALE, r"one CPU core each: (\d+) images/s", MEASURED, "`imagenet`, crops", 1, 0),
    (SCALE, r"([\d.]+ s) to start with 4.8 million images", SCALE, "4,800,000", 1, 0),
    (SCALE, r"([\d.]+) x the images/s of a ViT-S", "docs/choices.md", "No [patch dropout]", 2, 0),
    (SCALE, r"([\d.]+) x the additional memory", "docs/choices.md", "No [patch dropout]", 2, 0),
]


def rows(page):
    """The cells of each table row of a page."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    return [[cell.strip(" *") for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")]


def anchors(text):
    """The anchors of the headings, as GitHub and mkdocs form them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(("page", "text", "source", "label", "column", "occurrence"), NUMBERS)
def test_a_number_in_a_page_is_that_of_its_table(page, text, source, label, column, occurrence):
    match = re.search(text, (ROOT / page).read_text(encoding="utf-8"))
    assert match, f"{page} does not contain {text}"
    matching = [cells for cells in rows(source) if cells[0].startswith(label)]
    cell = matching[occurrence][column]
    assert re.search(rf"(?<![\d.]){re.escape(match[1])}(?![\d])", cell), f"{match[0]!r}; the table has {cell!r}"


def test_the_duration_of_an_epoch_follows_from_the_speed():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    images, minutes = re.search(r"An epoch of ([\d,]+) images takes (\d+) minutes", text).groups()
    speed = float(re.search(r"trains at ([\d.]+) images/s", text)[1])
    assert round(int(images.replace(",", "")) / speed / 60) == int(minutes)


def test_the_coverage_of_intervals_is_that_of_the_simulations():
    simulated = [cells for cells in rows("docs/coverage.md") if len(cells) == 10 and cells[1] == "hf_mae"]
    values = [float(cell.split()[0]) for cells in simulated for cell in cells[2:]]
    text = (ROOT / "docs" / "choices.md").read_text(encoding="utf-8")
    low = re.search(r"coverage of at least ([\d.]+) %", text)[1]
    assert len(simulated) >= 20 and float(low) == min(values)


def test_the_plan_for_five_million_frames_is_the_output_of_its_script():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "benchmarks" / "plan_at_scale.py"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() in (ROOT / SCALE).read_text(encoding="utf-8")
    script = (ROOT / "scripts" / "benchmarks" / "plan_at_scale.py").read_text(encoding="utf-8")
    start = next(cells[1] for cells in rows(SCALE) if cells[0] == "4,800,000")
    assert f"START_SECONDS = {start.removesuffix(' s')} " in script


def test_the_file_names_of_gastrovision_are_counted_in_its_official_split(shared_data):
    classes = {}
    for part in ("train", "validate", "test"):
        with (shared_data / "splits" / "gastrovision" / f"{part}.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                classes.setdefault(row["Filename"], set()).add(row["Class"])
    counts = [len(names) for names in classes.values() if len(names) > 1]
    limitations = next(cells[3] for cells in rows("docs/benchmarks.md") if cells[0] == "gastrovision-22")
    assert f"; {len(counts)} file names occur in two to seven classes" in limitations
    assert (min(counts), max(counts)) == (2, 7)


def test_links_and_anchors_exist():
    contents = {path: path.read_text(encoding="utf-8") for path in PAGES}
    for path, text in contents.items():
        for link, anchor in re.findall(r"\]\((?!http|api/)([^)#\s]*)#?([^)]*)\)", text):
            target = (path.parent / link).resolve() if link else path
            assert target.exists(), f"{path.name}: {link}"
            assert not anchor or anchor in anchors(contents[target]), f"{path.name}: {link}#{anchor}"


def test_every_term_of_the_glossary_is_linked():
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    terms = anchors(text) - {"glossary"}
    links = {link for path in PAGES for link in re.findall(r"glossary\.md#([\w-]+)", path.read_text(encoding="utf-8"))}
    assert links == terms and len(terms) <= MAX_TERMS
    paragraphs = [part for part in text.split("\n\n") if not part.startswith("#")]
    assert all(len(re.findall(r"[.:]\s+[A-Z]", part)) <= 2 for part in paragraphs)


def test_addresses_are_of_sites_that_exist():
    known = ("https://github.com/facebookresearch/mae", "https://huggingface.co/docs/", "https://example.org/")
    for path in PAGES:
        for address in re.findall(r"https?://[^\s)\"'`|]+", path.read_text(encoding="utf-8")):
            assert address.startswith(known), f"{path.name}: {address}"


def test_flags_of_documented_commands_exist():
    shared = {"recipe", "quiet", "json", "help", "help_all"}
    for path in PAGES:
        if path.name in GENERATED:
            continue
        text = re.sub(r"\\\n\s*", "", path.read_text(encoding="utf-8"))
        for command, rest in re.findall(r"(?:hf-mae|-m hf_mae) ([a-z-]+)([^`\n]*)", text):
            assert command in COMMANDS, f"{path.name}: {command}"
            options = command_options(command).values()
            known = shared | {name for option in options for name in (option.name, *option.aliases)}
            flags = {flag.replace("-", "_") for flag in re.findall(r"--([\w-]+)", rest.split(" #")[0])}
            assert flags <= known, f"{path.name}: hf-mae {command} {sorted(flags - known)}"


def test_flags_of_the_migration_tables_exist():
    known = {
        option.name for command in ("finetune", "pretrain", "probe") for option in command_options(command).values()
    }
    tables = [cells for cells in rows("docs/migrating.md") if len(cells) == 4]
    flags = {flag for cells in tables for flag in re.findall(r"--(\w+)", cells[2])}
    assert len(tables) > 100 and flags <= known | {"recipe"}, sorted(flags - known)


def test_defaults_of_the_migration_tables_are_those_of_the_options():
    """In rows that state "same default", and numbers in "default N"."""
    text = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
    pretraining = text.index("### Pre-training flags"), text.index("### Linear-probe flags")
    checked = 0
    for line in re.finditer(r"^\| (.*) \|$", text, flags=re.MULTILINE):
        cells = [cell.strip() for cell in line[1].split(" | ")]
        flag = re.fullmatch(r"`--(\w+)`(?: .*)?", cells[2]) if len(cells) == 4 else None
        own = re.match(r"(?:same )?default ?([\d.e-]*)", cells[3]) if flag else None
        if not own or "`," in cells[2]:
            continue
        command = "pretrain" if pretraining[0] < line.start() < pretraining[1] else "finetune"
        default = command_options(command)[flag[1]].default
        stated = own[1] or (cells[1].split(";")[0] if cells[3].startswith("same default") else "")
        if re.fullmatch(r"[\d.e-]+", stated) and default is not None:
            assert float(stated.rstrip(".")) == float(default), line[0]
            checked += 1
    assert checked > 30


def test_the_packages_in_contributing_are_in_the_order_of_the_import_contract():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    layers = setup["importlinter:contract:layers"]["layers"].split()
    listed = [re.match(r"`([\w.]+?)(?:\.py|/)`", cells[0]) for cells in rows("CONTRIBUTING.md")]
    assert [match[1] for match in listed if match] == [layer.removeprefix("hf_mae.") for layer in layers]


def test_names_and_paths_in_contributing_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    sources = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("hf_mae", "conversion", "scripts", "tests/support")
        for path in (ROOT / folder).rglob("*.py")
    )
    for code in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if re.fullmatch(r"[\w./-]+/[\w.-]+\.(py|sh|md|csv|cfg)", code):
            assert (ROOT / code).exists(), code
        elif re.fullmatch(r"_?[A-Za-z]+_[A-Za-z_]+|[A-Z][a-z]+[A-Z]\w+", code):
            assert re.search(rf"\b{code}\b", sources), code
