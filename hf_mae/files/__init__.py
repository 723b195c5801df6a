"""Atomic writes, locks, downloads, archive members and caches."""
