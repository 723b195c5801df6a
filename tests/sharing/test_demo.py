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
import numpy as np
import pytest
from support import fake_hub
from support.cli_process import run_cli
from support.distributed_runs import free_port
from support.distributed_runs import wait_for as wait_until
from support.paths import ROOT

from hf_mae.errors import UsageError
from hf_mae.models.loading import class_names, load_classifier
from hf_mae.sharing import space_app
from hf_mae.sharing.demo import Classifier
from hf_mae.sharing.demo_metadata import build_demo_metadata
from hf_mae.sharing.space_app import DemoModel, Handlers, UserError
from hf_mae.workflows.demo import load_training_images


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


def as_a_phone(browser):
    """A screen of 390 x 844 pixels."""
    screen = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


def keep_screenshot(browser, name):
    """For a person who wants to look: into the folder HF_MAE_SCREENSHOTS."""
    if folder := os.environ.get("HF_MAE_SCREENSHOTS"):
        Path(folder, f"{name}.png").write_bytes(browser.get_screenshot_as_png())


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
        assert f"Grad-CAM of {expected}" in seen and seen.count("(0.") + seen.count("(1.") + seen.count("(-") >= 6
        assert f"{expected}: Of " in seen and "as it is seen" in seen
        keep_screenshot(browser, "page")
        as_a_phone(browser)
        for tab in ("Folder", "Video", "Model", "Image"):
            browser.find_element(By.XPATH, f"//button[@role='tab' and contains(., '{tab}')]").click()
            time.sleep(0.3)
            wide = browser.execute_script("return [document.body.scrollWidth, window.innerWidth]")
            assert wide[0] <= wide[1] == 390, f"{tab} is {wide[0]} pixels wide on a phone"
            keep_screenshot(browser, f"phone {tab}")
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
        assert client.post("/upload", files=[("files", ("big.mp4", b"x" * 106_000_000))]).status_code == 413
        for elsewhere in ("/etc/passwd", "../../etc/passwd", "setup.cfg", f"{url}/x.png"):
            assert answer(elsewhere).startswith("event: error")


@pytest.fixture(scope="module")
def classifier(finetuned):
    """The model of a run, with what its folder tells."""
    model, processor = load_classifier(str(finetuned()))
    return Classifier(model, processor, build_demo_metadata(finetuned(), class_names(model)))


def test_the_files_of_a_folder_are_bounded(classifier, toy, monkeypatch):
    answers = Handlers(classifier)
    paths = [str(path) for path in sorted((toy / "labelled" / "test").rglob("*.jpg"))[:3]]
    rows, table = answers.classify_files(paths)
    assert [len(row) for row in rows] == [3, 3, 3] and all(float(row[2]) > 0 for row in rows)
    with open(table, newline="") as file:
        assert list(csv.reader(file)) == [["file", "class", "score"], *rows]
    monkeypatch.setattr(space_app, "MAX_SECONDS", -1)
    assert [row[1:] for row in answers.classify_files(paths)[0]] == [["left out: the time is up", ""]] * 3
    monkeypatch.setattr(space_app, "MAX_FILES", 2)
    with pytest.raises(gradio.Error, match="3 files came, and 2 at most are classified"):
        answers.classify_files(paths)
    with pytest.raises(gradio.Error, match="Drop a folder"):
        answers.classify_files([])


def test_a_video_is_classified_second_by_second(classifier, toy, tmp_path, monkeypatch):
    import cv2

    pictures = [cv2.imread(str(path)) for path in sorted((toy / "labelled" / "test").rglob("*.jpg"))[:3]]
    video = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (64, 64))
    for picture in pictures:
        for _ in range(5):
            video.write(picture)
    video.release()
    answers = Handlers(classifier)
    rows, table = answers.classify_video(str(tmp_path / "a.avi"))
    assert [row[0] for row in rows] == ["0.0", "1.0", "2.0"]
    assert Path(table).read_text().splitlines()[0] == "second,class,score"
    stock = DemoModel(classifier.model, classifier.processor, classifier.metadata)
    assert Handlers(stock).classify_video(str(tmp_path / "a.avi"))[0] == rows
    (tmp_path / "b.mp4").write_bytes(b"no video")
    for shown in (classifier, stock):
        with pytest.raises(gradio.Error, match="b.mp4 cannot be read as a video"):
            Handlers(shown).classify_video(str(tmp_path / "b.mp4"))
    warned = []
    monkeypatch.setattr(space_app, "MAX_FRAMES", 2)
    monkeypatch.setattr(gradio, "Warning", warned.append)
    assert len(answers.classify_video(str(tmp_path / "a.avi"))[0]) == 2 and "The first 2 seconds" in warned[0]


def test_what_is_uploaded_is_checked(classifier, finetuned, toy, tmp_path, monkeypatch):
    good, label = surest(finetuned(), toy)
    scores, words, pictures, similar = Handlers(classifier).classify_image(str(good))
    assert max(scores, key=scores.get) == label and sum(scores.values()) == pytest.approx(1)
    assert similar == [] and [title for _, title in pictures] == [
        "as it is seen",
        f"Grad-CAM of {label}",
        "attention rollout",
    ]
    assert f"**{label}**: Of " in words and "test images that it calls so" in words
    for name, content, message in (
        ("a.exe", b"MZ", "is no image file"),
        ("a.png", b"MZ", "cannot be read as an image"),
        ("big.jpg", b"x" * 20_000_001, "is larger than 20 MB"),
    ):
        (tmp_path / name).write_bytes(content)
        for shown in (classifier, DemoModel(classifier.model, classifier.processor, classifier.metadata)):
            with pytest.raises(UserError, match=message):
                shown.read(str(tmp_path / name))
    monkeypatch.setattr("hf_mae.sharing.demo.MAX_PIXELS", 100)
    with pytest.raises(UserError, match="million pixels"):
        classifier.read(str(good))
    assert Handlers(classifier).classify_image(None) == (None, "", [], [])


