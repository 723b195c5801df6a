"""The image reader of this package as files of an exported program, which then reads the same pixels without hf_mae."""

from pathlib import Path

PACKAGE = "image_reader"  # name in exported programs
MODULES = (
    "errors",
    "settings/limits",
    *(f"data/images/{name}" for name in ("image_error", "messages", "levels", "tiff", "decoding", "dicom")),
    "data/images/frame_reader",
    *(f"data/images/{name}" for name in ("meta_image", "video_size", "videos")),
)


def image_reader_files() -> dict[str, bytes]:
    """Returns the files of the package `image_reader`: path -> content."""
    root = Path(__file__).parent.parent
    folders = {"", *(f"{parent}/" for module in MODULES for parent in map(str, Path(module).parents) if parent != ".")}
    files = {f"{PACKAGE}/{folder}__init__.py": b"" for folder in folders}
    return files | {f"{PACKAGE}/{module}.py": (root / f"{module}.py").read_bytes() for module in MODULES}


def write_image_reader(folder: Path) -> None:
    """Writes the package `image_reader` into a folder."""
    for name, content in image_reader_files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
