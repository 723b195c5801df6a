"""Downloads: resumption, retries, rejected content, digests and Google Drive."""

import hashlib
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from support.file_server import run_file_server
from support.messages import logged, raises

from hf_mae.files import downloads
from hf_mae.files.downloads import check_download_unchanged, download
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
        f"bytes={size // 3}-",
        f"bytes={size // 3 + size // 4}-",
    ]
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".lock") == ["file.pth"]
    download(f"{server.url}/file", path, "")
    assert len(server.requests) == 3  # the file exists


def test_a_partial_file_is_resumed_by_the_next_command(server, tmp_path):
    server.break_at = [500_000] + [1000] * 4
    with raises(FileMessage.DOWNLOAD_INCOMPLETE, file="file.pth", megabytes=0.504, hint="Use a mirror."):
        download(f"{server.url}/file", tmp_path / "file.pth", "Use a mirror.")
    assert not (tmp_path / "file.pth").exists()
    assert (tmp_path / "file.pth.partial").stat().st_size == 504_000
    download(f"{server.url}/file", tmp_path / "file.pth", "")
    assert (tmp_path / "file.pth").read_bytes() == server.content and server.requests[-1][1] == "bytes=504000-"


@pytest.mark.parametrize(
    "changes",
    [
        {"supports_ranges": False},
        {"etag": '"2"'},
        {"etag": 'W/"1"'},
        {"etag": None},
        {"etag": '"2"', "ignores_if_range": True},
        {"etag": None, "ignores_if_range": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("first_etag", ['"1"', 'W/"1"', None])
def test_parts_of_two_versions_are_never_joined(server, tmp_path, changes, first_etag):
    """A download is interrupted, the file on the server is replaced, and the download is resumed."""
    server.etag, server.content = first_etag, b"a" * 60_000
    server.break_at = [25_000] + [0] * (downloads.MAX_ATTEMPTS - 1)
    with raises(FileMessage.DOWNLOAD_INCOMPLETE if first_etag == '"1"' else FileMessage.DOWNLOAD_FAILED):
        download(f"{server.url}/file", tmp_path / "file.pth", "")
    server.content = b"b" * 60_000
    vars(server).update(changes)
    download(f"{server.url}/file", tmp_path / "file.pth", "")
    assert (tmp_path / "file.pth").read_bytes() == server.content
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".lock") == ["file.pth"]


@pytest.mark.parametrize("etag", ['"1"', None])
def test_a_partial_file_that_is_complete_is_accepted_or_downloaded_again(server, tmp_path, etag):
    (tmp_path / "file.pth.partial").write_bytes(server.content)
    if etag:
        (tmp_path / "file.pth.etag").write_text(etag)
    download(f"{server.url}/file", tmp_path / "file.pth", "")
    assert (tmp_path / "file.pth").read_bytes() == server.content


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
