"""What commands print and write has no control codes of names, no passwords and no tokens."""

import ast
import csv
import http.server
import importlib
import io
import json
import logging
import os
import re
import sys
import tarfile
import threading
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.messages import shows
from support.paths import ROOT

from hf_mae.cli import terminal
from hf_mae.cli.main import main
from hf_mae.files import redaction
from hf_mae.files.messages import FileMessage
from hf_mae.files.redaction import CREDENTIALS

PACKAGE = ROOT / "hf_mae"
# Calls that print, and the modules that may contain them.
PRINTING = {"print", "print_exc", "pprint", "StreamHandler", "FileHandler", "basicConfig"}
PRINTERS = {
    "cli/terminal.py": {"print", "write"},
    "cli/logs.py": {"StreamHandler", "basicConfig"},
    "compat/torch.py": {"write"},  # a process that ends; escaped
    "sharing/onnx_example.py": {"print"},  # an exported program
}
PASSWORD, TOKEN, KEY = "Zq7secretZq7", "hf_Yk3secretYk3secretYk3", "5ec2e70123456789abcdef0123456789abcdef01"
HUB_TOKEN = "given-on-the-command-line"
CODES = "\x1b]0;title\x07\x1b[31m\x9b1m\u202e\u2066\u2069\u200b\u2028\x7f"
CLASSES = (f"polyp{CODES}", f"normal{CODES}")


