"""The report of a conversion, with an entry for every tensor."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from .facts import BaselineModel, Fact

REPORT_FILE = "conversion.json"  # in the folder of the weights


@dataclass(frozen=True)
class Verification:
    """Comparison of a converted model with a baseline on random input, in float32.

    Args:
        against: the baseline.
        seed, batch_size: of the input.
        max_abs_difference, max_abs_output: of the outputs.
    """

    against: BaselineModel
    seed: int
    batch_size: int
    max_abs_difference: float
    max_abs_output: float


@dataclass
class ConversionReport:
    """Source, target and tensors of a conversion, saved with the weights as `conversion.json`.

    Args:
        source: name, size in bytes, sha256, layout, contents (keys of the file), class in transformers, and whether it
            is self-distilled.
        target: class, pooling, architecture.
        mapping: `source` and `target` (list) of every used tensor, and a `note` (`FactCode`) if a part is omitted.
        unused: `source` and `reason` (`Fact`) of every unused tensor.
        initialized: `target` and `reason` (`Fact`) of every parameter that the source lacks.
        assumed: defaults of unknown values, e.g. num_attention_heads.
        notes: what else the reader should know.
        verification: None: not requested.
        versions: by package.
        image_processor: that of the source; not saved in the report.
    """

    source: dict[str, Any]
    target: dict[str, Any]
    mapping: list[dict[str, Any]]
    unused: list[dict[str, Any]]
    initialized: list[dict[str, Any]]
    assumed: dict[str, Any] = field(default_factory=dict)
    notes: list[Fact] = field(default_factory=list)
    verification: Verification | None = None
    versions: dict[str, str] = field(default_factory=dict)
    image_processor: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of `conversion.json`."""
        return {name: value for name, value in asdict(self).items() if name != "image_processor"}

    def _repr_html_(self) -> str | None:
        """The report in a notebook; `hf_mae.reporting.conversion_summary` adds the renderer."""
        return html_renderers[0](self) if html_renderers else None


html_renderers: list[Callable[[ConversionReport], str]] = []
