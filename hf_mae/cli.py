"""`hf-mae VERB`: the command line. Nothing heavy is imported before a verb is known."""

import argparse
import atexit
import os
import sys
from importlib import import_module

from . import __version__

# verb: (module with `main(argv) -> exit status`, what it does)
VERBS = {
    "convert": ("hf_mae.convert", "an MAE checkpoint -> transformers weights"),
    "export": ("hf_mae.convert", "transformers weights -> a reference .pth"),
    "prepare": ("hf_mae.prepare", "check and cache a data set, and print its table"),
    "finetune": ("hf_mae.finetune", "fine-tune a checkpoint on labelled images"),
    "evaluate": ("hf_mae.evaluate", "score a fine-tuned model on a split"),
    "predict": ("hf_mae.predict", "classify image files"),
    "crossval": ("hf_mae.crossval", "train and evaluate every fold and seed"),
    "report": ("hf_mae.report", "runs beside the published rows, with intervals and tests"),
    "audit": ("hf_mae.audit", "find near-duplicate images within and across labels and splits"),
    "checkpoints": ("hf_mae.checkpoints", "list the public checkpoints, or fetch one"),
    "pretrain": ("hf_mae.pretrain", "pre-train on unlabelled images"),
    "probe": ("hf_mae.probe", "linear probe and k-NN on a checkpoint's frozen features"),
    "reconstruct": ("hf_mae.reconstruct", "show what a pre-trained model makes of hidden patches"),
    "push": ("hf_mae.hub", "push a finished run to the Hugging Face Hub"),
    "explain": ("hf_mae.explain", "show where a fine-tuned model looks, and its most confident mistakes"),
    "export-onnx": ("hf_mae.onnx_export", "a fine-tuned model -> ONNX, in float32 and int8"),
    "demo": ("hf_mae.demo", "try a fine-tuned model in the browser"),
    "configs": ("hf_mae.configs", "list the ways to run under accelerate launch, or print a file's path"),
    "recipes": ("hf_mae.recipes_list", "list the recipes, or show one"),
}


def usage() -> str:
    lines = ["usage: hf-mae VERB ... (hf-mae VERB --help tells its flags)", "", "verbs:"]
    lines += [f"  {verb:11} {what}" for verb, (_, what) in VERBS.items()]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"hf_mae {__version__}")
        return 0
    verb = argv.pop(0)
    if verb not in VERBS:
        from .errors import nearest

        print(f"hf-mae: there is no verb {verb}{nearest(verb, VERBS)}. See hf-mae --help.", file=sys.stderr)
        return 2
    try:
        return run(verb, argv)
    except KeyboardInterrupt:
        print(f"hf-mae {verb}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def run(verb: str, argv: list[str]) -> int:
    """Runs a verb; a user's mistake becomes one sentence on stderr and exit status 1."""
    from .conversion.errors import ConversionError
    from .errors import UsageError

    try:
        module = import_module(VERBS[verb][0])
        if verb in ("convert", "export"):
            return getattr(module, verb)(argv)
        status = module.main(argv)
        leave_processes(status)
        return status
    except (UsageError, ConversionError) as error:
        print(f"hf-mae {verb}: {error}", file=sys.stderr)
        return getattr(error, "status", 1)
    except OSError as error:  # a folder that cannot be written, a full disk
        if error.strerror is None or isinstance(error, BrokenPipeError):
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"hf-mae {verb}: {where}{error.strerror}.", file=sys.stderr)
        return 1


def leave_processes(status: int = 0) -> None:
    """Ends this process of a distributed run, together with the others; does nothing where there are no others.

    A gloo thread that still lets go of a tensor while Python exits aborts the process, and the launcher then ends the
    others, too: so all wait for each other, and then leave without Python's own exit but for what was registered to be
    done at it.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return
    try:
        distributed.barrier()
    except RuntimeError:  # another process is gone, and says why
        return
    distributed.destroy_process_group()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class Parser(argparse.ArgumentParser):
    """argparse with underscores or dashes in flags, and no abbreviations."""

    def __init__(self, verb: str, description: str):
        super().__init__(f"hf-mae {verb}", description=description, allow_abbrev=False)

    def flag(self, name: str, **kwargs) -> None:
        names = [f"--{name}"] + ([f"--{name.replace('_', '-')}"] if "_" in name else [])
        self.add_argument(*names, **kwargs)


if __name__ == "__main__":
    sys.exit(main())
