"""Downloads large files with a progress bar, resumes interrupted downloads, and checks the announced size.

(Measured: pooch and `torch.hub` do not resume, and keep a web page or nothing as the file; `huggingface_hub.http_get`
joins two versions of a file that changes during the download.)
"""

import json
import logging
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
from tqdm.auto import tqdm

from ..errors import UsageError, escape_control_characters, inform
from .atomic import is_disk_full_error, write_json
from .caches import cache_path, file_digest
from .locks import wait_for_lock
from .messages import FileMessage

logger = logging.getLogger(__name__)
CHUNK_SIZE = 1 << 20
OVERLAP = 1024  # bytes that a resumed download repeats, to compare them
MAX_PAGE_BYTES = 1 << 20
MAX_ATTEMPTS = 5
RETRY_DELAY = 1.0  # seconds before the second attempt; increases linearly
MAX_RETRY_AFTER = 600.0  # seconds; longer requests of a server end the download
DRIVE_SCHEME, GOOGLE_DRIVE_URL = "drive", "https://drive.usercontent.google.com/download"
HTML_CONTENT_TYPES = ("text/html", "application/xhtml+xml")
HTML_PREFIXES = (b"<!doctype html", b"<html", b"<head")
RETRY_AFTER_STATUSES = (429, 503)


def download(url: str, path: Path, hint: str) -> Path:
    """Downloads a file; `path` exists only when the download is complete. An interrupted download is resumed.

    Args:
        url: http(s), or `drive:ID` for a public file of Google Drive.
        path: the file to write; an existing file is not downloaded again.
        hint: a sentence on what to do if the download fails, for the error message.

    Raises:
        UsageError: If the server is not available, rejects the request, sends another file, or fails repeatedly.
    """
    partial = path.with_name(f"{path.name}.partial")
    with wait_for_lock(path.with_name(f"{path.name}.lock")):
        if path.is_file():
            return path
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                _fetch(url, partial)
                break
            except (OSError, HTTPException) as error:
                delay = _retry_delay(error, RETRY_DELAY * attempt)
                if delay is None or attempt == MAX_ATTEMPTS:
                    raise _describe_failure(error, path, partial, hint) from None
                logger.info("The download of %s was interrupted (%s). Resuming in %.0f s.", path.name, error, delay)
                time.sleep(delay)
        partial.replace(path)
        _version_file(partial).unlink(missing_ok=True)
    return path


def check_download_unchanged(url: str, path: Path) -> None:
    """Compares a file without published digest with earlier downloads from the same address; stores a new digest.

    Raises:
        UsageError: If the file differs from the one downloaded before.
    """
    digests_file = cache_path("downloads/seen.json", for_writing=True)
    digest = file_digest(path, "sha256")
    with wait_for_lock(digests_file.with_suffix(".lock")):
        try:
            digests = json.loads(digests_file.read_text(encoding="utf-8")) if digests_file.is_file() else {}
        except ValueError:
            raise UsageError(FileMessage.DIGESTS_DAMAGED, path=digests_file) from None
        expected = digests.setdefault(url, digest)
        if expected != digest:
            raise UsageError(
                FileMessage.DOWNLOAD_CHANGED,
                path=path,
                url=url,
                found=digest[:12],
                expected=expected[:12],
                digests=digests_file,
            )
        write_json(digests_file, digests)
    inform(logger, FileMessage.DIGEST_STORED, file=path.name, digest=digest)


def _describe_failure(error: Exception, path: Path, partial: Path, hint: str) -> UsageError:
    reason = str(getattr(error, "reason", error)) or type(error).__name__
    attributes = {"file": path.name, "reason": reason, "hint": hint}
    if _read_version(partial) and (size := partial.stat().st_size):
        return UsageError(FileMessage.DOWNLOAD_INCOMPLETE, megabytes=size / 1e6, **attributes)
    return UsageError(FileMessage.DOWNLOAD_FAILED, **attributes)


def _retry_delay(error: Exception, delay: float) -> float | None:
    """Returns the seconds until the next attempt, or None if another attempt is pointless."""
    if isinstance(error, urllib.error.HTTPError):
        if error.code in RETRY_AFTER_STATUSES:
            delay = max(delay, _parse_retry_after(error.headers.get("Retry-After", "")))
            return delay if delay <= MAX_RETRY_AFTER else None
        return delay if error.code >= 500 else None
    return None if isinstance(error, urllib.error.URLError) or is_disk_full_error(error) else delay


