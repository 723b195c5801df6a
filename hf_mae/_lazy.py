"""Lazy exports of a package: a name is imported at its first use, so that importing the package is fast."""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def exports(
    package: str, modules: dict[str, str], find_more: Callable[[], dict[str, str]] = dict
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns `__getattr__` and `__dir__` of a package; `__getattr__` also returns its `__all__`.

    Args:
        package: name of the package.
        modules: public name -> module of the package that defines it.
        find_more: returns more of them; called at the first use of a name that is not in `modules`.
    """

    def __dir__() -> list[str]:
        return sorted(modules | find_more())

    def __getattr__(name: str) -> Any:
        if name == "__all__":
            return __dir__()
        module = modules.get(name) or (None if name.startswith("_") else find_more().get(name))
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f".{module}", package), name)
        setattr(sys.modules[package], name, value)  # replaces a module of the same name
        return value

    return __getattr__, __dir__
