"""`audit`: near-duplicate images within and across labels and splits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from ..data.audit import audited_images
from ..data.duplicates import near_duplicates
from ..data.sources import read_splits
from ..data.unlabelled import load_unlabelled
from ..reporting.audit import AuditFindings, write_audit
from ..settings.fill import fill
from ..settings.studies import AuditArguments


def audit(*, recipe: str | None = None, **flags: Any) -> AuditFindings:
    """Finds near-duplicates, and writes CSVs and contact sheets; `flags` are those of `hf-mae audit`."""
    (options,) = fill("audit", recipe, **flags).parts
    images = audited_images(_splits(options))
    pairs = near_duplicates(
        [image.path for image in images],
        max_distance=options.max_hash_distance,
        min_similarity=options.min_similarity,
        min_detail=options.min_detail,
        num_workers=options.preprocessing_num_workers,
    )
    return write_audit(Path(options.output_dir), images, pairs, options.max_sheets)


def _splits(options: AuditArguments) -> Mapping[str, Dataset]:
    if not options.unlabelled:
        return read_splits(options, keep_repeated=True)
    return {"all": load_unlabelled(str(options.data_dir), options.on_bad_image, options.preprocessing_num_workers)}
