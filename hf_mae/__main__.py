"""`python -m hf_mae VERB` is `hf-mae VERB`."""

from .cli.main import console_main

console_main()
