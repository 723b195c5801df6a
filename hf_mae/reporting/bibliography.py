"""BibTeX entries of the references that reports cite: `published/references.bib`, and those of metrics and losses."""

import re
from collections.abc import Iterable
from pathlib import Path

from ..settings.citations import Citation
from ..settings.losses import LOSSES
from ..settings.metrics import METRICS

REFERENCES_BIB = Path(__file__).parents[1] / "published" / "references.bib"


def format_bibtex(keys: Iterable[str], dataset_citation: str = "") -> str:
    """Formats the entries of `keys` as BibTeX, without repetitions, and that of the dataset as the entry `data`."""
    published = REFERENCES_BIB.read_text(encoding="utf-8").strip().split("\n\n")
    entries = {match[1]: entry for entry in published if (match := re.match(r"@\w+\{(\w+),", entry))}
    registered = [metric.citation for metric in METRICS.values()] + [loss.citation for loss in LOSSES.values()]
    entries |= {citation.key: _format_entry(citation) for citation in registered if citation}
    parts = [entries[key] for key in dict.fromkeys(keys)]
    if dataset_citation:
        parts.append(f"@misc{{data,\n  note = {{{dataset_citation}}}\n}}")
    return "\n\n".join(parts) + "\n"


def _format_entry(citation: Citation) -> str:
    fields = {"author": citation.author, "title": citation.title, **citation.fields}
    body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@{citation.kind}{{{citation.key},\n{body}\n}}"
