"""The certificate of a conversion: what became of every tensor."""

import html
from dataclasses import asdict, dataclass, field
from typing import Any

REPORT_FILE = "conversion.json"  # where it is kept, beside the weights


@dataclass
class ConversionReport:
    """The certificate of a conversion, kept beside the weights as `conversion.json`."""

    source: dict[str, Any]  # name, size in bytes, sha256, layout, whether self-distillation made it
    target: dict[str, Any]  # class, pooling, architecture
    mapping: list[dict[str, Any]]  # {"source", "target": [...]}: every tensor that was used
    unused: list[dict[str, Any]]  # {"source", "reason"}: every tensor that was not
    initialized: list[dict[str, Any]]  # {"target", "reason"}: every parameter of the target that the source lacks
    assumed: dict[str, Any] = field(default_factory=dict)  # what nothing told: norm_pix_loss, num_attention_heads
    notes: list[str] = field(default_factory=list)
    verification: dict[str, Any] | None = None  # largest difference between both sides on random input, and which
    versions: dict[str, str] = field(default_factory=dict)
    image_processor: dict[str, Any] | None = None  # the source's own; it is no part of the certificate

    def to_dict(self) -> dict[str, Any]:
        """As `conversion.json` holds it."""
        return {name: value for name, value in asdict(self).items() if name != "image_processor"}

    def summary(self) -> str:
        """What a person wants to know of it, a few lines."""
        lines = [
            f"{self.source['name']} ({self.source['layout']}) -> {self.target['class']}",
            f"  used      {len(self.mapping)} tensors of the source",
        ]
        reasons: dict[str, list[str]] = {}
        for entry in self.unused:
            reasons.setdefault(entry["reason"], []).append(entry["source"])
        for reason, names in reasons.items():
            lines.append(f"  left out  {_abbreviate(names)}: {reason}")
        for entry in self.initialized:
            lines.append(f"  new       {entry['target']}: {entry['reason']}")
        lines += [f"  note      {note}" for note in self.notes]
        if self.verification:
            lines.append(
                f"  verified  against {self.verification['against']}: largest difference "
                f"{self.verification['max_abs_difference']:.2g} on outputs up to "
                f"{self.verification['max_abs_output']:.2g}"
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """For a notebook."""
        return f"<pre>{html.escape(self.summary())}</pre>"


def _abbreviate(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"
