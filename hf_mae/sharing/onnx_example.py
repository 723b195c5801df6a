"""Classifies images with onnxruntime, numpy and Pillow only: python example.py IMAGE ..."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

sys.path.insert(0, str(Path(__file__).parent))
from image_reader.data.images.decoding import Frames, open_frames

folder = Path(__file__).parent
names = json.loads((folder / "config.json").read_text())["id2label"]
config = json.loads((folder / "preprocessor_config.json").read_text())
model = onnxruntime.InferenceSession(folder / (sys.argv.pop(1) if sys.argv[1].endswith(".onnx") else "onnx/model.onnx"))


def load_pixels(frames: Frames, index: int = 0) -> np.ndarray:
    """Reads and preprocesses an image, or a frame of a file: (1, 3, height, width) float32."""
    image, size = frames.read(index), config["size"]
    if edge := size.get("shortest_edge"):
        image = image.resize([edge * side // min(image.size) for side in image.size], config["resample"])
        left, top = ((side - config["crop_size"][name]) // 2 for side, name in zip(image.size, ("width", "height")))
        image = image.crop((left, top, left + config["crop_size"]["width"], top + config["crop_size"]["height"]))
    else:
        image = image.resize((size["width"], size["height"]), config["resample"])
    values = (np.asarray(image) / 255 - config["image_mean"]) / config["image_std"]
    return values.astype(np.float32).transpose(2, 0, 1)[None]


for path in sys.argv[1:]:
    with open_frames(path) as frames:
        for index in range(frames.num_frames):
            logits = model.run(None, {"pixel_values": load_pixels(frames, index)})[0][0]
            scores = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
            name = path if frames.num_frames == 1 else f"{path}#frame={index}"
            print(name, *(f"{names[str(i)]} {scores[i]:.3f}" for i in scores.argsort()[::-1][:3]))
