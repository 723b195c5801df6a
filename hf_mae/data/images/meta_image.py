"""Frames of MetaImage files (`.mha`), read with SimpleITK."""

import shutil
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from .frame_reader import Frames, check_pixel_count
from .image_error import ImageError
from .levels import scale_to_uint8
from .messages import ImageMessage

MAX_HEADER_BYTES = 65536


class MetaImageFrames(Frames):
    """The slices of a MetaImage file, along its last axis. One slice is read at a time if the file is uncompressed."""

    def __init__(self, file: IO[bytes]):
        super().__init__(file)
        try:
            import SimpleITK
        except ImportError:
            raise ImageError(ImageMessage.META_IMAGE_REQUIRES_PACKAGE) from None
        _check_pixels_in_file(file)
        self._copy: Any = None
        self.reader = SimpleITK.ImageFileReader()
        self.reader.SetImageIO("MetaImageIO")
        self.reader.SetFileName(self._path())
        self.reader.ReadImageInformation()
        size = self.reader.GetSize()
        if len(size) not in (2, 3):
            raise ImageError(ImageMessage.UNSUPPORTED_FORMAT)
        self.size = size[0], size[1]
        check_pixel_count(*self.size)
        self.num_frames = size[2] if len(size) == 3 else 1

    def _path(self) -> str:
        """Returns the path of the file; the content of an archive member is copied to a temporary file."""
        if isinstance(path := getattr(self.file, "name", None), str) and path.lower().endswith(".mha"):
            return str(Path(path).absolute())
        self._copy = tempfile.NamedTemporaryFile(suffix=".mha")
        self.file.seek(0)
        shutil.copyfileobj(self.file, self._copy)
        self._copy.flush()
        return str(self._copy.name)

    def _decode(self, index: int, draft_size: tuple[int, int] | None) -> Image.Image:
        import SimpleITK

        size = self.reader.GetSize()
        if len(size) == 3:
            self.reader.SetExtractIndex((0, 0, index))
            self.reader.SetExtractSize((size[0], size[1], 0))
        levels: np.ndarray = SimpleITK.GetArrayFromImage(self.reader.Execute())
        if levels.ndim == 3 and levels.shape[-1] not in (3, 4):
            raise ImageError(ImageMessage.UNSUPPORTED_FORMAT)
        return Image.fromarray(scale_to_uint8(levels[..., :3] if levels.ndim == 3 else levels)).convert("RGB")

    def close(self) -> None:
        """Closes the file, and removes its temporary copy."""
        super().close()
        if self._copy is not None:
            self._copy.close()


def _check_pixels_in_file(file: IO[bytes]) -> None:
    """Raises `ImageError` for a header that names other files, because reading it would open them."""
    file.seek(0)
    for line in file.read(MAX_HEADER_BYTES).split(b"\n"):
        key, _, value = line.partition(b"=")
        if key.strip() == b"ElementDataFile":
            if value.strip().upper() != b"LOCAL":
                raise ImageError(ImageMessage.META_IMAGE_IN_TWO_FILES)
            return
    raise ImageError(ImageMessage.DAMAGED_FILE)
