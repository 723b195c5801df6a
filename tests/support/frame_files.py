"""Files with several frames, and DICOM files."""

import io
import struct

import numpy as np
from PIL import Image

KINDS = ("tif", "gif", "webp", "png", "dcm", "mha")


def make_frames(count, size=(20, 30), seed=0):
    """Random colours: (count, height, width, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 255, (count, *size, 3), dtype=np.uint8)


def write_frames(path, frames, **options):
    """Writes frames as TIFF, GIF, WebP, APNG, DICOM or MetaImage, by the suffix of the path."""
    suffix = path.suffix
    if suffix == ".dcm":
        return write_dicom(path, frames, "RGB", frames=len(frames), **options)
    if suffix == ".mha":
        import SimpleITK

        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(frames, isVector=frames.ndim == 4), str(path), True)
        return path
    first, *others = map(Image.fromarray, frames)
    options = {".webp": {"lossless": True}, ".tif": {"compression": "tiff_deflate"}}.get(suffix, {})
    first.save(path, save_all=True, append_images=others, **options)
    return path


def write_dicom(path, pixels, kind="MONOCHROME2", stored=None, frames=None, syntax=None, **attributes):
    """Writes a DICOM file; `attributes` are elements of the data set."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    dataset, meta = Dataset(), FileMetaDataset()
    meta.TransferSyntaxUID = syntax or ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    dataset.file_meta, dataset.SOPClassUID, dataset.SOPInstanceUID = meta, SecondaryCaptureImageStorage, "1.2.3"
    shape = pixels.shape[1:] if frames else pixels.shape
    dataset.Rows, dataset.Columns = shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (3 if len(shape) == 3 else 1), kind
    if len(shape) == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored = stored or dataset.BitsAllocated
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(pixels.dtype.kind == "i")
    if frames:
        dataset.NumberOfFrames = frames
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def encode(image, kind="PNG", **options):
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def boxes(data):
    """The boxes of an MP4 file: name, start and end."""
    offset = 0
    while offset < len(data):
        size, name = struct.unpack(">I4s", data[offset : offset + 8])
        yield name, offset, offset + size
        offset += size


def _shift_chunks(data, distance, path=(b"trak", b"mdia", b"minf", b"stbl")):
    """Adds a distance to the offsets (`stco`) of an MP4 index."""
    out = b""
    for name, start, end in boxes(data):
        body = data[start + 8 : end]
        if path and name == path[0]:
            body = _shift_chunks(body, distance, path[1:])
        elif not path and name == b"stco":
            (count,) = struct.unpack(">I", body[4:8])
            offsets = struct.unpack(f">{count}I", body[8 : 8 + 4 * count])
            body = body[:8] + struct.pack(f">{count}I", *(offset + distance for offset in offsets))
        out += struct.pack(">I4s", 8 + len(body), name) + body
    return out


def change_matroska_times(data, times, duration):
    """Changes the start of each frame of a Matroska file, and the duration; all in milliseconds."""
    data, times, cluster_time = bytearray(data), iter(times), 0

    def number(start, keep_marker):
        length = 9 - data[start].bit_length()
        value = int.from_bytes(data[start : start + length], "big")
        return value if keep_marker else value - (1 << 7 * length), start + length

    def walk(start, end):
        nonlocal cluster_time
        while start < end:
            element, start = number(start, True)
            size, start = number(start, False)
            stop = min(start + size, end)
            if element in (0x18538067, 0x1F43B675, 0x1549A966):  # Segment, Cluster, Info
                walk(start, stop)
            elif element == 0xE7:  # Timestamp of a cluster
                cluster_time = int.from_bytes(data[start:stop], "big")
            elif element == 0xA3:  # SimpleBlock
                data[start + 1 : start + 3] = struct.pack(">h", next(times) - cluster_time)
            elif element == 0x4489:  # Duration
                data[start:stop] = struct.pack(">d" if size == 8 else ">f", duration)
            start = stop

    walk(0, len(data))
    return bytes(data)


def move_index_to_front(data):
    """Moves the index (`moov`) of an MP4 file before its frames, as for streaming."""
    ends = {name: (start, end) for name, start, end in boxes(data)}
    first, (start, end) = ends[b"ftyp"][1], ends[b"moov"]
    index = _shift_chunks(data[start + 8 : end], end - start)
    return data[:first] + data[start : start + 8] + index + data[first:start]