def find_printing(tree):
    """Names of the calls of a module that print, and of progress bars with a text that is not escaped."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        text = ast.unparse(call.func)
        if name in PRINTING or re.fullmatch(r"sys\.(__)?std(out|err)(__)?\.(write|writelines)", text):
            yield name
        if name == "tqdm":
            for value in (keyword.value for keyword in call.keywords if keyword.arg == "desc"):
                is_escaped = isinstance(value, ast.Call) and ast.unparse(value.func) == "escape_control_characters"
                if not isinstance(value, ast.Constant) and not is_escaped:
                    yield "tqdm"


def test_one_module_prints():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        if names := set(find_printing(ast.parse(path.read_text(encoding="utf-8")))):
            found[path.relative_to(PACKAGE).as_posix()] = names
    allowed = {name: found[name] - PRINTERS[name] for name in found if name in PRINTERS}
    assert set(found) <= set(PRINTERS) and not any(allowed.values()), found


@pytest.mark.parametrize(
    "code",
    [
        *map(chr, [*range(0x20), *range(0x7F, 0xA0)]),
        *"\u202a\u202e\u2066\u2069\u2028\u2029",
        *"\u200b\u200e\u200f\u2060\ufeff\udce9\ud800\u061c",
    ],
)
def test_control_characters_are_not_printed(code, capsys):
    terminal.print_text(f"a{code}b")
    terminal.print_message(f"a{code}b")
    terminal.print_json({"name": f"a{code}b"})
    out, err = capsys.readouterr()
    first, _, document = out.partition("\n") if code != "\n" else ("a\nb", "", out[4:])
    assert err == f"{first}\n" and first.replace("\t", " ").replace("\n", " ").isprintable()
    assert json.loads(document) == {"name": f"a{code}b"} and document.replace("\n", "").isprintable()
    line = terminal.CleanFormatter("%(message)s").format(logging.LogRecord("", 0, "", 0, "%s", (f"a{code}b",), None))
    assert line == first


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_table_of_predictions_is_escaped_on_a_terminal_only(is_terminal, monkeypatch):
    out, module = io.StringIO(), importlib.import_module("hf_mae.workflows.predict")
    out.isatty = lambda: is_terminal
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(module.predict, "run", lambda settings, stream: stream.write("a\x1b[31m,b\r\n") and None)
    assert main(["predict", str(ROOT), str(ROOT)]) == 0
    assert out.getvalue() == ("a\\x1b[31m,b\n" if is_terminal else "a\x1b[31m,b\r\n")


def test_tracebacks_are_clean(capsys):
    try:
        raise ValueError(f"http://u:{PASSWORD}@h/\x1b[31m")
    except ValueError:
        terminal.print_exception(*sys.exc_info())
    text = capsys.readouterr().err
    assert "Traceback" in text and text.endswith("ValueError: http://REDACTED@h/\\x1b[31m\n")


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Sends parts of a file, as object stores do."""

    def log_message(self, *_):
        pass

    def send_head(self):
        content = Path(self.translate_path(self.path)).read_bytes()
        requested = self.headers.get("Range")
        first, last = [int(end or len(content) - 1) for end in (requested or "bytes=0-").split("=")[1].split("-")]
        part = content[first : last + 1]
        self.send_response(206 if requested else 200)
        if requested:
            self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(content)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        return io.BytesIO(part)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A folder of images whose names contain control characters, and its archive on a server with a password."""
    folder = tmp_path_factory.mktemp("planted")
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("validation", 2), ("test", 2)):
        for name in CLASSES:
            (folder / "set" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "set" / split / name / f"{number}{CODES}.png")
    (folder / "www").mkdir()
    with tarfile.open(folder / "www" / "set.tar", "w") as archive:
        archive.add(folder / "set", ".")
    handler = partial(RangeHandler, directory=str(folder / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder / "set", f"http://reader:{PASSWORD}@127.0.0.1:{server.server_port}/set.tar"
        server.shutdown()


def list_texts(path: Path):
    """The content of a file, and of what it packs."""
    yield path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        yield f"{table.schema.metadata}{table.to_pylist()}".encode("utf-8", "backslashreplace")


def write_manifest(folder: Path, path: Path) -> Path:
    """A table with planted names of columns, splits, groups and classes."""
    files = [file for file in sorted(folder.rglob("*.png")) if file.parents[1].name == "train"]
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "label", "group", "split", f"note{CODES}"])
        table.writerows([str(image), f"{image.parent.name}{CODES}", f"p{CODES}", "train", CODES] for image in files)
    return path


def find_secrets(folder: Path) -> list[str]:
    secrets = [secret.encode() for secret in (PASSWORD, TOKEN, KEY, HUB_TOKEN)]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if any(s in text for text in list_texts(path) for s in secrets)]


def test_names_and_secrets_of_each_command(planted, tiny_pth, tmp_path, monkeypatch, capfd):
    local, url = planted
    monkeypatch.setenv(CREDENTIALS, "")
    monkeypatch.setattr(redaction, "_known_secrets", set())
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    monkeypatch.setattr(logging.root, "handlers", [])  # those of pytest
    run, hidden = tmp_path / "run", url.replace(f"reader:{PASSWORD}", "REDACTED")
    training = ["--num_train_epochs", 1, "--warmup_epochs", 0, "--per_device_train_batch_size", 4]
    training += ["--num_attention_heads", 3, "--report_to", "none", "--save_strategy", "epoch", "--use_cpu"]
    texts = {}

    def call(name, *argv, status=0):
        capfd.readouterr()
        assert main([name, *map(str, argv)]) == status, capfd.readouterr()
        texts[f"{name} {len(texts)}"] = capfd.readouterr()
        return texts[f"{name} {len(texts) - 1}"].out

    call("finetune", tiny_pth, url, "--output_dir", run, *training, "--hub_token", HUB_TOKEN)
    call("evaluate", run, url, "--split", "test", "--output_dir", tmp_path / "evaluated")
    for source in (local, url):
        call("prepare", source)
        call("audit", source, "--output_dir", tmp_path / f"audit{len(texts)}")
    call("plan", tiny_pth, url, *training[2:-3], "--json")
    call("prepare", local, "--manifest", write_manifest(local, tmp_path / "m.csv"))
    call("predict", run, url, "--output", tmp_path / "p.csv")
    call("predict", run, local / "test", f"{local}/none{CODES}.png", "--output", tmp_path / "q.csv", status=1)
    call("predict", run, url.replace("set.tar", f"none{CODES}.tar"), status=1)
    call("explain", run, "--data_dir", local, "--output_dir", tmp_path / "explained")
    call("probe", tiny_pth, url, "--num_attention_heads", 3, "--output_dir", tmp_path / "probe")
    call("report", run, "--output_dir", tmp_path / "report")
    call("shard", url, tmp_path / "shards")
    call("convert", tiny_pth, tmp_path / "converted", "--num_attention_heads", 3)
    call("export", run, tmp_path / "exported.pth")
    call("push-dataset", local, "--output_dir", tmp_path / "pushed")
    call("cache")
    monkeypatch.setenv(CREDENTIALS, "")  # a new process
    call("finetune", "--recipe", run / "recipe.yaml", "--output_dir", tmp_path / "repeated", status=1)
    assert shows(texts[f"finetune {len(texts) - 1}"].err, FileMessage.ADDRESS_WITHOUT_CREDENTIALS, address=hidden)
    printed = "".join(text.out + text.err for text in texts.values())
    assert not [line for line in printed.splitlines() if not line.replace("\t", "").isprintable()]
    assert not [secret for secret in (PASSWORD, TOKEN, KEY, HUB_TOKEN) if secret in printed]
    assert not find_secrets(tmp_path) and not find_secrets(Path(os.environ["HF_HOME"]))
