"""The command line: `main.py`, `flags.py` (the one parser), and a module a verb. Nobody imports it but `__main__`."""
