"""Names of a package that are imported when they are used, so that importing the package is quick."""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def exports(package: str, modules: dict[str, str]) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """`__all__`, `__getattr__` and `__dir__` of a package.

    Args:
        modules: public name -> module of the package that has it.
    """
    names = sorted(modules)

    def __getattr__(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f".{modules[name]}", package), name)
        setattr(sys.modules[package], name, value)  # also where a module of the package has the same name
        return value

    return names, __getattr__, lambda: names
