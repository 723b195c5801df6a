"""A Space with the demo of a model: app.py, demo.json, requirements.txt and a card."""

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import yaml

from .. import hub
from ..image_reader import image_reader_files
from .app import DemoMetadata

REQUIREMENTS = ("torch", "torchvision", "transformers", "pillow", "opencv-python-headless", "tifffile")


def build_space_files(metadata: DemoMetadata) -> dict[str, bytes]:
    """Builds the files of a Space, which runs without hf_mae and loads `metadata.model` (USER/NAME)."""
    card = {
        "title": metadata.title[:30],
        "sdk": "gradio",
        "sdk_version": version("gradio"),
        "python_version": "3.12",
        "app_file": "app.py",
        "models": [metadata.model],
        "pinned": False,
        "short_description": "Image classification, for research",
    }
    head = yaml.safe_dump(card, sort_keys=False, allow_unicode=True)
    link = f"[{metadata.model}](https://huggingface.co/{metadata.model})"
    text = f"---\n{head}---\n\nDemo of {link}. For research only: not a medical device.\n"
    return {
        "app.py": Path(__file__).with_name("app.py").read_bytes(),
        "demo.json": json.dumps(asdict(metadata), indent=2, ensure_ascii=False).encode(),
        "requirements.txt": "".join(f"{name}\n" for name in REQUIREMENTS).encode(),
        "README.md": text.encode(),
    } | image_reader_files()


def push_space(metadata: DemoMetadata, repo_id: str, *, exists: bool, private: bool) -> str:
    """Uploads the Space in one commit to the target of `hub.check_target`; returns its URL."""
    return hub.push_files(
        build_space_files(metadata),
        repo_id,
        exists=exists,
        private=private,
        message=f"Demo of {metadata.model}",
        repo_type="space",
        space_sdk="gradio",
    )
