"""A folder has one writer at a time, and a table that grows keeps names of any kind."""

import csv
import io
import json
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_mae.errors import Interrupted, UsageError, escape_control_characters
from hf_mae.files.atomic import csv_line
from hf_mae.files.locks import LOCK_FILE, exclusive_lock
from hf_mae.files.resumable_table import open_resumable_table

HOLD = """
import sys, time
from pathlib import Path
from hf_mae.files.locks import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(120)
"""


def test_a_second_writer_is_refused_with_the_first_ones_name(tmp_path):
    folder = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        with (
            pytest.raises(UsageError, match=rf"by another run \(process {first.pid} on .*, since "),
            exclusive_lock(folder),
        ):
            pytest.fail("held twice")
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert (folder / LOCK_FILE).is_file()  # left behind, and worth nothing
    with exclusive_lock(folder):
        (folder / "result").write_text("x")
    assert [path.name for path in folder.iterdir()] == ["result"]


def test_a_folder_into_which_nothing_was_written_is_gone_again(tmp_path):
    with pytest.raises(KeyError), exclusive_lock(tmp_path / "a" / "run"):
        raise KeyError
    assert not (tmp_path / "a" / "run").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"), exclusive_lock(tmp_path / "file"):
        pass


NAMES = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=20),
    min_size=1,
    max_size=8,
    unique=True,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=NAMES, cut=st.integers(0, 400), kind=st.sampled_from(["csv", "jsonl"]))
def test_what_was_written_to_its_end_is_kept_whatever_the_names(tmp_path_factory, names, cut, kind):
    """A kill at any byte; line breaks, quotes, separators and controls in names."""
    path = tmp_path_factory.mktemp("rows") / f"rows.{kind}"
    header = ["file_name", "label_1", "error"] if kind == "csv" else None

    def write(file, name):
        if header:
            csv.writer(file).writerow([name, "a,b\n", ""])
        else:
            file.write(json.dumps({"file_name": name}, ensure_ascii=False) + "\n")

    with open_resumable_table(path, header, {}, False, False) as (file, done):
        for name in names:
            write(file, name)
    whole = path.read_bytes()
    start = len(b"file_name,label_1,error\r\n") if header else 0
    path.with_name(f"{path.name}.partial").write_bytes(whole[: max(start, len(whole) - cut)])
    path.unlink()
    with open_resumable_table(path, header, {}, True, False) as (file, done):
        assert done <= set(names)
        for name in names:
            if name not in done:
                write(file, name)
    text = path.read_bytes().decode()
    if header:
        found = [row[0] for row in csv.reader(io.StringIO(text, newline=""))][1:]
    else:
        found = [json.loads(line)["file_name"] for line in text.split("\n")[:-1]]
    assert sorted(found) == sorted(names)


@given(st.lists(st.one_of(st.text(), st.floats(allow_nan=False), st.none()), min_size=2, max_size=5))
def test_a_csv_line_is_the_csv_modules_but_for_formulas(cells):
    plain = io.StringIO()
    csv.writer(plain).writerow(cells)
    ours = csv_line(cells)
    assert next(csv.reader(io.StringIO(ours, newline=""))) == ["" if cell is None else str(cell) for cell in cells]
    if not any(isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t")) for cell in cells):
        assert ours == plain.getvalue()


def test_what_a_spreadsheet_would_run_is_quoted():
    cells = ["=1+1", "+cmd|'/c calc'!A1", "@SUM(1)", "-2+3", "-0.5", "-1e-9", "plain", 3, None]
    line = """"=1+1","+cmd|'/c calc'!A1","@SUM(1)","-2+3",-0.5,-1e-9,plain,3,\r\n"""
    assert csv_line(cells) == line


@pytest.mark.parametrize("told", [KeyboardInterrupt(), Interrupted("told to stop (SIGTERM)")])
def test_an_interrupted_table_says_how_it_goes_on(tmp_path, told):
    """With the status of what interrupted it."""
    why = str(told) or "interrupted"
    with (
        pytest.raises(type(told)) as caught,
        open_resumable_table(tmp_path / "rows.csv", ["file_name"], {}, False, False),
    ):
        raise told
    where = tmp_path / "rows.csv.partial"
    assert str(caught.value) == f"{why}: what is done is in {where}; the same command and --resume go on"


def test_codes_in_names_are_shown_and_not_obeyed():
    assert escape_control_characters("\x1b[31m\x1b]0;owned\x07réd.png\n") == "\\x1b[31m\\x1b]0;owned\\x07réd.png\n"
    assert escape_control_characters("a\u202eb\x9b2Jc") == "a\\u202eb\\x9b2Jc"
    assert os.linesep in escape_control_characters("a\nb")
