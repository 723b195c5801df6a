"""Reading text that people and spreadsheets have written."""

from pathlib import Path

from ..errors import UsageError


def read_text(path: Path, error: type[UsageError] = UsageError) -> str:
    """A text file in UTF-8, with a byte order mark or without, or in UTF-16 with one.

    Raises:
        error: it is in another encoding, which cannot be known (Latin-1 and its kin look all alike).
    """
    content = path.read_bytes()
    utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as found:
        line = content[: found.start].count(b"\n") + 1
        shown = content[max(0, found.start - 20) : found.start + 20].decode("latin-1").strip()
        raise error(
            f"{path} is not in UTF-8: line {line} ('{shown}' as Latin-1). Save it as UTF-8 (spreadsheets call it CSV "
            "UTF-8), so that names are read as they are meant."
        ) from None
