"""The command line: `main` runs a command, `parser` parses its flags, `output` prints its result."""
