"""Publishing: Hub, ONNX, demo and Space."""
