"""The catalogue of public checkpoints, from a server on loopback that behaves as the real ones do, at their worst."""

import hashlib
import http.server
import json
import re
import threading
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from urllib.parse import parse_qs, urlparse

import pytest
from huggingface_hub import ModelCard
from support.cli_process import run_cli
from transformers import AutoModelForImageClassification

from hf_mae.cli.main import main
from hf_mae.errors import UsageError
from hf_mae.files import downloads as download
from hf_mae.models import model_zoo
from hf_mae.models.model_zoo import PublicCheckpoint, find_licence, load_checkpoint_catalogue, resolve_checkpoint

PAGE = """<html><body><form id="download-form" action="{action}" method="get">
<input type="submit" value="Download anyway"/><input type="hidden" name="id" value="{id}">
<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="ab-12"></form></body></html>"""


class Server(http.server.ThreadingHTTPServer):
    """Hands out `content`, whatever the path; `break_at`: bytes after which each of the first answers breaks off."""

    def __init__(self, content: bytes):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.break_at, self.ranges, self.asked, self.etag = content, [], True, [], '"1"'
        self.heads, self.statuses = [], []  # of the next answers: heads in place of the right ones; status, Retry-After
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        url, asked = urlparse(self.path), self.headers.get("Range")
        self.server.requests.append((url.path, asked))
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/absent":
            return self.send_error(404)
        if self.server.statuses:
            return self.put_off(*self.server.statuses.pop(0))
        if url.path == "/download" and query.get("confirm") != "t":
            page = "<html>Quota exceeded</html>" if query["id"] == "quota" else "<html>Sign in</html>"
            if query["id"] not in ("quota", "private"):
                page = PAGE.format(action=f"{self.server.url}/download", id=query["id"])
            return self.answer(page.encode(), 200, "text/html; charset=utf-8")
        start, content = 0, self.server.content
        same = self.headers.get("If-Range") in (None, self.server.etag)
        if asked and self.server.ranges and same:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked).group(1))
            if start >= len(content):
                return self.send_error(416)
        self.answer(content[start:], 206 if start else 200, "application/octet-stream")

    def put_off(self, status, retry_after):
        self.send_response(status)
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self, content, status, kind):
        heads = {"Content-Type": kind, "Content-Length": str(len(content)), "ETag": self.server.etag}
        if status == 206:
            end = len(self.server.content)
            heads["Content-Range"] = f"bytes {end - len(content)}-{end - 1}/{end}"
        heads |= self.server.heads.pop(0) if self.server.heads else {}
        self.send_response(status)
        for name, value in heads.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        if kind.startswith("application") and self.server.break_at:
            content = content[: self.server.break_at.pop(0)]
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tiny_pth, monkeypatch):
    monkeypatch.setattr(download, "RETRY_DELAY", 0.0)
    with Server(tiny_pth.read_bytes()) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        monkeypatch.setattr(download, "GOOGLE_DRIVE_URL", f"{served.url}/download")
        yield served
        served.shutdown()


def test_a_broken_download_goes_on_where_it_broke(server, tmp_path):
    size = len(server.content)
    server.break_at = [size // 3, size // 4]
    path = download.download(f"{server.url}/file", tmp_path / "file.pth", "get it elsewhere.")
    assert path.read_bytes() == server.content and len(server.requests) == 3
    assert [asked for _, asked in server.requests] == [None, f"bytes={size // 3}-", f"bytes={size // 3 + size // 4}-"]
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".lock") == ["file.pth"]
    download.download(f"{server.url}/file", path, "")
    assert len(server.requests) == 3  # it is there


def test_what_came_is_kept_for_the_next_command(server, tmp_path):
    server.break_at = [500_000] + [1000] * 4
    with pytest.raises(UsageError, match=r"bytes came; 1 MB are kept, and the same command goes on.*get it elsewhere"):
        download.download(f"{server.url}/file", tmp_path / "file.pth", "get it elsewhere.")
    assert not (tmp_path / "file.pth").exists()
    assert (tmp_path / "file.pth.partial").stat().st_size == 504_000
    download.download(f"{server.url}/file", tmp_path / "file.pth", "")
    assert (tmp_path / "file.pth").read_bytes() == server.content and server.requests[-1][1] == "bytes=504000-"


@pytest.mark.parametrize("how", ["no ranges", "another file by now", "already whole"])
def test_a_server_that_does_not_go_on_from_the_middle(server, tmp_path, how):
    partial = tmp_path / "file.pth.partial"
    partial.write_bytes(b"x" * 1000)
    (tmp_path / "file.pth.etag").write_text('"1"')
    if how == "no ranges":
        server.ranges = False
    elif how == "another file by now":
        server.etag = '"2"'
    else:
        partial.write_bytes(server.content)
    download.download(f"{server.url}/file", tmp_path / "file.pth", "")
    assert (tmp_path / "file.pth").read_bytes() == server.content