def test_the_scores_of_the_page_are_calibrated_and_those_of_predict(finetuned, classifier, toy, tmp_path):
    """The temperature of the run is used; the map of attention is the same with transformers alone."""
    image, _ = surest(finetuned(), toy)
    logits = classifier.logits(classifier.read(str(image)))
    classifier.metadata.temperature = 2.0
    try:
        run_cli("predict", finetuned(), image, "--temperature", 2, "--output", tmp_path / "out.csv")
        with open(tmp_path / "out.csv") as file:
            (row,) = csv.DictReader(file)
        scores = classifier.scores(logits)
        assert float(row["score_1"]) == pytest.approx(max(scores.values()), abs=1e-5)
        classifier.metadata.class_temperatures = dict.fromkeys(classifier.class_names, 7.0) | {row["label_1"]: 2.0}
        assert classifier.scores(logits) == scores  # of the predicted class
    finally:
        classifier.metadata.temperature = 1.0
        classifier.metadata.class_temperatures = {}
    stock = DemoModel(classifier.model, classifier.processor, classifier.metadata)
    opened = stock.read(str(image))
    (seen, _), (looked, title) = stock.visualizations(opened)
    (ours, _), _, (rollout, _) = classifier.visualizations(opened)
    assert title == "attention rollout" and seen.tobytes() == ours.tobytes()
    assert np.corrcoef(np.asarray(looked, float).ravel(), np.asarray(rollout, float).ravel())[0, 1] > 0.95


def test_similar_images_are_the_nearest_of_the_training_set(classifier, toy):
    model, processor = classifier.model, classifier.processor
    shown = Classifier(model, processor, training=load_training_images(str(toy / "labelled"), model, processor))
    path = toy / "labelled" / "train" / "ring" / "ring_003.jpg"
    found = [title for _, title in shown.similar_images(shown.read(str(path)))]
    assert found[0] == "ring (1.00)" and len(found) == 6  # itself comes first
    nearness = [float(title[-5:-1]) for title in found]
    assert nearness == sorted(nearness, reverse=True)
    everyone = shown.features @ shown.features.T
    assert everyone.min() < -0.5, "features less their mean point every way, so that nearness tells something"


def test_the_operating_point_is_chosen_on_validation_and_told(finetuned, tmp_path):
    run = finetuned()
    names = ["blob", "folds", "ring"]
    notes = tmp_path / "notes.csv"
    notes.write_text("class,note\nblob,Something round.\n")
    facts = build_demo_metadata(
        run, names, positive=["blob"], operating_point="sensitivity=0.9", class_notes=str(notes)
    )
    with open(run / "predictions_validation.csv") as file:
        rows = list(csv.DictReader(file))
    scores = sorted((float(row["score:blob"]) for row in rows if row["label"] == "blob"), reverse=True)
    assert facts.threshold == pytest.approx(scores[int(np.ceil(0.9 * len(scores))) - 1], abs=1e-6)
    assert "chosen on validation" in facts.operating_point and "sensitivity" in facts.operating_point
    assert facts.classes["blob"].startswith("Something round. Of ")
    assert any(line.startswith("Images of labelled: train 60") for line in facts.description)
    assert any("of the test split: macro F1" in line for line in facts.description)
    for given, message in (
        ({"positive": ["blop"]}, "no class blop .did you mean blob"),
        ({"positive": names}, "names every class"),
        ({"operating_point": "youden"}, "is of --positive"),
        ({"class_notes": str(tmp_path / "none.csv")}, "takes a CSV with the columns"),
    ):
        with pytest.raises(UsageError, match=message):
            build_demo_metadata(run, names, **given)


def test_a_space_runs_without_hf_mae(finetuned, toy, tmp_path):
    """What `push --demo` uploads is started as a Space does it, and answers as the demo does."""
    import httpx

    image, expected = surest(finetuned(), toy)
    port = free_port()
    with fake_hub.run_fake_hub() as (server, url):
        env = fake_hub.hub_environment(url, tmp_path)
        name = f"{fake_hub.USER}/polyps"
        done = run_cli("push", finetuned(), "--repo_id", name, "--demo", env=env)
        assert f"The page is at {url}/spaces/{name}" in done.stderr
        (files,) = server.repos[f"spaces/{name}"]
        assert server.created[-1]["sdk"] == "gradio" and f"models:\n- {name}" in files["README.md"].decode()
        for path, content in files.items():
            (tmp_path / path).write_bytes(content)
        start = "import runpy, sys; sys.modules['hf_mae'] = None; runpy.run_path('app.py', run_name='__main__')"
        environment = os.environ | env | {"GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False"}
        running = subprocess.Popen([sys.executable, "-c", start], cwd=tmp_path, env=environment)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}/gradio_api", timeout=60) as client:

                def reachable():
                    try:
                        return client.get("/info").status_code == 200
                    except httpx.TransportError:
                        return False

                wait_until(reachable, 90, "the Space")
                content = image.read_bytes()
                path = client.post("/upload", files=[("files", (image.name, content))]).json()[0]
                asked = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}
                event = client.post("/call/classify", json=asked).json()["event_id"]
                answer = client.get(f"/call/classify/{event}").text
        finally:
            running.send_signal(signal.SIGINT)
            running.wait(30)
    assert f'"label": "{expected}"' in answer and "attention rollout" in answer


def test_a_port_that_is_taken(finetuned):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_cli("demo", finetuned(), "--port", port, status=1)
    assert f"Port {port} of 127.0.0.1 cannot be used" in done.stderr
