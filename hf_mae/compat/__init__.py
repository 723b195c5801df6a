"""What depends on the inside of other libraries: one small module a library, each part with why it is needed.

`tests/compat/` holds a contract test for each of them: it fails when the library moves.
"""
