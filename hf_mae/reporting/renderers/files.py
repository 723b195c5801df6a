"""Documents as files in several formats."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ...files.atomic import write_text
from ..document import Document, Image
from . import docx, latex, markdown


def write_document(document: Document, path: Path, images: Sequence[Path] = ()) -> list[str]:
    """Writes a document as Markdown and LaTeX, and as .docx if python-docx is installed.

    Args:
        path: the file without its suffix.
        images: images for the end of the .docx; missing files are skipped.

    Returns:
        The names of the files.
    """
    write_text(path.with_name(f"{path.name}.md"), markdown.render(document))
    write_text(path.with_name(f"{path.name}.tex"), latex.render(document))
    names = [f"{path.name}.md", f"{path.name}.tex"]
    if find_spec("docx"):
        pictures = [Image(image, image.stem, path.parent) for image in images if image.is_file()]
        docx.write([*document, *pictures], path.with_name(f"{path.name}.docx"))
        names.append(f"{path.name}.docx")
    return names
