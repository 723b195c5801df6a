"""How files get written whole, locked, downloaded and cached: the one place that knows."""
