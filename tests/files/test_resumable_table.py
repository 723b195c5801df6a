"""An interrupted table keeps its complete rows."""

import csv
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.messages import raises

from hf_mae.errors import Interrupted
from hf_mae.files.messages import FileMessage
from hf_mae.files.resumable_table import open_resumable_table

FILE_NAMES = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=20),
    min_size=1,
    max_size=8,
    unique=True,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=FILE_NAMES, num_lost_bytes=st.integers(0, 400), suffix=st.sampled_from(["csv", "jsonl"]))
def test_complete_rows_survive_a_kill_for_any_file_names(tmp_path_factory, names, num_lost_bytes, suffix):
    """A kill at any byte; line breaks, quotes, separators and control characters in names."""
    path = tmp_path_factory.mktemp("rows") / f"rows.{suffix}"
    header = ["file_name", "label_1", "error"] if suffix == "csv" else None

    def write(file, name):
        if header:
            csv.writer(file).writerow([name, "a,b\n", ""])
        else:
            file.write(json.dumps({"file_name": name}, ensure_ascii=False) + "\n")

    with open_resumable_table(path, header, {}, False, False) as (file, done):
        for name in names:
            write(file, name)
    content = path.read_bytes()
    start = len(b"file_name,label_1,error\r\n") if header else 0
    path.with_name(f"{path.name}.partial").write_bytes(content[: max(start, len(content) - num_lost_bytes)])
    path.unlink()
    with open_resumable_table(path, header, {}, True, False) as (file, done):
        assert done <= set(names)
        for name in names:
            if name not in done:
                write(file, name)
    text = path.read_bytes().decode()
    if header:
        written = [row[0] for row in csv.reader(io.StringIO(text, newline=""))][1:]
    else:
        written = [json.loads(line)["file_name"] for line in text.split("\n")[:-1]]
    assert sorted(written) == sorted(names)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), Interrupted("interrupted by SIGTERM")])
def test_an_interrupted_table_reports_how_to_continue(tmp_path, interrupt):
    """The exception class, and with it the exit status, stays the same."""
    partial = tmp_path / "rows.csv.partial"
    with (
        pytest.raises(type(interrupt)) as caught,
        open_resumable_table(tmp_path / "rows.csv", ["file_name"], {}, False, False),
    ):
        raise interrupt
    reason = str(interrupt) or "interrupted"
    assert str(caught.value) == FileMessage.TABLE_INTERRUPTED.render(reason=reason, path=partial)
    with raises(FileMessage.TABLE_INCOMPLETE, path=partial):
        open_resumable_table(tmp_path / "rows.csv", ["file_name"], {}, False, False).__enter__()
