"""`hf-mae convert`: an MAE checkpoint -> transformers weights."""

from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("convert")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..workflows.convert import convert
    from .logs import configure_logging

    configure_logging(asked.quiet)
    print(convert(**asked.flags).summary())
    print(f"Written to {asked.flags['destination']} (certificate: conversion.json)")
    return 0
