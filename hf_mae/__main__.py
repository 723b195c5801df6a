"""Runs `hf-mae` as `python -m hf_mae COMMAND`."""

from .cli.main import console_main

console_main()
