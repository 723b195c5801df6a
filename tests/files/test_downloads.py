"""Downloads: resumption, retries, rejected content, digests and Google Drive."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from support.file_server import run_file_server
from support.messages import logged, raises

from hf_mae.files import downloads
from hf_mae.files.downloads import OVERLAP, check_download_unchanged, download
from hf_mae.files.messages import FileMessage


@pytest.fixture
def server(tiny_pth, monkeypatch):
    with run_file_server(tiny_pth.read_bytes(), monkeypatch) as server:
        yield server


def test_an_interrupted_download_is_resumed(server, tmp_path):
    size = len(server.content)
    server.break_at = [size // 3, size // 4]
    path = download(f"{server.url}/file", tmp_path / "file.pth", "Use a mirror.")
    assert path.read_bytes() == server.content and len(server.requests) == 3
    assert [range_header for _, range_header in server.requests] == [
        None,
        f"bytes={size // 3 - OVERLAP}-",
        f"bytes={size // 3 + size // 4 - 2 * OVERLAP}-",
    ]
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".lock") == ["file.pth"]
    download(f"{server.url}/file", path, "")
    assert len(server.requests) == 3  # the file exists


def test_a_partial_file_is_resumed_by_the_next_command(server, tmp_path):
    server.break_at = [500_000] + [OVERLAP + 1000, 10] * 2
    with raises(FileMessage.DOWNLOAD_INCOMPLETE, file="file.pth", megabytes=0.502, hint="Use a mirror."):
        download(f"{server.url}/file", tmp_path / "file.pth", "Use a mirror.")
    assert not (tmp_path / "file.pth").exists()
    assert (tmp_path / "file.pth.partial").stat().st_size == 502_000
    download(f"{server.url}/file", tmp_path / "file.pth", "")
    assert (tmp_path / "file.pth").read_bytes() == server.content and server.requests[-1][
        1
    ] == f"bytes={502_000 - OVERLAP}-"


EARLIER, LATER = "Mon, 05 Jan 2015 10:00:00 GMT", "Mon, 05 Jan 2015 10:00:01 GMT"
STATED = [  # ETag and Last-Modified of the first answer, and whether a download of them can be resumed
    ('"1"', None, True),
    ('"1"', EARLIER, True),
    (None, EARLIER, True),
    ('W/"1"', EARLIER, True),
    ('W/"1"', None, False),
    (None, None, False),
    (None, "yesterday", False),
    (None, "Fri, 01 Jan 2100 10:00:00 GMT", False),
]
OTHER = {"content": b"b" * 60_000}
CHANGES = [
    OTHER | {"supports_ranges": False},
    OTHER | {"etag": '"2"', "modified": LATER},
    OTHER | {"etag": None, "modified": LATER},
    OTHER | {"etag": None, "modified": None},
    OTHER | {"etag": 'W/"1"', "modified": None},
    OTHER,
    OTHER | {"moved": "/other"},
    {"content": b"a" * 59_999, "ignores_if_range": True},
    {"content": b"a" * 20_000, "ignores_if_range": True},
    {"content": b"a" * 25_000 + b"b" * 35_000, "moved": "/other"},
]


@pytest.mark.parametrize("broken_at", [1, 20_000, 45_000, 59_999])
@pytest.mark.parametrize("etag, modified, is_resumable", STATED)
def test_only_a_file_with_a_version_is_resumed(server, tmp_path, etag, modified, is_resumable, broken_at):
    server.content, server.etag, server.modified = bytes(range(240)) * 250, etag, modified
    server.break_at = [broken_at]
    path = download(f"{server.url}/file", tmp_path / "file.pth", "")
    assert path.read_bytes() == server.content
    start = max(0, broken_at - OVERLAP)
    assert server.requests[1][1] == (f"bytes={start}-" if is_resumable else None)


@pytest.mark.parametrize("ignores_if_range", [False, True])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("etag, modified, is_resumable", STATED)
def test_parts_of_two_versions_are_never_joined(
    server, tmp_path, etag, modified, is_resumable, change, ignores_if_range
):
    """A download is interrupted, the file on the server is replaced, and the download is resumed."""
    vars(server).update(etag=etag, modified=modified, content=b"a" * 60_000)
    server.break_at = [25_000] + [0] * (downloads.MAX_ATTEMPTS - 1)
    with raises(FileMessage.DOWNLOAD_INCOMPLETE if is_resumable else FileMessage.DOWNLOAD_FAILED):
        download(f"{server.url}/file", tmp_path / "file.pth", "")
    vars(server).update({"ignores_if_range": ignores_if_range} | change)
    download(f"{server.url}/file", tmp_path / "file.pth", "")
    assert (tmp_path / "file.pth").read_bytes() == server.content
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".lock") == ["file.pth"]


def test_a_redirect_with_a_new_signature_is_the_same_file(server, tmp_path):
    server.moved, server.break_at = "/storage/1", [300_000]
    path = download(f"{server.url}/file", tmp_path / "file.pth", "")
    assert path.read_bytes() == server.content and server.requests[-1][1] == f"bytes={300_000 - OVERLAP}-"


@pytest.mark.parametrize(
    "version", [b"", b"{", b"[]", b"\xff", b'{"validator": "a\\nb", "size": 1, "address": ""}', None]
)
def test_a_partial_file_without_its_version_is_downloaded_again(server, tmp_path, version):
    (tmp_path / "file.pth.partial").write_bytes(server.content[:5000] + b"x" * 5000)
    if version is not None:
        (tmp_path / "file.pth.version").write_bytes(version)
    download(f"{server.url}/file", tmp_path / "file.pth", "")
    assert (tmp_path / "file.pth").read_bytes() == server.content and len(server.requests) == 1


def test_a_partial_file_that_is_complete_is_compared_with_the_last_bytes_on_the_server(server, tmp_path):
    server.break_at = [len(server.content) - 10] + [0] * (downloads.MAX_ATTEMPTS - 1)
    with raises(FileMessage.DOWNLOAD_INCOMPLETE):
        download(f"{server.url}/file", tmp_path / "file.pth", "")
    (tmp_path / "file.pth.partial").write_bytes(server.content)
    server.requests.clear()
    assert download(f"{server.url}/file", tmp_path / "file.pth", "").read_bytes() == server.content
    assert len(server.requests) == 1 and server.requests[0][1]


def test_two_processes_download_a_file_once(server, tmp_path):
    server.break_at = [100_000]
    with ThreadPoolExecutor(2) as pool:
        paths = [pool.submit(download, f"{server.url}/file", tmp_path / "file.pth", "") for _ in range(2)]
    assert {path.result().read_bytes() for path in paths} == {server.content}
    assert len(server.requests) == 2  # one that was interrupted and one that resumed


def test_an_invalid_content_length_is_ignored(server, tmp_path):
    server.extra_headers = [{"Content-Length": "abc"}]
    download(f"{server.url}/file", tmp_path / "file.pth", "")
    assert (tmp_path / "file.pth").read_bytes() == server.content


@pytest.mark.parametrize(
    "header, content, message, reason",
    [
        ({"Content-Type": "text/html; charset=utf-8"}, b"Sign in, please", FileMessage.DOWNLOAD_IS_WEB_PAGE, None),
        ({}, b"\xef\xbb\xbf\n<!DOCTYPE html><p>Sign in</p>", FileMessage.DOWNLOAD_IS_WEB_PAGE, None),
        ({"Content-Encoding": "gzip"}, b"\x1f\x8b", FileMessage.DOWNLOAD_FAILED, "gzip"),
        ({"Content-Length": None}, b"", FileMessage.DOWNLOAD_FAILED, "no data"),
    ],
)
def test_other_content_than_the_file_is_rejected(server, tmp_path, header, content, message, reason):
    server.extra_headers, server.content = [header] * downloads.MAX_ATTEMPTS, content
    with raises(message, file="file.pth") as caught:
        download(f"{server.url}/file", tmp_path / "file.pth", "Use a mirror.")
    assert reason is None or reason in caught.value.attributes["reason"]
    assert not (tmp_path / "file.pth").exists()


def test_retry_after_headers_are_respected(server, tmp_path, monkeypatch):
    delays = []
    monkeypatch.setattr(downloads.time, "sleep", delays.append)
    soon = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=40))
    server.statuses = [(429, "7"), (503, soon), (503, None)]
    download(f"{server.url}/file", tmp_path / "file.pth", "")
    assert (tmp_path / "file.pth").read_bytes() == server.content
    assert delays[0] == 7 and 30 < delays[1] <= 40 and delays[2] == 0
    server.statuses = [(429, "86400")]
    with raises(FileMessage.DOWNLOAD_FAILED, file="y", reason="Too Many Requests"):
        download(f"{server.url}/file", tmp_path / "y", "")


def test_the_digest_of_an_unpublished_file_is_stored_and_compared(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("hf_mae.files.caches.cache_folder", lambda: tmp_path)
    (tmp_path / "a.pth").write_bytes(b"one")
    with caplog.at_level("INFO"):
        check_download_unchanged("https://x.org/a.pth", tmp_path / "a.pth")
    digest = hashlib.sha256(b"one").hexdigest()
    assert logged(caplog.records, FileMessage.DIGEST_STORED, file="a.pth", digest=digest)
    check_download_unchanged("https://x.org/a.pth", tmp_path / "a.pth")
    (tmp_path / "a.pth").write_bytes(b"two")
    with raises(FileMessage.DOWNLOAD_CHANGED, url="https://x.org/a.pth"):
        check_download_unchanged("https://x.org/a.pth", tmp_path / "a.pth")


def test_google_drive_downloads_are_confirmed(server, tmp_path):
    server.break_at = [700_000]
    path = download("drive:1abc", tmp_path / "checkpoint-399.pth", "")
    assert path.read_bytes() == server.content
    for file_id, message in (("quota", FileMessage.DRIVE_QUOTA), ("private", FileMessage.DRIVE_NOT_PUBLIC)):
        with raises(message, id=file_id):
            download(f"drive:{file_id}", tmp_path / file_id, "")


def test_rejected_requests_and_missing_networks_are_errors_with_a_hint(server, tmp_path):
    with raises(FileMessage.DOWNLOAD_FAILED, file="x", reason="Not Found", hint="Use a mirror."):
        download(f"{server.url}/absent", tmp_path / "x", "Use a mirror.")
    assert len(server.requests) == 1  # not tried again
    with raises(FileMessage.DOWNLOAD_FAILED, file="x", hint="Use a mirror."):
        download("http://127.0.0.1:9/x", tmp_path / "x", "Use a mirror.")