def _parse_retry_after(retry_after: str) -> float:
    """Returns the seconds of a `Retry-After` header, which is a number of seconds or a date."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (TypeError, ValueError):
        return 0.0


@dataclass(frozen=True)
class _Version:
    """What identifies the version of a file on a server; it is stored next to a partial file."""

    validator: str  # of `If-Range`: a strong ETag, or the date of the last change
    size: int | None  # bytes of the complete file
    address: str  # after redirects, without the query, which may contain a signature that expires


def _version_file(partial: Path) -> Path:
    """The file with the version of a partial file, without which it cannot be resumed."""
    return partial.with_suffix(".version")


def _read_version(partial: Path) -> _Version | None:
    """Returns the version of a partial file; None if there is nothing to resume."""
    try:
        version = msgspec.json.decode(_version_file(partial).read_bytes(), type=_Version)
        is_usable = partial.stat().st_size > 0 and version.validator.isascii() and version.validator.isprintable()
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return version if is_usable else None


def _find_version(response: Any, size: int | None) -> _Version | None:
    """Returns the version that a server states; None if it does not state one that changes with every byte.

    A weak ETag may be the same for other bytes, and a date if the file changed within a second (RFC 9110, 8.8.2.2).
    """
    address = re.split("[?#]", response.url)[0]
    etag, modified = (response.headers.get(name, "").strip() for name in ("ETag", "Last-Modified"))
    if etag and not etag.startswith("W/"):
        return _Version(etag, size, address)
    try:
        age = parsedate_to_datetime(response.headers.get("Date", "")) - parsedate_to_datetime(modified)
        return _Version(modified, size, address) if age >= timedelta(seconds=1) else None
    except (TypeError, ValueError):
        return None


def _fetch(url: str, partial: Path) -> None:
    """Appends the missing bytes to `partial`; raises OSError if the transfer ends early."""
    version, headers, offset = _read_version(partial), {}, 0
    if version is not None:  # the server starts from the beginning if the file has changed
        offset = max(0, partial.stat().st_size - OVERLAP)
        headers = {"Range": f"bytes={offset}-", "If-Range": version.validator}
    with _request(url, headers) as response:
        if response.headers.get_content_type() in HTML_CONTENT_TYPES:
            raise _describe_web_page(url, partial, response.read(MAX_PAGE_BYTES))
        start, total = _parse_range_headers(response)
        found = _find_version(response, total)
        if start and (start != offset or found != version or not _ends_with(partial, response, offset)):
            partial.unlink(missing_ok=True)
            raise OSError("the server sent another range or another file")
        if not start:
            _begin(partial, found)
        size = partial.stat().st_size
        bar = tqdm(
            total=total,
            initial=size,
            unit="B",
            unit_scale=True,
            unit_divisor=1000,
            desc=escape_control_characters(partial.stem),
            delay=0.5,
        )
        with open(partial, "ab") as file, bar:
            while chunk := response.read(CHUNK_SIZE):
                if file.tell() == 0 and chunk.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower().startswith(HTML_PREFIXES):
                    raise _describe_web_page(url, partial, chunk)
                file.write(chunk)
                bar.update(len(chunk))
    size = partial.stat().st_size
    if size == 0 or total is not None and size != total:
        raise OSError(f"received {size:,} of {total:,} bytes" if total else "received no data")


def _ends_with(partial: Path, response: Any, offset: int) -> bool:
    """Whether a partial file from an offset to its end has the bytes with which a response starts; reads them."""
    with open(partial, "rb") as file:
        file.seek(offset)
        end = file.read()
    start = response.read(len(end))
    if len(start) < len(end) and end.startswith(start):
        raise OSError("the connection ended early")
    return bool(start == end)


def _begin(partial: Path, version: _Version | None) -> None:
    """Makes an empty partial file. Its version is written after the bytes of another version are gone."""
    _version_file(partial).unlink(missing_ok=True)
    partial.unlink(missing_ok=True)
    partial.touch()
    if version is not None:
        _version_file(partial).write_bytes(msgspec.json.encode(version))


def _describe_web_page(url: str, partial: Path, page: bytes) -> UsageError:
    scheme, _, file_id = url.partition(":")
    if scheme != DRIVE_SCHEME:
        return UsageError(FileMessage.DOWNLOAD_IS_WEB_PAGE, file=partial.stem)
    return UsageError(FileMessage.DRIVE_QUOTA if b"quota" in page.lower() else FileMessage.DRIVE_NOT_PUBLIC, id=file_id)


def _parse_range_headers(response: Any) -> tuple[int, int | None]:
    """Returns the first byte of a response (-1: unknown), and the size of the file (None: unknown)."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise OSError(f"the server sent an encoded file ({encoding}), which was not requested")
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        return (int(match[1]), int(match[2]) if match[2] != "*" else None) if match else (-1, None)
    if response.status != 200:
        raise OSError(f"the server returned status {response.status}")
    length = response.headers.get("Content-Length", "").strip()
    return 0, int(length) if length.isdecimal() else None


def _request(url: str, headers: dict[str, str]) -> Any:
    scheme, _, file_id = url.partition(":")
    if scheme == DRIVE_SCHEME:  # Drive does not scan large files for viruses, and asks for confirmation
        url = f"{GOOGLE_DRIVE_URL}?{urlencode({'id': file_id, 'export': 'download', 'confirm': 't'})}"
    default_headers = {"User-Agent": "hf_mae", "Accept-Encoding": "identity"}
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=default_headers | headers), timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and headers:  # the file is complete, or it has changed
            return _request(url, {})
        raise
