"""Message catalogues: the snapshot of all messages, and the checks of their use and language."""

import ast
import logging
import pickle
from enum import unique

import pytest
from support.paths import ROOT, load_script

from hf_mae.errors import Message, UsageError, inform, warn


@unique
class SampleMessage(Message):
    """Messages of these tests."""

    MISSING = "{path} does not exist. Pass one of {names:list}."
    COUNTED = "{count:count image|is|are} larger than {limit!r}."


def test_a_message_renders_lists_counts_and_shortened_values():
    assert SampleMessage.MISSING.render(path="a.pth", names=["b", "c"]) == "a.pth does not exist. Pass one of b, c."
    assert SampleMessage.COUNTED.render(count=1, limit="x") == "1 image is larger than 'x'."
    assert SampleMessage.COUNTED.render(count=3, limit="x" * 1000).startswith("3 images are larger than 'xxx")
    assert len(SampleMessage.COUNTED.render(count=3, limit="x" * 1000)) < 400


def test_a_message_without_an_attribute_still_renders():
    assert SampleMessage.MISSING.render(names=[]) == "{path} does not exist. Pass one of ."


def test_an_error_carries_its_code_and_attributes():
    error = UsageError(SampleMessage.COUNTED, count=2, limit=1)
    assert (error.code, error.attributes, str(error)) == (
        SampleMessage.COUNTED,
        {"count": 2, "limit": 1},
        "2 images are larger than 1.",
    )


def test_an_error_survives_pickling():
    error = pickle.loads(pickle.dumps(UsageError(SampleMessage.COUNTED, count=2, limit=1)))
    assert (error.code, error.attributes["count"], str(error)) == (
        SampleMessage.COUNTED,
        2,
        "2 images are larger than 1.",
    )


def test_log_records_carry_the_code(caplog):
    logger = logging.getLogger("hf_mae.test")
    with caplog.at_level("INFO", "hf_mae"):
        warn(logger, SampleMessage.COUNTED, count=100, limit="100 %")
        inform(logger, SampleMessage.COUNTED, count=1, limit="100 %")
    first, second = caplog.records
    assert (first.levelname, first.code, first.attributes["count"]) == ("WARNING", SampleMessage.COUNTED, 100)
    assert (second.levelname, second.getMessage()) == ("INFO", "1 image is larger than '100 %'.")
    assert first.filename == "test_messages.py"


def test_every_message_is_used_with_its_fields_and_no_error_has_bare_text():
    assert not list(load_script("check_messages").find_faults())


def test_wrong_fields_are_found():
    check = load_script("check_messages")
    members = {"M.A": (ROOT, 1, "{path} and {count:count image}")}
    call = ast.parse("UsageError(M.A, path=1, size=2)", mode="eval").body
    assert list(check.find_wrong_fields(call, members)) == ["M.A misses count", "M.A has no field size"]


def test_the_page_of_messages_is_up_to_date():
    """Run `python scripts/write_message_reference.py` after a change of a message."""
    assert (ROOT / "docs" / "messages.md").read_text() == load_script("write_message_reference").render_page()


def test_code_and_pages_are_in_plain_english():
    assert not list(load_script("check_language").find_faults(ROOT))


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        ("def refuse_a_folder(x): pass", ["name refuse_*"]),
        ("def names_of(x): pass", ["name *_of"]),
        ("def f(told): kept = told", ["name told", "name kept"]),
        ("x = np.add.at(a, b, c)", []),
    ],
)
def test_private_names_are_found(source, faults):
    assert [fault for _, fault in load_script("check_language").find_names(ast.parse(source))] == faults


@pytest.mark.parametrize(
    "text", ["{x} is no folder", "it goes on with a run", "a file a layout", "The Verb", "is told"]
)
def test_private_phrases_are_found(text):
    assert list(load_script("check_language").find_phrases(text))
