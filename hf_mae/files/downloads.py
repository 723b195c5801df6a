"""Downloading large files: with a bar, resumed where it broke off, and checked against the size announced."""

import logging
import time
import urllib.request
from html.parser import HTMLParser
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlencode, urljoin

from tqdm.auto import tqdm

from ..errors import UsageError
from .locks import locked

logger = logging.getLogger(__name__)
CHUNK = 1 << 20
ATTEMPTS = 5
PAUSE = 1.0  # seconds before another attempt, growing
DRIVE = "https://drive.usercontent.google.com/download"


def download(url: str, path: Path, advice: str) -> Path:
    """Downloads to `path`, which appears only when it is whole; what came of a broken download is kept and resumed.

    Args:
        url: http(s), or `drive:ID` for a public file of Google Drive.
        path: the file to make; nothing is done where it is there.
        advice: what to do where it cannot be downloaded, as the second half of a sentence.

    Raises:
        UsageError: there is no network, the server refuses, or it breaks off again and again.
    """
    partial = path.with_name(f"{path.name}.partial")
    with locked(path.with_name(f"{path.name}.lock")):
        if path.is_file():
            return path
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _fetch(url, partial)
                break
            except (OSError, HTTPException) as error:
                refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
                unreachable = isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError)
                if refused or unreachable or attempt == ATTEMPTS:
                    kept = partial.stat().st_size if partial.exists() else 0
                    so_far = f"; {kept / 1e6:.0f} MB are kept, and the same command goes on from there" if kept else ""
                    reason = str(getattr(error, "reason", error)) or type(error).__name__
                    raise UsageError(f"{path.name} cannot be downloaded ({reason}{so_far}): {advice}") from None
                logger.info("The download of %s broke off (%s): going on.", path.name, error)
                time.sleep(PAUSE * attempt)
        partial.replace(path)
        partial.with_suffix(".etag").unlink(missing_ok=True)
    return path


def _fetch(url: str, partial: Path) -> None:
    """Appends what is missing to `partial`; raises OSError where that ends early."""
    have, tag = partial.stat().st_size if partial.exists() else 0, partial.with_suffix(".etag")
    headers = {"Range": f"bytes={have}-"} if have else {}
    if have and tag.exists():
        headers["If-Range"] = tag.read_text()  # from the start if the file is another one by now
    with _open(url, headers) as answer:
        resumed = answer.status == 206
        if mark := answer.headers.get("ETag") or answer.headers.get("Last-Modified"):
            tag.write_text(mark)
        else:
            tag.unlink(missing_ok=True)
        have = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        bar = tqdm(
            total=total, initial=have, unit="B", unit_scale=True, unit_divisor=1000, desc=partial.stem, delay=0.5
        )
        with open(partial, "ab" if resumed else "wb") as file, bar:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    size = partial.stat().st_size
    if total is not None and size != total:
        raise OSError(f"{size:,} of {total:,} bytes came")


def _open(url: str, headers: dict[str, str]):
    if not url.startswith("drive:"):
        return _request(url, headers)
    query = {"id": url.removeprefix("drive:"), "export": "download"}
    answer = _request(f"{DRIVE}?{urlencode(query)}", headers)
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
    action = urljoin(DRIVE, form.action)
    answer = _request(f"{action}?{urlencode(form.fields)}", headers)
    if answer.headers.get_content_type() == "text/html":
        raise UsageError(f"Google Drive does not hand out the file {query['id']}: it asks for confirmation twice.")
    return answer


def _request(url: str, headers: dict[str, str]):
    headers = {"User-Agent": "hf_mae"} | headers
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there is nothing after what we have, or the file is another one by now
            return urllib.request.urlopen(urllib.request.Request(url, headers={"User-Agent": "hf_mae"}), timeout=60)
        raise


class _ConfirmationForm(HTMLParser):
    """The form of Drive's confirmation page: where it goes, and its hidden fields."""

    def __init__(self):
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "form" and values.get("id") == "download-form":
            self.action = values.get("action")
        elif tag == "input" and values.get("type") == "hidden" and (name := values.get("name")):
            self.fields[name] = values.get("value") or ""
