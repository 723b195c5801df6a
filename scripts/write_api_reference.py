"""Builds the API reference from the docstrings: `python scripts/write_api_reference.py [FOLDER]` (docs/api).

Open docs/api/index.html. Each public name of these packages must be on its page, with a docstring.
"""

import importlib
import inspect
import sys
from pathlib import Path

import pdoc
import pdoc.render

PACKAGES = ("hf_mae", "hf_mae.conversion", "hf_mae.data")
MODULES = (
    *(
        "hf_mae.runs.record",
        "hf_mae.runs.record_io",
        "hf_mae.settings.commands",
        "hf_mae.settings.parse",
        "hf_mae.settings.options",
    ),
    *("hf_mae.evaluation.metrics", "hf_mae.evaluation.prediction_table"),
    *(
        "hf_mae.evaluation.intervals",
        "hf_mae.evaluation.estimation",
        "hf_mae.evaluation.significance",
        "hf_mae.reporting.report",
        "hf_mae.reporting.results_tables",
    ),
    *(
        "hf_mae.settings.losses",
        "hf_mae.settings.metrics",
        "hf_mae.training.losses",
        "hf_mae.inference.tta",
        "hf_mae.models.stochastic_depth",
        "hf_mae.inference.saliency",
    ),
)
DEFAULT_DIR = Path(__file__).parents[1] / "docs" / "api"


def list_public_names() -> dict[str, list[str]]:
    """Exported names by package."""
    return {package: list(importlib.import_module(package).__all__) for package in PACKAGES}


def find_undocumented(folder: Path) -> list[str]:
    """Public names that are missing on the page of their package or have no docstring."""
    faults = []
    for package, names in list_public_names().items():
        page = (folder / f"{package.replace('.', '/')}.html").read_text(encoding="utf-8")
        module = importlib.import_module(package)
        for name in names:
            value = getattr(module, name)
            if f'id="{name}"' not in page:
                faults.append(f"{package}.{name} is not on its page")
            if (inspect.isclass(value) or inspect.isroutine(value)) and not inspect.getdoc(value):
                faults.append(f"{package}.{name} has no docstring")
    return faults


def main(folder: Path) -> int:
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc(*PACKAGES, *MODULES, output_directory=folder)
    faults = find_undocumented(folder)
    print("\n".join(faults) or f"{sum(map(len, list_public_names().values()))} public names: {folder / 'index.html'}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_DIR))
