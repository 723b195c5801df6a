"""Commands that list and show, without importing torch: one function `print_COMMAND` for each."""

import argparse

from ..errors import CommandLineError
from ..reporting.document import Paragraph
from ..reporting.table import fields_table
from ..settings.accelerate_configs import describe_launch_config, find_launch_config, list_launch_configs
from ..settings.commands import COMMANDS
from ..settings.recipes import RECIPES_DIR, find_recipe, recipe_names
from .messages import CliMessage
from .output import print_document
from .parser import ParsedArgs, Parser


def print_benchmarks(args: ParsedArgs) -> None:
    """Lists the benchmarks, or shows one."""
    from ..reporting.benchmark_tables import build_benchmark, build_benchmark_list
    from ..settings.benchmarks import find_benchmark

    name = args.options.values.get("name")
    print_document(build_benchmark(name, find_benchmark(name)) if name else build_benchmark_list())


def print_checkpoints(args: ParsedArgs) -> None:
    """Lists the public checkpoints, shows one, or fetches one."""
    action, name = args.options.values.get("action", "list"), args.options.values.get("name", "")
    if action != "list" and not name:
        raise CommandLineError(CliMessage.NAME_REQUIRED, action=action, command="checkpoints")
    if action == "fetch":
        from ..workflows.checkpoints import fetch_checkpoint
        from .logs import configure_logging

        configure_logging(args.quiet)
        print(fetch_checkpoint(name))
        return
    from ..reporting.checkpoint_tables import build_checkpoint, build_model_zoo
    from ..workflows.checkpoints import find_checkpoint

    print_document(build_model_zoo() if action == "list" else build_checkpoint(find_checkpoint(name)))


def print_configs(args: ParsedArgs) -> None:
    """Lists the accelerate configs, or prints the path of one."""
    if args.options.values.get("name"):
        print(find_launch_config(args.options.values["name"]))
        return
    configs = list_launch_configs()
    folder = Paragraph(str(next(iter(configs.values())).parent))
    print_document([folder, fields_table((name, describe_launch_config(path)) for name, path in configs.items())])


def print_recipes(args: ParsedArgs) -> None:
    """Lists the recipes, or prints one."""
    action, name = args.options.values.get("action", "list"), args.options.values.get("name")
    if action == "show":
        if not name:
            raise CommandLineError(CliMessage.NAME_REQUIRED, action=action, command="recipes")
        print(find_recipe(name).read_text(encoding="utf-8"), end="")
        return
    files = {name: RECIPES_DIR / f"{name}.yaml" for name in recipe_names()}
    titles = {name: file.read_text(encoding="utf-8").splitlines()[0].lstrip("# ") for name, file in files.items()}
    print_document([fields_table(titles.items())])


def print_completion(args: ParsedArgs) -> None:
    """Prints the completion script of a shell."""
    import shtab

    print(shtab.complete(_build_completion_parser(), args.options.values["shell"]))


def _build_completion_parser() -> argparse.ArgumentParser:
    """Builds a parser of all commands with the flags of their `--help`; text values are completed as file names."""
    import shtab

    program = argparse.ArgumentParser(prog="hf-mae")
    subparsers = program.add_subparsers()
    for command in COMMANDS.values():
        subparser = subparsers.add_parser(command.name, help=command.summary, description=command.summary)
        for item in Parser(command.name).options.values():
            is_positional = item.name in command.positionals
            if not (item.show_in_help or is_positional or item.name == "recipe"):
                continue
            help_text = item.help.replace("%", "%%")
            spelling = item.name if is_positional else f"--{item.name}"
            if item.value_type is bool:
                subparser.add_argument(spelling, action="store_true", help=help_text)
                continue
            nargs = "*" if item.multiple or is_positional else None
            argument = subparser.add_argument(spelling, choices=item.choices, nargs=nargs, help=help_text)
            if item.choices is None and item.value_type is str:
                argument.complete = shtab.FILE  # type: ignore[attr-defined]
    return program
