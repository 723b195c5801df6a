"""Private names of other libraries: one module per library, with a contract test for each use in `tests/compat/`."""
