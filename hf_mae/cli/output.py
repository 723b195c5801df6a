"""Prints the result of a command: the document of `reporting.console`, JSON, or what needs the terminal itself."""

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import pluralize
from ..files.atomic import finite_or_null
from ..reporting.document import Document, Paragraph
from ..reporting.renderers import terminal
from ..reporting.table import fields_table
from ..settings.accelerate_configs import describe_launch_config
from .parser import ParsedArgs
from .terminal import print_json, print_message, print_text


def print_document(document: Document, wrap: bool = True) -> None:
    """Prints a document for people."""
    if document:
        print_text(terminal.render(document, wrap))


def print_result(command: str, result: Any, args: ParsedArgs) -> int:
    """Prints the result of a workflow; returns the exit status.

    Texts are wrapped on a terminal, but not in pipes and files.
    """
    if args.json:
        print_json(finite_or_null(_to_json(result)))
        return 0
    if command in PRINTERS:
        return PRINTERS[command](result, args)
    from ..reporting.console import BENCHMARK_COMMANDS, BUILDERS

    if command not in BUILDERS or command == "report" and not sys.stdout.isatty():
        print_text(result)
    else:
        print_document(BUILDERS[command](result, args.options.values), sys.stdout.isatty())
    if command in BENCHMARK_COMMANDS:
        _print_benchmark_report(getattr(result, "record", result))
    return _print_image_errors(command, getattr(result, "errors", []))


def _to_json(result: Any) -> Any:
    from ..runs.record import RunRecord
    from ..runs.record_io import record_to_dict

    if isinstance(result, RunRecord):
        return record_to_dict(result)
    return result.to_dict() if hasattr(result, "to_dict") else asdict(result)


def _print_benchmark_report(record: Any) -> None:
    """Prints the comparison with published results, which a run on a benchmark writes to its folder."""
    from ..runs.record import RunRecord

    if not isinstance(record, RunRecord) or not record.data.benchmark:
        return
    path = Path(record.settings["output_dir"]) / "report.md"
    if path.is_file():
        text = f"Comparison with published results: {path}"
        print_text(text if sys.stdout.isatty() else f"\n{path.read_text(encoding='utf-8')}")


def _print_image_errors(command: str, errors: list[str]) -> int:
    """Prints the images that cannot be read; returns the exit status."""
    for error in errors:
        print_message(f"hf-mae {command}: {error}")
    return 1 if errors else 0


def _print_predict(result: Any, args: ParsedArgs) -> int:
    """Prints the number of predictions, and the images that cannot be read; the output may be the table itself."""
    if result.output:
        existing = f" ({result.num_existing} from an earlier run)" if result.num_existing else ""
        num_predicted, total = result.total - len(result.errors), pluralize(result.total, "image")
        print_message(f"Predicted {num_predicted} of {total}: {result.written_path}{existing}")
        if result.is_merged:
            print_message(f"Merged {pluralize(result.num_shards, 'shard')}: {result.output}")
    status = _print_image_errors("predict", result.errors)
    # A launcher ends all processes if one fails, so errors of a shard are in the table only.
    return status if result.num_shards == 1 else 0


def _print_demo(page: Any, args: ParsedArgs) -> int:
    """Prints the address of the demo; serves it until Ctrl-C."""
    print_text(f"The demo runs at {page.local_url} (press Ctrl-C to stop)", flush=True)
    if args.options.values.get("share"):
        print_text(f"Public URL: {page.share_url}", flush=True)
    page.block_thread()
    return 0


def _print_benchmarks(benchmarks: dict[str, Any], args: ParsedArgs) -> int:
    """Prints the list of benchmarks, or one."""
    from ..reporting.benchmark_tables import build_benchmark, build_benchmark_list

    name = args.options.values.get("name")
    print_document(build_benchmark(name, benchmarks[name]) if name else build_benchmark_list())
    return 0


def _print_checkpoints(result: Any, args: ParsedArgs) -> int:
    """Prints the list of public checkpoints, one, or the folder of a fetched one."""
    from ..reporting.checkpoint_tables import build_checkpoint, build_model_zoo

    if isinstance(result, str):
        print_text(result)
    else:
        is_list = args.options.values.get("action", "list") == "list"
        print_document(build_model_zoo() if is_list else build_checkpoint(*result.values()))
    return 0


def _print_configs(configs: dict[str, Path], args: ParsedArgs) -> int:
    """Prints the list of accelerate configs, or the path of one."""
    if args.options.values.get("name"):
        print_text(*configs.values())
    else:
        folder = next(iter(configs.values())).parent
        descriptions = fields_table((name, describe_launch_config(path)) for name, path in configs.items())
        print_document([Paragraph(str(folder)), descriptions])
    return 0


def _print_recipes(recipes: dict[str, Path], args: ParsedArgs) -> int:
    """Prints the list of recipes, or one."""
    texts = {name: path.read_text(encoding="utf-8") for name, path in recipes.items()}
    if args.options.values.get("name"):
        print_text(*texts.values(), end="")
    else:
        print_document([fields_table((name, text.splitlines()[0].lstrip("# ")) for name, text in texts.items())])
    return 0


def _print_completion(script: str, args: ParsedArgs) -> int:
    print_text(script)
    return 0


# The others print a document of `reporting.console`, which imports datasets.
def _print_sample_size(plan: Any, args: ParsedArgs) -> int:
    """Prints the size; the builders of other commands import what this command does not need."""
    from ..reporting.sample_size import build_sample_size

    print_document(build_sample_size(plan), sys.stdout.isatty())
    return 0


PRINTERS: dict[str, Callable[[Any, ParsedArgs], int]] = {
    "sample_size": _print_sample_size,
    "benchmarks": _print_benchmarks,
    "checkpoints": _print_checkpoints,
    "completion": _print_completion,
    "configs": _print_configs,
    "demo": _print_demo,
    "predict": _print_predict,
    "recipes": _print_recipes,
}
