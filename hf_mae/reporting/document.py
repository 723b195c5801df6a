"""Documents of headings, paragraphs, lists, code, images and tables; `renderers` has one module per format."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .table import Table


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title of the document."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A paragraph, with bold words (`title`) before the text; `[@key; @key]` is a citation in pandoc's syntax."""

    text: str
    title: str = ""


@dataclass(frozen=True)
class BulletList:
    """A list with bullets."""

    items: Sequence[str]


@dataclass(frozen=True)
class Code:
    """A block of code, or of a recipe."""

    text: str
    language: str = ""


@dataclass(frozen=True)
class Image:
    """An image file with a description; links are relative to `folder`."""

    path: Path
    title: str
    folder: Path

    @property
    def link(self) -> str:
        """Path relative to the folder of the document."""
        return self.path.relative_to(self.folder).as_posix()


Block = Heading | Paragraph | BulletList | Code | Image | Table
Document = Sequence[Block]
