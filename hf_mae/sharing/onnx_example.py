"""Classifies images with onnxruntime, numpy and Pillow only: python example.py IMAGE ..."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

sys.path.insert(0, str(Path(__file__).parent))
from image_reader.data.images.decoding import open_frames

folder = Path(__file__).parent
names = json.loads((folder / "config.json").read_text())["id2label"]
config = json.loads((folder / "preprocessor_config.json").read_text())
model = onnxruntime.InferenceSession(folder / (sys.argv.pop(1) if sys.argv[1].endswith(".onnx") else "onnx/model.onnx"))


def load_pixels(path: str) -> np.ndarray:
    """Reads and preprocesses an image file: (1, 3, height, width) float32."""
    with open_frames(path) as frames:
        image, size = frames.read(), config["size"]
    if edge := size.get("shortest_edge"):
        image = image.resize([edge * side // min(image.size) for side in image.size], config["resample"])
        left, top = ((side - config["crop_size"][name]) // 2 for side, name in zip(image.size, ("width", "height")))
        image = image.crop((left, top, left + config["crop_size"]["width"], top + config["crop_size"]["height"]))
    else:
        image = image.resize((size["width"], size["height"]), config["resample"])
    values = (np.asarray(image) / 255 - config["image_mean"]) / config["image_std"]
    return values.astype(np.float32).transpose(2, 0, 1)[None]


for path in sys.argv[1:]:
    logits = model.run(None, {"pixel_values": load_pixels(path)})[0][0]
    scores = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    print(path, *(f"{names[str(i)]} {scores[i]:.3f}" for i in scores.argsort()[::-1][:3]))
