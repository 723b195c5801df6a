"""Assertions on messages by their code and attributes, independent of the wording."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hf_mae.errors import Message, UsageError


@contextmanager
def raises(
    message: Message, error: type[UsageError] = UsageError, /, **attributes: Any
) -> Iterator[pytest.ExceptionInfo]:
    """The block raises an `error` with this message and, among others, these attributes (compared as text)."""
    with pytest.raises(error) as caught:
        yield caught
    assert caught.value.code is message, f"{caught.value.code}: {caught.value}"
    found = {name: str(caught.value.attributes[name]) for name in attributes}
    assert found == {name: str(value) for name, value in attributes.items()}


def shows(text: str, message: Message, /, **attributes: Any) -> bool:
    """Whether an output contains this message, with any values for the attributes that are not given."""
    return bool(re.search(_pattern(message, attributes), " ".join(text.split())))


def logged(records: list[Any], message: Message, /, **attributes: Any) -> bool:
    """Whether log records (`caplog.records`) contain this message and, among others, these attributes."""
    return any(
        getattr(record, "code", None) is message
        and all(str(record.attributes[name]) == str(value) for name, value in attributes.items())
        for record in records
    )


def _pattern(message: Message, attributes: dict[str, Any]) -> str:
    marks = {name: f"\0{index}\0" for index, name in enumerate(_fields(message)) if name not in attributes}
    template = re.sub(r"\{(\w+)[^{}]*\}", lambda m: marks.get(m[1], m[0]), message.value)
    rendered = " ".join(_render(template, attributes).split())
    return re.sub("\0\\d+\0", ".*?", re.escape(rendered).replace("\\\0", "\0"))


def _render(template: str, attributes: dict[str, Any]) -> str:
    return Message("Rendered", {"TEXT": template}).TEXT.render(**attributes)


def _fields(message: Message) -> list[str]:
    return re.findall(r"\{(\w+)", message.value)
