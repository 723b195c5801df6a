"""Downloading large files: with a bar, resumed where it broke off, and checked against what the server announced.

(pooch does not resume, and huggingface_hub's resumption is for the Hub alone.)
"""

import hashlib
import json
import logging
import re
import time
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin

from tqdm.auto import tqdm

from ..errors import UsageError
from .atomic import is_disk_full_error, write_json
from .caches import cache_folder
from .locks import wait_for_lock

logger = logging.getLogger(__name__)
CHUNK_SIZE = 1 << 20
MAX_ATTEMPTS = 5
RETRY_DELAY = 1.0  # seconds before another attempt, growing
MAX_RETRY_AFTER = 600.0  # seconds that a server may ask for
GOOGLE_DRIVE_URL = "https://drive.usercontent.google.com/download"
HTML_CONTENT_TYPES = ("text/html", "application/xhtml+xml")
HTML_PREFIXES = (b"<!doctype html", b"<html", b"<head")
RETRY_AFTER_STATUSES = (429, 503)  # statuses that come with Retry-After


def download(url: str, path: Path, hint: str) -> Path:
    """Downloads to `path`, which appears only when it is whole; what came of a broken download is kept and resumed.

    Args:
        url: http(s), or `drive:ID` for a public file of Google Drive.
        path: the file to make; nothing is done where it is there.
        hint: what to do where it cannot be downloaded, as the second half of a sentence.

    Raises:
        UsageError: there is no network, the server refuses, sends something else, or breaks off again and again.
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
                pause = RETRY_DELAY * attempt if attempt < MAX_ATTEMPTS else None
                pause = None if pause is None or is_disk_full_error(error) else _retry_delay(error, pause)
                if pause is None:
                    kept = partial.stat().st_size if partial.exists() else 0
                    so_far = f"; {kept / 1e6:.0f} MB are kept, and the same command goes on from there" if kept else ""
                    reason = str(getattr(error, "reason", error)) or type(error).__name__
                    raise UsageError(f"{path.name} cannot be downloaded ({reason}{so_far}): {hint}") from None
                logger.info("The download of %s broke off (%s): going on in %.0f s.", path.name, error, pause)
                time.sleep(pause)
        partial.replace(path)
        partial.with_suffix(".etag").unlink(missing_ok=True)
    return path


def check_download_unchanged(url: str, path: Path) -> None:
    """Of a file whose publisher tells no digest: says so, remembers what came, and refuses another one next time.

    Raises:
        UsageError: the file is not the one that came from this address before.
    """
    memory = cache_folder() / "downloads" / "seen.json"
    found = file_digest(path, "sha256")
    with wait_for_lock(memory.with_suffix(".lock")):
        try:
            seen = json.loads(memory.read_text(encoding="utf-8")) if memory.is_file() else {}
        except ValueError:
            raise UsageError(f"{memory} is damaged: delete it, and what came before is forgotten.") from None
        before = seen.setdefault(url, found)
        if before != found:
            raise UsageError(
                f"{path} is not the file that came from {url} before (SHA-256 {found[:12]}..., then {before[:12]}...): "
                f"if it was changed on purpose, take that line out of {memory}."
            )
        write_json(memory, seen)
    logger.info(
        "No digest of %s is published: its SHA-256, %s, is remembered, and another file is refused.", path.name, found
    )


def file_digest(path: Path, algorithm: str) -> str:
    """The hexadecimal digest of a file."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_SIZE):
            digest.update(chunk)
    return digest.hexdigest()


def _retry_delay(error: Exception, delay: float) -> float | None:
    """Seconds until another attempt; None: there is no use in one."""
    if isinstance(error, urllib.error.HTTPError):
        if error.code in RETRY_AFTER_STATUSES and (asked := error.headers.get("Retry-After")):
            delay = max(delay, _parse_retry_after(asked))
            return delay if delay <= MAX_RETRY_AFTER else None
        return delay if error.code >= 500 or error.code in RETRY_AFTER_STATUSES else None
    return None if isinstance(error, urllib.error.URLError) else delay


