"""The report of a conversion, with an entry for every tensor."""

import html
from dataclasses import asdict, dataclass, field
from typing import Any

from hf_mae.errors import pluralize

REPORT_FILE = "conversion.json"  # in the folder of the weights


@dataclass
class ConversionReport:
    """Source, target and tensors of a conversion, saved with the weights as `conversion.json`."""

    source: dict[str, Any]  # name, size in bytes, sha256, layout, contents of the file, whether it is self-distilled
    target: dict[str, Any]  # class, pooling, architecture
    mapping: list[dict[str, Any]]  # {"source", "target": [...]} for every used tensor
    unused: list[dict[str, Any]]  # {"source", "reason"} for every unused tensor
    initialized: list[dict[str, Any]]  # {"target", "reason"} for every parameter that the source lacks
    assumed: dict[str, Any] = field(default_factory=dict)  # defaults for unknown values, e.g. num_attention_heads
    notes: list[str] = field(default_factory=list)
    verification: dict[str, Any] | None = None  # baseline, and the largest difference of the outputs on random input
    versions: dict[str, str] = field(default_factory=dict)
    image_processor: dict[str, Any] | None = None  # that of the source; not saved in the report

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of `conversion.json`."""
        return {name: value for name, value in asdict(self).items() if name != "image_processor"}

    def summary(self) -> str:
        """Returns a summary of a few lines."""
        lines = [
            f"{self.source['name']} ({self.source['contents']}) -> {self.target['class']}",
            f"  used         {pluralize(len(self.mapping), 'tensor')} of the source",
        ]
        reasons: dict[str, list[str]] = {}
        for entry in self.unused:
            reasons.setdefault(entry["reason"], []).append(entry["source"])
        for reason, names in reasons.items():
            lines.append(f"  unused       {_abbreviate(names)}: {reason}")
        for entry in self.initialized:
            lines.append(f"  initialized  {entry['target']}: {entry['reason']}")
        lines += [f"  note         {note}" for note in self.notes]
        if self.verification:
            lines.append(
                f"  verified     against {self.verification['against']}: largest difference "
                f"{self.verification['max_abs_difference']:.2g} (largest output "
                f"{self.verification['max_abs_output']:.2g})"
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Renders the summary in a notebook."""
        return f"<pre>{html.escape(self.summary())}</pre>"


def _abbreviate(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"
