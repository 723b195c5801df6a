"""Lazy exports of a package: a name is imported at its first use, so that importing the package is fast."""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def exports(package: str, modules: dict[str, str]) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Returns `__all__`, `__getattr__` and `__dir__` of a package.

    Args:
        package: name of the package.
        modules: public name -> module of the package that defines it.
    """
    names = sorted(modules)

    def __getattr__(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f".{modules[name]}", package), name)
        setattr(sys.modules[package], name, value)  # replaces a module of the same name
        return value

    return names, __getattr__, lambda: names