def test_a_range_of_another_place_or_file_is_fetched_from_the_start(server, tmp_path):
    for head in ({"Content-Range": "bytes 5-9/10"}, {"Content-Range": None}, {"ETag": '"3"'}):
        (tmp_path / "file.pth.partial").write_bytes(server.content[:1000])
        (tmp_path / "file.pth.etag").write_text(server.etag)
        server.heads = [head]
        download.download(f"{server.url}/file", tmp_path / "file.pth", "")
        assert (tmp_path / "file.pth").read_bytes() == server.content
        (tmp_path / "file.pth").unlink()


def test_a_length_that_is_no_number_is_none(server, tmp_path):
    server.heads = [{"Content-Length": "abc"}]
    download.download(f"{server.url}/file", tmp_path / "file.pth", "")
    assert (tmp_path / "file.pth").read_bytes() == server.content


@pytest.mark.parametrize(
    "head, content, message",
    [
        ({"Content-Type": "text/html; charset=utf-8"}, b"Sign in, please", "A web page came in place of file.pth"),
        ({}, b"\xef\xbb\xbf\n<!DOCTYPE html><p>Sign in</p>", "A web page came in place of file.pth"),
        ({"Content-Encoding": "gzip"}, b"\x1f\x8b", r"cannot be downloaded \(the server sends it encoded \(gzip\)"),
        ({"Content-Length": None}, b"", r"cannot be downloaded \(nothing came\): get it from A"),
    ],
)
def test_what_is_not_the_file_is_refused_and_not_kept(server, tmp_path, head, content, message):
    server.heads, server.content = [head] * download.MAX_ATTEMPTS, content
    with pytest.raises(UsageError, match=message):
        download.download(f"{server.url}/file", tmp_path / "file.pth", "get it from A.")
    assert not (tmp_path / "file.pth").exists()


def test_a_server_that_asks_to_wait_is_waited_for(server, tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(download.time, "sleep", waited.append)
    soon = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=40))
    server.statuses = [(429, "7"), (503, soon), (503, None)]
    download.download(f"{server.url}/file", tmp_path / "file.pth", "")
    assert (tmp_path / "file.pth").read_bytes() == server.content
    assert waited[0] == 7 and 30 < waited[1] <= 40 and waited[2] == 0
    server.statuses = [(429, "86400")]
    with pytest.raises(UsageError, match=r"y cannot be downloaded \(Too Many Requests\)"):
        download.download(f"{server.url}/file", tmp_path / "y", "")


