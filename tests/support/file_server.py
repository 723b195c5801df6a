"""A file server with the faults of real ones: interruptions, wrong headers, web pages of Google Drive."""

import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlparse

from hf_mae.files import downloads


class FileServer(http.server.ThreadingHTTPServer):
    """Sends `content` for any path.

    Attributes:
        break_at: bytes after which each of the next responses is interrupted.
        supports_ranges: whether `Range` requests are answered.
        ignores_if_range: whether a range is sent although the file has changed.
        modified: the Last-Modified header.
        moved: whether requests are redirected to this path.
        requests: path and `Range` header of each request.
        extra_headers: headers of the next responses that replace the correct ones (None: removed).
        statuses: status and `Retry-After` header of the next responses.
    """

    def __init__(self, content: bytes):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag, self.supports_ranges = content, '"1"', True
        self.ignores_if_range, self.modified, self.moved = False, None, None
        self.break_at, self.requests, self.extra_headers, self.statuses = [], [], [], []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET requests as a file server, and as Google Drive below /download."""

    def do_GET(self):
        url, range_header = urlparse(self.path), self.headers.get("Range")
        self.server.requests.append((url.path, range_header))
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/absent":
            return self.send_error(404)
        if self.server.statuses:
            return self.send_retry(*self.server.statuses.pop(0))
        if url.path == "/download" and (query.get("confirm") != "t" or query["id"] in ("quota", "private")):
            page = "<html>Quota exceeded</html>" if query["id"] == "quota" else "<html>Sign in</html>"
            return self.send_content(page.encode(), 200, "text/html; charset=utf-8")
        if self.server.moved and url.path != self.server.moved:
            return self.send_redirect(self.server.moved)
        start, content = 0, self.server.content
        versions = (None, self.server.etag, self.server.modified)
        is_unchanged = self.headers.get("If-Range") in versions or self.server.ignores_if_range
        if range_header and self.server.supports_ranges and is_unchanged:
            first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", range_header).groups()
            start = int(first)
            if start >= len(content):
                return self.send_error(416)
            return self.send_content(content[start : int(last) + 1 if last else None], 206, start=start)
        self.send_content(content, 200)

    def send_retry(self, status, retry_after):
        self.send_response(status)
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_redirect(self, path):
        self.send_response(302)
        self.send_header("Location", f"{path}?signature={len(self.server.requests)}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_content(self, content, status, content_type="application/octet-stream", start=0):
        headers = {"Content-Type": content_type, "Content-Length": str(len(content)), "ETag": self.server.etag}
        headers["Last-Modified"] = self.server.modified
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{start + len(content) - 1}/{len(self.server.content)}"
        headers |= self.server.extra_headers.pop(0) if self.server.extra_headers else {}
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        if content_type.startswith("application") and self.server.break_at:
            content = content[: self.server.break_at.pop(0)]
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


@contextmanager
def run_file_server(content: bytes, monkeypatch) -> Iterator[FileServer]:
    """Runs a server, which also replaces Google Drive; downloads are retried without delay."""
    monkeypatch.setattr(downloads, "RETRY_DELAY", 0.0)
    with FileServer(content) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(downloads, "GOOGLE_DRIVE_URL", f"{server.url}/download")
        yield server
        server.shutdown()
