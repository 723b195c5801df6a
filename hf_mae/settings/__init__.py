"""Dataclasses of all flags, the table of commands, and recipes. Only `settings.arguments` imports torch."""
