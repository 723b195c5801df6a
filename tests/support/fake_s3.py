"""A fake S3 server on the loopback interface: `s3fs` lists, stats and reads its objects with real requests."""

import hashlib
import os
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

LISTING = """<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>{bucket}</Name>
<Prefix>{prefix}</Prefix><KeyCount>{count}</KeyCount><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"""
ENTRY = """<Contents><Key>{key}</Key><Size>{size}</Size><ETag>&quot;{etag}&quot;</ETag>
<LastModified>{last_modified}</LastModified></Contents>"""
LAST_MODIFIED = "2026-01-01T00:00:00.000Z"


def md5(content):
    return hashlib.md5(content).hexdigest()


class S3Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]
    requested_keys: list[str]
    missing_status: int  # HTTP status for missing objects

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        url = urlsplit(self.path)
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        if not key:
            return self.list(bucket, parse_qs(url.query, keep_blank_values=True))
        content = self.objects.get(f"{bucket}/{key}")
        if content is None:
            return self.respond(
                self.missing_status, b"<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>"
            )
        self.requested_keys.append(key)
        etag = f'"{md5(content)}"'
        if self.headers.get("If-Match", etag) != etag:
            message = "At least one of the pre-conditions you specified did not hold"
            return self.respond(
                412, f"<Error><Code>PreconditionFailed</Code><Message>{message}</Message></Error>".encode()
            )
        if byte_range := self.headers.get("Range"):
            first, last = (int(end) for end in byte_range.removeprefix("bytes=").split("-"))
            last = min(last, len(content) - 1)
            content_range = f"bytes {first}-{last}/{len(content)}"
            return self.respond(206, content[first : last + 1], Content_Range=content_range, ETag=etag)
        self.respond(200, content, ETag=etag)

    def list(self, bucket, query):
        prefix, delimiter = (query.get(name, [""])[0] for name in ("prefix", "delimiter"))
        listed, folders = [], set()
        for name, content in sorted(self.objects.items()):
            key = name.removeprefix(f"{bucket}/")
            if name == key or not key.startswith(prefix):
                continue
            head, has_delimiter, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            if has_delimiter:
                folders.add(prefix + head + delimiter)
            else:
                listed.append(
                    ENTRY.format(
                        key=quote(key),
                        size=len(content),
                        etag=hashlib.md5(content).hexdigest(),
                        last_modified=LAST_MODIFIED,
                    )
                )
        listed += [f"<CommonPrefixes><Prefix>{quote(name)}</Prefix></CommonPrefixes>" for name in sorted(folders)]
        listing = LISTING.format(bucket=bucket, prefix=escape(prefix), count=len(listed), entries="".join(listed))
        self.respond(200, listing.encode(), Content_Type="application/xml")

    def respond(self, status, body, **headers):
        self.send_response(status)
        for name, value in {
            "Content_Length": len(body),
            "Last_Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
            **headers,
        }.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def run_fake_s3(missing_status=404):
    """Runs the server; yields (objects by BUCKET/KEY, URL, requested keys)."""
    handler = type("Handler", (S3Handler,), {"objects": {}, "requested_keys": [], "missing_status": missing_status})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield handler.objects, f"http://127.0.0.1:{server.server_port}", handler.requested_keys
        server.shutdown()


@contextmanager
def use_fake_s3(monkeypatch):
    """Redirects `s3://` to a fake server; yields (objects by BUCKET/KEY, requested keys)."""
    with run_fake_s3() as (objects, url, requested_keys):
        for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "here"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        clear_connections()
        yield objects, requested_keys
        clear_connections()


def put_folder(objects, folder, prefix):
    """Adds all files of a folder below BUCKET/KEY."""
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            with open(path, "rb") as file:
                objects[f"{prefix}/{os.path.relpath(path, folder)}"] = file.read()


def clear_connections():
    """Closes the connections of this process to earlier servers."""
    import fsspec

    from hf_mae.files.archive_members import _open_file_system

    _open_file_system.cache_clear()
    fsspec.get_filesystem_class("s3").clear_instance_cache()
