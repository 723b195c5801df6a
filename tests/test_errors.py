"""Errors and terminal output."""

import os
import signal

import pytest

from hf_mae.errors import Interrupted, escape_control_characters, raise_on_stop_signal


def test_control_characters_are_escaped_in_terminal_output():
    assert escape_control_characters("\x1b[31m\x1b]0;owned\x07réd.png\n") == "\\x1b[31m\\x1b]0;owned\\x07réd.png\n"
    assert escape_control_characters("a\u202eb\x9b2Jc") == "a\\u202eb\\x9b2Jc"
    assert os.linesep in escape_control_characters("a\nb")


def test_a_signal_that_is_ignored_stays_ignored():
    """A script ignores Ctrl-C of the processes that it starts in the background."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with raise_on_stop_signal(""):
            signal.raise_signal(signal.SIGUSR1)
            with pytest.raises(Interrupted):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)
