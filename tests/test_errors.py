"""Errors and terminal output."""

import os

from hf_mae.errors import escape_control_characters


def test_control_characters_are_escaped_in_terminal_output():
    assert escape_control_characters("\x1b[31m\x1b]0;owned\x07réd.png\n") == "\\x1b[31m\\x1b]0;owned\\x07réd.png\n"
    assert escape_control_characters("a\u202eb\x9b2Jc") == "a\\u202eb\\x9b2Jc"
    assert os.linesep in escape_control_characters("a\nb")
