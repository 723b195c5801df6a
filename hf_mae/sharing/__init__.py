"""The Hub, ONNX, and the demo."""