def test_a_file_without_a_published_digest_is_remembered(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(download, "cache_folder", lambda: tmp_path)
    (tmp_path / "a.pth").write_bytes(b"one")
    with caplog.at_level("INFO"):
        download.check_download_unchanged("https://x.org/a.pth", tmp_path / "a.pth")
    assert f"No digest of a.pth is published: its SHA-256, {hashlib.sha256(b'one').hexdigest()}" in caplog.text
    download.check_download_unchanged("https://x.org/a.pth", tmp_path / "a.pth")
    (tmp_path / "a.pth").write_bytes(b"two")
    with pytest.raises(UsageError, match="is not the file that came from https://x.org/a.pth before"):
        download.check_download_unchanged("https://x.org/a.pth", tmp_path / "a.pth")


def test_google_drives_confirmation_page(server, tmp_path):
    server.break_at = [700_000]
    path = download.download("drive:1abc", tmp_path / "checkpoint-399.pth", "")
    assert path.read_bytes() == server.content
    for which, message in (("quota", "downloaded too often today"), ("private", "not public any more")):
        with pytest.raises(UsageError, match=message):
            download.download(f"drive:{which}", tmp_path / which, "")


def test_refusals_and_no_network_say_what_to_do(server, tmp_path):
    with pytest.raises(UsageError, match=r"x cannot be downloaded \(Not Found\): get it from A"):
        download.download(f"{server.url}/absent", tmp_path / "x", "get it from A.")
    assert len(server.requests) == 1  # a refusal is not asked again
    with pytest.raises(UsageError, match="cannot be downloaded .*: get it from A"):
        download.download("http://127.0.0.1:9/x", tmp_path / "x", "get it from A.")


@pytest.fixture
def entry(server, tiny_pth, tmp_path, monkeypatch):
    """A catalogue with one line, and a cache of its own."""
    line = PublicCheckpoint(
        name="tiny_mae",
        architecture="tiny",
        stage="pre-trained",
        mask_ratio="0.75",
        url="drive:1abc",
        file="checkpoint-399.pth",
        megabytes="2",
        md5_prefix=hashlib.md5(server.content).hexdigest()[:6],
        layout="{model, optimizer, epoch, scaler, args}",
        licence="CC BY-NC 4.0",
        mean_std="",
    )
    monkeypatch.setattr(model_zoo, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(model_zoo, "load_checkpoint_catalogue", lambda: {"tiny_mae": line})
    return line


def test_a_name_is_downloaded_and_converted_once_and_its_licence_goes_with_it(entry, server, toy, tmp_path, capsys):
    argv = ["finetune", "--model_name_or_path", "tiny_mae", "--data_dir", toy / "labelled", "--output_dir"]
    argv += [tmp_path / "run", "--max_steps", 1, "--eval_strategy", "no", "--load_best_model_at_end", "false"]
    assert main([*map(str, argv), "--disable_tqdm", "true"]) == 0
    asked = len(server.requests)
    assert asked == 2 and not entry.download_path.exists()
    assert resolve_checkpoint("tiny_mae") == str(entry.converted_path) and len(server.requests) == asked
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert card.data.license == "cc-by-nc-4.0" and "Non-commercial use only" in card.text
    assert "from `tiny_mae`" in card.text
    AutoModelForImageClassification.from_pretrained(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "all_results.json").read_text())["base"] == "tiny_mae"
    # A model that is fine-tuned further inherits it again.
    assert find_licence(tmp_path / "run") == ("cc-by-nc-4.0", "its model card")
    assert main(["convert", "tiny_mae", str(tmp_path / "converted")]) == 0
    assert "ViTMAEForPreTraining" in capsys.readouterr().out


def test_a_file_that_a_person_put_there_is_taken(entry, server, tiny_pth, monkeypatch):
    monkeypatch.setattr(download, "GOOGLE_DRIVE_URL", "http://127.0.0.1:9")
    with pytest.raises(UsageError) as caught:
        resolve_checkpoint("tiny_mae")
    message = f"get checkpoint-399.pth from {entry.location} and put it at {entry.download_path}."
    assert str(caught.value).endswith(message) and "drive.google.com/file/d/1abc" in message
    entry.download_path.parent.mkdir(parents=True, exist_ok=True)
    entry.download_path.write_bytes(server.content)
    assert (resolve_checkpoint("tiny_mae"), server.requests) == (str(entry.converted_path), [])
    assert entry.download_path.read_bytes() == server.content  # it stays that person's file


def test_another_file_than_the_published_one(entry, server):
    server.content = server.content[:-1] + b"x"
    with pytest.raises(UsageError, match=r"not the published checkpoint-399.pth \(MD5 \w{6}, expected \w{6}\)"):
        resolve_checkpoint("tiny_mae")
    assert not entry.converted_path.exists()


def test_licences_of_other_bases(tiny_pth, tmp_path):
    assert find_licence(tiny_pth)[0] is None
    named = tmp_path / "mae_pretrain_vit_base.pth"
    named.write_bytes(tiny_pth.read_bytes())
    assert find_licence(named) == ("cc-by-nc-4.0", "the catalogue's mae_pretrain_vit_base, by the name of the file")
    assert find_licence("some/hub-id")[0] is None  # offline


def test_the_catalogue_is_the_published_one(shared_data):
    import csv

    published = list(csv.DictReader(open(shared_data.parent / "published" / "checkpoints.csv")))
    ours = load_checkpoint_catalogue()
    assert [row["name"] for row in published] == list(ours)
    for row in published:
        entry = ours[row["name"]]
        assert (entry.architecture, entry.stage, entry.layout) == (row["architecture"], row["stage"], row["layout"])
        assert row["where"].split()[-1] in entry.url and entry.licence == row["licence"].removesuffix(" as published")
        assert int(entry.megabytes) > 300


def test_the_verb(capsys):
    done = run_cli("checkpoints")
    assert "ssl_endoscopy_vit_large " in done.stdout and "CC BY-NC 4.0" in done.stdout and "encoder only" in done.stdout
    assert main(["checkpoints", "show", "endovit"]) == 0
    assert "huggingface.co/egeozsoy/EndoViT" in capsys.readouterr().out
    assert main(["checkpoints", "show", "endovitt"]) == 2
    assert "did you mean endovit?" in capsys.readouterr().err
    assert main(["checkpoints", "fetch", "endovit"]) == 1  # HF_HUB_OFFLINE
    assert "put it at" in capsys.readouterr().err
