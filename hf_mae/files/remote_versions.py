"""Versions of files on web servers: parts of two versions are never joined.

The first answer for an address states the version of the file (ETag, date, size). Later requests for a part ask for
that version (`If-Range`), and each answer is compared with it, since some servers ignore the header (RFC 9110, 13.1.5).
"""

import re
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from .messages import FileMessage


@dataclass(frozen=True)
class FileVersion:
    """What a server states about a file; None: not stated."""

    etag: str | None
    modified: str | None
    size: int | None

    def equals(self, other: "FileVersion") -> bool:
        """Whether nothing that both state differs."""
        pairs = ((self.etag, other.etag), (self.modified, other.modified), (self.size, other.size))
        return all(None in pair or pair[0] == pair[1] for pair in pairs)

    @property
    def validator(self) -> str | None:
        """The value of `If-Range`; a weak ETag may be the same for other bytes."""
        return self.modified if self.etag is None or self.etag.startswith("W/") else self.etag


_versions: dict[str, FileVersion] = {}  # by URL without user and password


def _key(url: Any) -> str:
    return str(url.with_user(None))


def forget_versions(folder: str) -> None:
    """Accepts the versions of the next answers for the addresses in a folder."""
    for url in [url for url in _versions if url.startswith(folder)]:
        del _versions[url]


def watch_versions(system: Any) -> None:
    """Makes a file system of fsspec for http compare the versions in its requests; an error is a UsageError."""
    if "trace_configs" in system.client_kwargs:
        return
    from aiohttp import TraceConfig

    config = TraceConfig()
    config.on_request_start.append(_request_version)
    config.on_request_end.append(_compare_version)
    system.client_kwargs = {**system.client_kwargs, "trace_configs": [config]}


async def _request_version(session: Any, context: Any, request: Any) -> None:
    request.headers["Accept-Encoding"] = "identity"  # a part of a compressed answer is not a part of the file
    known = _versions.get(_key(request.url))
    if "Range" in request.headers and known is not None and known.validator:
        request.headers["If-Range"] = known.validator


async def _compare_version(session: Any, context: Any, answer: Any) -> None:
    url, response = _key(answer.url), answer.response
    requested = re.match(r"bytes=(\d+)-", answer.headers.get("Range", ""))
    if response.status not in (200, 206, 416):
        return
    version = _read_version(response)
    known = _versions.setdefault(url, version)
    if response.status == 416 and known.size is not None or not known.equals(version):
        raise UsageError(FileMessage.REMOTE_FILE_CHANGED, url=url)
    if requested and int(requested[1]) and response.status == 200:
        raise UsageError(FileMessage.RANGES_IGNORED, url=url)
    if requested and response.status == 206 and not _starts_at(response, int(requested[1])):
        raise OSError("the server sent another range")


def _read_version(response: Any) -> FileVersion:
    headers = response.headers
    text = headers.get("Content-Range", "").rpartition("/")[2] if response.status in (206, 416) else None
    size = headers.get("Content-Length", "") if text is None else text
    return FileVersion(
        headers.get("ETag"), headers.get("Last-Modified"), int(size) if size.isdecimal() and int(size) else None
    )


def _starts_at(response: Any, offset: int) -> bool:
    return response.headers.get("Content-Range", "").strip().startswith(f"bytes {offset}-")
