"""Limits on untrusted files. The module imports nothing, so that exported programs contain it."""

MAX_PIXELS = 89_478_485  # pixels of an image; Pillow's threshold for its decompression-bomb warning
MAX_PIXELS_ENV = "HF_MAE_MAX_PIXELS"  # environment variable: maximum pixels of an image, for all processes
