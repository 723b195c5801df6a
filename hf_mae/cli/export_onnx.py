"""`hf-mae export-onnx`: a fine-tuned model for onnxruntime."""

from .flags import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("export-onnx")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..sharing.onnx import report
    from ..workflows.export_onnx import export_onnx
    from .logs import show_logs

    show_logs(asked.quiet)
    made = export_onnx(recipe=asked.recipe, **asked.flags)
    print(report(made.checked, made.sizes))
    print(f"The ONNX model, its labels, and example.py, which uses it without torch, are in {made.folder}")
    return 0
