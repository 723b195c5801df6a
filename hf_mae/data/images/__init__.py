"""Images: bytes -> array -> tensor, the pixel cache, and streaming."""
