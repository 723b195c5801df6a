"""`Citation`: a reference of the literature, which reports list in BibTeX."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Citation:
    """A BibTeX entry.

    Args:
        key: key of the entry, such as `lin2017focal`.
        kind: `article` or `inproceedings`.
        author, title: fields of the entry, in BibTeX.
        fields: its other fields, such as `year` and `doi`.
    """

    key: str
    kind: str
    author: str
    title: str
    fields: Mapping[str, str] = field(default_factory=dict)