def _parse_retry_after(retry_after: str) -> float:
    """Of a `Retry-After`: a number of seconds, or a date."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (TypeError, ValueError):
        return 0.0


def _fetch(url: str, partial: Path) -> None:
    """Appends what is missing to `partial`; raises OSError where that ends early."""
    have, tag = partial.stat().st_size if partial.exists() else 0, partial.with_suffix(".etag")
    known = tag.read_text(encoding="utf-8") if have and tag.exists() else None
    headers = {"Range": f"bytes={have}-"} if have else {}
    if known:
        headers["If-Range"] = known  # from the start if the file is another one by now
    with _open_url(url, headers) as answer:
        if answer.headers.get_content_type() in HTML_CONTENT_TYPES:
            raise _html_page_error(partial)
        mark = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        start, total = _parse_range_headers(answer)
        if start not in (0, have) or (start and known and mark != known):
            partial.unlink()
            raise OSError("the server went on elsewhere, or with another file: it is fetched from the start")
        if mark:
            tag.write_text(mark, encoding="utf-8")
        else:
            tag.unlink(missing_ok=True)
        bar = tqdm(
            total=total, initial=start, unit="B", unit_scale=True, unit_divisor=1000, desc=partial.stem, delay=0.5
        )
        with open(partial, "ab" if start else "wb") as file, bar:
            while chunk := answer.read(CHUNK_SIZE):
                if file.tell() == 0 and chunk.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower().startswith(HTML_PREFIXES):
                    raise _html_page_error(partial)
                file.write(chunk)
                bar.update(len(chunk))
    size = partial.stat().st_size
    if size == 0 or total is not None and size != total:
        raise OSError(f"{size:,} of {total or 'unknown':,} bytes came" if total else "nothing came")


def _parse_range_headers(response: Any) -> tuple[int, int | None]:
    """From which byte on an answer goes, and how many the whole file has (None: it does not say)."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise OSError(f"the server sends it encoded ({encoding}), which was not asked for")
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if found is None:
            return -1, None
        return int(found[1]), int(found[2]) if found[2] != "*" else None
    if response.status != 200:
        raise OSError(f"the server answers with status {response.status}")
    length = response.headers.get("Content-Length", "").strip()
    return 0, int(length) if length.isdecimal() else None


def _html_page_error(partial: Path) -> UsageError:
    """Said of a page that comes with status 200: the sign-in page of a clinic or a hotel, say."""
    return UsageError(
        f"A web page came in place of {partial.stem}: the network may ask to sign in first, or the file has moved."
    )


def _open_url(url: str, headers: dict[str, str]) -> Any:
    if not url.startswith("drive:"):
        return _request(url, headers)
    query = {"id": url.removeprefix("drive:"), "export": "download"}
    answer = _request(f"{GOOGLE_DRIVE_URL}?{urlencode(query)}", headers)
    if answer.headers.get_content_type() != "text/html":
        return answer
    with answer:
        page = answer.read().decode("utf-8", "replace")
    form = _ConfirmationForm()  # a large file is not scanned for viruses, and Drive asks whether to go on
    form.feed(page)
    if form.action is None:
        if "quota" in page.lower():
            raise UsageError(
                f"Google Drive says that the file {query['id']} was downloaded too often today: try later."
            )
        raise UsageError(f"Google Drive does not hand out the file {query['id']}: it is not public any more.")
    action = urljoin(GOOGLE_DRIVE_URL, form.action)
    answer = _request(f"{action}?{urlencode(form.fields)}", headers)
    if answer.headers.get_content_type() == "text/html":
        raise UsageError(f"Google Drive does not hand out the file {query['id']}: it asks for confirmation twice.")
    return answer


def _request(url: str, headers: dict[str, str]) -> Any:
    own = {"User-Agent": "hf_mae", "Accept-Encoding": "identity"}
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=own | headers), timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there is nothing after what we have, or the file is another one by now
            return urllib.request.urlopen(urllib.request.Request(url, headers=own), timeout=60)
        raise


class _ConfirmationForm(HTMLParser):
    """The form of Drive's confirmation page: where it goes, and its hidden fields."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "form" and values.get("id") == "download-form":
            self.action = values.get("action")
        elif tag == "input" and values.get("type") == "hidden" and (name := values.get("name")):
            self.fields[name] = values.get("value") or ""
