"""The Space of a demo: `app.py` runs there without hf_mae, and `build.py` makes its files."""
