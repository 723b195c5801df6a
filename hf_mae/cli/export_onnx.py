"""`hf-mae export-onnx`: a fine-tuned model for onnxruntime."""

from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("export-onnx")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..sharing.onnx import format_onnx_report
    from ..workflows.export_onnx import export_onnx
    from .logs import configure_logging

    configure_logging(asked.quiet)
    made = export_onnx(recipe=asked.recipe, **asked.flags)
    print(format_onnx_report(made.check_results, made.sizes_mb))
    print(f"The ONNX model, its labels, and example.py, which uses it without torch, are in {made.folder}")
    return 0
