"""`Registry`: a table of named entries, such as losses, metrics or checkpoint layouts."""

from typing import Protocol, TypeVar


class Named(Protocol):
    """An entry of a registry."""

    @property
    def name(self) -> str:
        """Name of the entry."""


Entry = TypeVar("Entry", bound=Named)


class Registry(dict[str, Entry]):
    """Entries by name, in the order in which they were added."""

    def add(self, entry: Entry) -> None:
        """Adds an entry.

        Raises:
            ValueError: If there is an entry with this name.
        """
        if entry.name in self:
            raise ValueError(f"There are two entries with the name {entry.name}.")
        self[entry.name] = entry
