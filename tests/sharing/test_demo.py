"""The demo in a real browser: an image and a folder go in, the right class comes out."""

import csv
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import gradio
import pytest
from support.cli_process import run_cli
from support.launching import free_port
from support.paths import ROOT

from hf_mae.errors import UsageError
from hf_mae.models.loading import load_classifier
from hf_mae.sharing import demo
from hf_mae.sharing.demo import Classifier


def surest(run, toy):
    """The test image that the model is surest of, and right: its path and class."""
    with open(run / "predictions_test.csv") as file:
        right = [row for row in csv.DictReader(file) if row["prediction"] == row["label"]]
    best = max(right, key=lambda row: float(row["score"]))
    return toy / "labelled" / best["file_name"], best["label"]


@contextmanager
def served(run, *argv):
    """The demo's address."""
    port = free_port()
    command = [sys.executable, "-m", "hf_mae", "demo", run, "--port", port, *argv]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GRADIO_ANALYTICS_ENABLED": "False", "PYTHONUNBUFFERED": "1"}
    running = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, text=True, cwd=ROOT.parent, env=environment
    )
    try:
        line = running.stdout.readline()
        assert f"http://127.0.0.1:{port}" in line, line
        yield f"http://127.0.0.1:{port}", port, running.pid
    finally:
        running.send_signal(signal.SIGINT)
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            running.kill()


@pytest.fixture
def browser(chromium, tmp_path):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for flag in (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
        *(f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,1400"),
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, Service(str(chromium)))
    driver.set_page_load_timeout(60)
    try:
        yield driver
    finally:
        driver.quit()


def wait_for(browser, text, seconds=60):
    from selenium.webdriver.common.by import By

    end = time.time() + seconds
    while time.time() < end:
        seen = browser.find_element(By.TAG_NAME, "body").text
        if text in seen:
            return seen
        time.sleep(0.2)
    raise AssertionError(f"{text!r} does not come up; there is: {seen}")


@pytest.mark.slow
def test_upload_and_see(finetuned, toy, browser, tmp_path):
    from selenium.webdriver.common.by import By

    image, expected = surest(finetuned(), toy)
    with served(finetuned(), "--data_dir", toy / "labelled") as (url, port, _):
        browser.get(url)
        wait_for(browser, "Drop an image")
        listeners = subprocess.run(["cat", "/proc/net/tcp", "/proc/net/tcp6"], capture_output=True, text=True).stdout
        own = [line.split() for line in listeners.splitlines() if f":{port:04X} 00000000" in line]
        assert own and all(line[1] == f"0100007F:{port:04X}" for line in own)  # loopback alone
        inputs = browser.find_elements(By.CSS_SELECTOR, "input[type=file]")
        inputs[0].send_keys(str(image))
        wait_for(browser, "attention rollout")
        label = browser.find_element(By.CSS_SELECTOR, "[data-testid=label-output-value]").text
        assert label == expected
        seen = wait_for(browser, "Similar training images")
        assert f"Grad-CAM of {expected}" in seen and seen.count("(0.") + seen.count("(1.") >= 6
        (tmp_path / "page.png").write_bytes(browser.get_screenshot_as_png())
        if keep := os.environ.get("HF_MAE_SCREENSHOT"):
            (tmp_path / "page.png").rename(keep)
        # Something that is no image: a sentence, and the page goes on.
        (tmp_path / "note.png").write_text("no picture")
        browser.refresh()
        wait_for(browser, "Drop an image")
        browser.find_elements(By.CSS_SELECTOR, "input[type=file]")[0].send_keys(str(tmp_path / "note.png"))
        wait_for(browser, "cannot be read as an image")


@pytest.mark.launch
def test_many_at_once_and_many_broken_ones(finetuned, toy):
    """50 requests at a time and 200 uploads that are no images: each is answered, with a sentence that names no path,
    and the process does not grow. Files of this machine are not handed out."""
    import httpx

    image, expected = surest(finetuned(), toy)
    content = image.read_bytes()
    broken = [("a.jpg", content[:900]), ("b.png", b"\x00" * 2000), ("c.exe", b"MZ"), ("<b>d</b>.png", content[-500:])]

    with served(finetuned()) as (url, _, process), httpx.Client(base_url=f"{url}/gradio_api", timeout=120) as client:

        def upload(name: str, content: bytes) -> str:
            return client.post("/upload", files=[("files", (name, content))]).json()[0]

        def answer(path: str) -> str:
            asked = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}
            event = client.post("/call/classify", json=asked).json()["event_id"]
            return client.get(f"/call/classify/{event}").text

        def held() -> float:
            return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096 / 1e6

        path = upload("good.jpg", content)
        assert f'"label": "{expected}"' in answer(path)
        before = held()
        with ThreadPoolExecutor(50) as pool:
            assert all(f'"label": "{expected}"' in text for text in pool.map(answer, [path] * 50))
            texts = list(pool.map(lambda number: answer(upload(*broken[number % 4])), range(200)))
        for number, text in enumerate(texts):
            message = "is no image file" if number % 4 == 2 else "cannot be read as an image"
            assert text.startswith("event: error") and message in text, text
            assert "/tmp" not in text and "Traceback" not in text and "<b>" not in text
        assert held() < before + 150
        assert client.post("/upload", files=[("files", ("big.png", b"x" * 21_000_000))]).status_code == 413
        for elsewhere in ("/etc/passwd", "../../etc/passwd", "setup.cfg", f"{url}/x.png"):
            assert answer(elsewhere).startswith("event: error")


