"""Commands as functions."""

import sys
from types import SimpleNamespace

from support.messages import logged

from hf_mae.workflows.command import command
from hf_mae.workflows.messages import WorkflowMessage


def test_training_on_a_platform_without_tests_is_said(monkeypatch, caplog):
    monkeypatch.setattr(sys, "platform", "darwin")
    run = command("finetune")(lambda settings: None).run
    run(SimpleNamespace(values={}))
    assert logged(caplog.records, WorkflowMessage.PLATFORM_UNTESTED, command="finetune")
    caplog.clear()
    command("predict")(lambda settings: None).run(SimpleNamespace(values={}))
    assert not caplog.records
