"""`hf-mae pretrain`: masked pre-training on unlabelled images."""

from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("pretrain")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..workflows.pretrain import pretrain
    from .logs import configure_logging

    configure_logging(asked.quiet)
    record = pretrain(recipe=asked.recipe, **asked.flags)
    if record is not None:
        folder = record.settings["output_dir"]
        print(f"The pre-trained model is in {folder}; fine-tune it with hf-mae finetune --model_name_or_path {folder}")
    return 0