def test_the_files_of_a_folder_are_bounded(finetuned, toy, monkeypatch):
    model, processor = load_classifier(str(finetuned()))
    _, many = demo._answers(Classifier(model, processor))
    paths = [str(path) for path in sorted((toy / "labelled" / "test").rglob("*.jpg"))[:3]]
    assert [len(row) for row in many(paths)] == [3, 3, 3] and all(float(row[2]) > 0 for row in many(paths))
    monkeypatch.setattr(demo, "SECONDS", -1)
    assert [row[1:] for row in many(paths)] == [["left out: the time is up", ""]] * 3
    monkeypatch.setattr(demo, "FILES", 2)
    with pytest.raises(gradio.Error, match="3 files came, and 2 at most are classified"):
        many(paths)


def test_what_is_uploaded_is_checked(finetuned, toy, tmp_path, monkeypatch):
    model, processor = load_classifier(str(finetuned()))
    classifier = Classifier(model, processor)
    good, label = surest(finetuned(), toy)
    (scores,) = classifier.scores([classifier.read(str(good))])
    assert max(scores, key=scores.get) == label and sum(scores.values()) == pytest.approx(1)
    assert classifier.similar(classifier.read(str(good))) == []
    for name, content, message in (
        ("a.exe", b"MZ", "is no image file"),
        ("a.png", b"MZ", "cannot be read as an image"),
        ("big.jpg", b"x" * 20_000_001, "is larger than 20 MB"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=message):
            classifier.read(str(tmp_path / name))
    monkeypatch.setattr("hf_mae.sharing.demo.PIXELS", 100)
    with pytest.raises(UsageError, match="million pixels"):
        classifier.read(str(good))
    with pytest.raises(UsageError, match="Drop an image first"):
        classifier.read(None)


def test_similar_images_are_the_nearest_of_the_training_set(finetuned, toy):
    from hf_mae.workflows.demo import training_images

    model, processor = load_classifier(str(finetuned()))
    classifier = Classifier(model, processor, training_images(str(toy / "labelled"), model, processor))
    path = toy / "labelled" / "train" / "ring" / "ring_003.jpg"
    found = classifier.similar(classifier.read(str(path)))
    assert found[0][1] == "ring (1.00)" and len(found) == 6  # itself comes first


def test_a_port_that_is_taken(finetuned):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_cli("demo", finetuned(), "--port", port, status=1)
    assert f"Port {port} of 127.0.0.1 cannot be used" in done.stderr
