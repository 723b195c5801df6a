"""What recipes and flags fill, for every verb; quick to import, but for `settings.arguments`."""
