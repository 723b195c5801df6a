"""The demo: its page in a real browser, its request handlers, and the Space."""

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
from support.messages import raises, shows
from support.paths import ROOT

from hf_mae.evaluation.messages import EvaluationMessage
from hf_mae.models.loading import class_names, load_classifier
from hf_mae.reporting.explanations import explain_batch
from hf_mae.sharing.demo import Classifier
from hf_mae.sharing.demo_metadata import build_demo_metadata
from hf_mae.sharing.messages import SharingMessage
from hf_mae.sharing.space import app as space_app
from hf_mae.sharing.space.app import DemoModel, Handlers, UserError
from hf_mae.workflows.demo import load_training_images
from hf_mae.workflows.messages import WorkflowMessage


def most_confident_image(run, toy):
    """Path and class of the correctly classified test image with the highest score."""
    with open(run / "predictions_test.csv") as file:
        correct = [row for row in csv.DictReader(file) if row["prediction"] == row["label"]]
    best = max(correct, key=lambda row: float(row["score"]))
    return toy / "labelled" / best["file_name"], best["label"]


@contextmanager
def serve(run, *argv):
    """Runs the demo; yields its URL, port and process id."""
    port = free_port()
    command = [sys.executable, "-m", "hf_mae", "demo", run, "--port", port, *argv]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GRADIO_ANALYTICS_ENABLED": "False", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, text=True, cwd=ROOT.parent, env=environment
    )
    try:
        line = process.stdout.readline()
        assert f"http://127.0.0.1:{port}" in line, line
        yield f"http://127.0.0.1:{port}", port, process.pid
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


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

    deadline = time.time() + seconds
    while time.time() < deadline:
        page_text = browser.find_element(By.TAG_NAME, "body").text
        if text in page_text:
            return page_text
        time.sleep(0.2)
    raise AssertionError(f"{text!r} does not appear on the page: {page_text}")


def emulate_phone(browser):
    """Sets a screen of 390 x 844 pixels."""
    screen = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


def save_screenshot(browser, name):
    """Saves a screenshot in the folder HF_MAE_SCREENSHOTS, if that is set."""
    if folder := os.environ.get("HF_MAE_SCREENSHOTS"):
        Path(folder, f"{name}.png").write_bytes(browser.get_screenshot_as_png())


@pytest.mark.slow
def test_an_uploaded_image_is_classified(finetuned, toy, browser, tmp_path):
    from selenium.webdriver.common.by import By

    image, expected = most_confident_image(finetuned(), toy)
    with serve(finetuned(), "--data_dir", toy / "labelled") as (url, port, _):
        browser.get(url)
        wait_for(browser, "Drop an image")
        listeners = subprocess.run(["cat", "/proc/net/tcp", "/proc/net/tcp6"], capture_output=True, text=True).stdout
        own = [line.split() for line in listeners.splitlines() if f":{port:04X} 00000000" in line]
        assert own and all(line[1] == f"0100007F:{port:04X}" for line in own)  # loopback only
        inputs = browser.find_elements(By.CSS_SELECTOR, "input[type=file]")
        inputs[0].send_keys(str(image))
        wait_for(browser, f"Grad-CAM of {expected}")
        label = browser.find_element(By.CSS_SELECTOR, "[data-testid=label-output-value]").text
        assert label == expected
        text = wait_for(browser, "Similar training images")
        assert f"Grad-CAM of {expected}" in text and text.count("(0.") + text.count("(1.") + text.count("(-") >= 6
        assert f"{expected}: Correct in " in text and space_app.INPUT_CAPTION in text
        save_screenshot(browser, "page")
        emulate_phone(browser)
        for tab in ("Folder", "Video", "Model", "Image"):
            browser.find_element(By.XPATH, f"//button[@role='tab' and contains(., '{tab}')]").click()
            time.sleep(0.3)
            page, screen = browser.execute_script("return [document.body.scrollWidth, window.innerWidth]")
            assert page <= screen == 390, f"{tab} is {page} pixels wide on a phone"
            save_screenshot(browser, f"phone {tab}")
        # A file that is not an image gives an error message, and the page still works.
        (tmp_path / "note.png").write_text("not an image")
        browser.refresh()
        wait_for(browser, "Drop an image")
        browser.find_elements(By.CSS_SELECTOR, "input[type=file]")[0].send_keys(str(tmp_path / "note.png"))
        wait_for(browser, "cannot be read as an image")


@pytest.mark.launch
def test_concurrent_requests_and_invalid_uploads(finetuned, toy):
    """50 concurrent requests and 200 invalid uploads: each gets a response without a path, and the memory of the
    process does not grow. Files of this machine are not served."""
    import httpx

    image, expected = most_confident_image(finetuned(), toy)
    content = image.read_bytes()
    broken = [("a.jpg", content[:900]), ("b.png", b"\x00" * 2000), ("c.exe", b"MZ"), ("<b>d</b>.png", content[-500:])]

    with serve(finetuned()) as (url, _, pid), httpx.Client(base_url=f"{url}/gradio_api", timeout=120) as client:

        def upload(name: str, content: bytes) -> str:
            return client.post("/upload", files=[("files", (name, content))]).json()[0]

        def classify(path: str) -> str:
            body = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}
            event = client.post("/call/classify", json=body).json()["event_id"]
            return client.get(f"/call/classify/{event}").text

        def memory_mb() -> float:
            return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6

        path = upload("good.jpg", content)
        assert f'"label": "{expected}"' in classify(path)
        before = memory_mb()
        with ThreadPoolExecutor(50) as pool:
            assert all(f'"label": "{expected}"' in text for text in pool.map(classify, [path] * 50))
            texts = list(pool.map(lambda number: classify(upload(*broken[number % 4])), range(200)))
        for text in texts:
            assert text.startswith("event: error") and "cannot be read as an image" in text, text
            assert "/tmp" not in text and "Traceback" not in text and "<b>" not in text
        assert memory_mb() < before + 150
        assert client.post("/upload", files=[("files", ("big.mp4", b"x" * 106_000_000))]).status_code == 413
        for other in ("/etc/passwd", "../../etc/passwd", "setup.cfg", f"{url}/x.png"):
            assert classify(other).startswith("event: error")


@pytest.fixture(scope="module")
def classifier(finetuned):
    """The model of a run, with the texts from its folder."""
    model, processor = load_classifier(str(finetuned()))
    return Classifier(model, processor, build_demo_metadata(finetuned(), class_names(model)))


def test_the_number_of_files_and_the_time_are_limited(classifier, toy, monkeypatch):
    handlers = Handlers(classifier)
    paths = [str(path) for path in sorted((toy / "labelled" / "test").rglob("*.jpg"))[:3]]
    rows, table = handlers.classify_files(paths)
    assert [len(row) for row in rows] == [3, 3, 3] and all(float(row[2]) > 0 for row in rows)
    with open(table, newline="") as file:
        assert list(csv.reader(file)) == [["file", "class", "score"], *rows]
    monkeypatch.setattr(space_app, "MAX_SECONDS", -1)
    assert [row[1:] for row in handlers.classify_files(paths)[0]] == [["skipped: time limit reached", ""]] * 3
    monkeypatch.setattr(space_app, "MAX_FILES", 2)
    with pytest.raises(gradio.Error, match="Received 3 files; the limit is 2"):
        handlers.classify_files(paths)
    with pytest.raises(gradio.Error, match="Drop a folder"):
        handlers.classify_files([])


def test_one_frame_per_second_of_a_video_is_classified(classifier, toy, tmp_path, monkeypatch):
    import cv2

    images = [cv2.imread(str(path)) for path in sorted((toy / "labelled" / "test").rglob("*.jpg"))[:3]]
    video = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (64, 64))
    for image in images:
        for _ in range(5):
            video.write(image)
    video.release()
    handlers = Handlers(classifier)
    rows, table = handlers.classify_video(str(tmp_path / "a.avi"))
    assert [row[0] for row in rows] == ["0.0", "1.0", "2.0"]
    assert Path(table).read_text().splitlines()[0] == "second,class,score"
    stock = DemoModel(classifier.model, classifier.processor, classifier.metadata)
    assert Handlers(stock).classify_video(str(tmp_path / "a.avi"))[0] == rows
    (tmp_path / "b.mp4").write_bytes(b"not a video")
    for model in (classifier, stock):
        with pytest.raises(gradio.Error, match="b.mp4 cannot be read as a video"):
            Handlers(model).classify_video(str(tmp_path / "b.mp4"))
    warnings = []
    monkeypatch.setattr(space_app, "MAX_FRAMES", 2)
    monkeypatch.setattr(gradio, "Warning", warnings.append)
    assert len(handlers.classify_video(str(tmp_path / "a.avi"))[0]) == 2 and "Only the first 2 seconds" in warnings[0]


def test_uploads_are_checked(classifier, finetuned, toy, tmp_path, monkeypatch):
    path, label = most_confident_image(finetuned(), toy)
    scores, text, visualizations, similar = Handlers(classifier).classify_image(str(path))
    assert max(scores, key=scores.get) == label and sum(scores.values()) == pytest.approx(1)
    assert similar == [] and [caption for _, caption in visualizations] == [
        space_app.INPUT_CAPTION,
        f"Grad-CAM of {label}",
    ]
    assert f"**{label}**: Correct in " in text and "test images with this prediction" in text
    for name, content, message in (
        ("a.png", b"MZ", "cannot be read as an image"),
        ("big.jpg", b"x" * 20_000_001, "is larger than 20 MB"),
    ):
        (tmp_path / name).write_bytes(content)
        for model in (classifier, DemoModel(classifier.model, classifier.processor, classifier.metadata)):
            with pytest.raises(UserError, match=message):
                model.read(str(tmp_path / name))
    monkeypatch.setattr("hf_mae.sharing.space.app.MAX_PIXELS", 100)
    with pytest.raises(UserError, match="million pixels"):
        classifier.read(str(path))
    assert Handlers(classifier).classify_image(None) == (None, "", [], [])


def test_scores_are_calibrated_and_equal_those_of_predict(finetuned, classifier, toy, tmp_path):
    """The temperature of the run is used; Grad-CAM is that of `explain`."""
    image, _ = most_confident_image(finetuned(), toy)
    logits = classifier.logits(classifier.read(str(image)))
    classifier.metadata.temperature = 2.0
    try:
        run_cli("predict", finetuned(), image, "--temperature", 2, "--output", tmp_path / "out.csv")
        with open(tmp_path / "out.csv") as file:
            (row,) = csv.DictReader(file)
        scores = classifier.scores(logits)
        assert float(row["score_1"]) == pytest.approx(max(scores.values()), abs=1e-5)
        classifier.metadata.class_temperatures = dict.fromkeys(classifier.names, 7.0) | {row["label_1"]: 2.0}
        assert classifier.scores(logits) == scores  # the temperature of the predicted class
    finally:
        classifier.metadata.temperature = 1.0
        classifier.metadata.class_temperatures = {}
    pixels = classifier.read(str(image))
    (model_input, _), (overlay, caption) = classifier.visualizations(pixels)
    (explanation,) = explain_batch(classifier.model, classifier.processor, classifier.preprocess(pixels), [""])
    assert caption == f"Grad-CAM of {explanation.target}" and model_input.tobytes() == explanation.image.tobytes()
    assert np.corrcoef(np.ravel(overlay), np.ravel(explanation.grad_cam))[0, 1] > 0.95


def test_similar_images_are_nearest_neighbours_in_the_training_set(classifier, toy):
    model, processor = classifier.model, classifier.processor
    demo = Classifier(model, processor, training=load_training_images(str(toy / "labelled"), model, processor))
    path = toy / "labelled" / "train" / "ring" / "ring_003.jpg"
    captions = [caption for _, caption in demo.similar_images(demo.read(str(path)))]
    assert captions[0] == "ring (1.00)" and len(captions) == 6  # the first is the image itself
    similarity = [float(caption[-5:-1]) for caption in captions]
    assert similarity == sorted(similarity, reverse=True)
    assert (demo.features @ demo.features.T).min() < -0.5, "centred features point in all directions"


def test_the_operating_point_is_chosen_on_validation_and_described(finetuned, tmp_path):
    run = finetuned()
    names = ["blob", "folds", "ring"]
    notes = tmp_path / "notes.csv"
    notes.write_text("class,note\nblob,Something round.\n")
    metadata = build_demo_metadata(
        run, names, positive=["blob"], operating_point="sensitivity=0.9", class_notes=str(notes)
    )
    with open(run / "predictions_validation.csv") as file:
        rows = list(csv.DictReader(file))
    scores = sorted((float(row["score:blob"]) for row in rows if row["label"] == "blob"), reverse=True)
    assert metadata.threshold == pytest.approx(scores[int(np.ceil(0.9 * len(scores))) - 1], abs=1e-6)
    assert "chosen on the validation split" in metadata.operating_point and "sensitivity" in metadata.operating_point
    assert metadata.classes["blob"].startswith("Something round. Correct in ")
    assert any(line.startswith("Images of labelled: train 60") for line in metadata.description)
    assert any("of the test split: macro F1" in line for line in metadata.description)
    for options, message in (
        ({"positive": ["blop"]}, EvaluationMessage.UNKNOWN_POSITIVE_CLASS),
        ({"positive": names}, EvaluationMessage.ALL_CLASSES_POSITIVE),
        ({"operating_point": "youden"}, SharingMessage.OPERATING_POINT_WITHOUT_CLASSES),
        ({"class_notes": str(tmp_path / "none.csv")}, SharingMessage.INVALID_CLASS_NOTES),
    ):
        with raises(message):
            build_demo_metadata(run, names, **options)


def test_a_space_runs_without_hf_mae(finetuned, toy, tmp_path):
    """The files of `push --demo` are run like in a Space, and give the same results as the demo."""
    import httpx

    image, expected = most_confident_image(finetuned(), toy)
    port = free_port()
    with fake_hub.run_fake_hub() as (server, url):
        env = fake_hub.hub_environment(url, tmp_path)
        name = f"{fake_hub.USER}/polyps"
        done = run_cli("push", finetuned(), "--repo_id", name, "--demo", env=env)
        assert f"The demo is at {url}/spaces/{name}" in done.stderr
        (files,) = server.repos[f"spaces/{name}"]
        assert server.created[-1]["sdk"] == "gradio" and f"models:\n- {name}" in files["README.md"].decode()
        for path, content in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(content)
        code = "import runpy, sys; sys.modules['hf_mae'] = None; runpy.run_path('app.py', run_name='__main__')"
        environment = os.environ | env | {"GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False"}
        process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}/gradio_api", timeout=60) as client:

                def is_reachable():
                    try:
                        return client.get("/info").status_code == 200
                    except httpx.TransportError:
                        return False

                wait_until(is_reachable, 90, "the Space")
                content = image.read_bytes()
                path = client.post("/upload", files=[("files", (image.name, content))]).json()[0]
                body = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}
                event = client.post("/call/classify", json=body).json()["event_id"]
                result = client.get(f"/call/classify/{event}").text
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
    assert f'"label": "{expected}"' in result and f"Grad-CAM of {expected}" in result


def test_a_port_in_use_is_reported(finetuned):
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        done = run_cli("demo", finetuned(), "--port", port, status=1)
    assert shows(done.stderr, WorkflowMessage.PORT_UNAVAILABLE, port=port, host="127.0.0.1")


@pytest.fixture(scope="module")
def hostile_server(tmp_path_factory):
    """A running page with a tiny model; yields a client of its interface and the class of the model's images."""
    import httpx
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    config = ViTConfig(image_size=16, patch_size=8, id2label={0: "polyp", 1: "normal"}, **sizes)
    processor = ViTImageProcessor(size={"height": 16, "width": 16})
    model = DemoModel(ViTForImageClassification(config).eval(), processor, space_app.DemoMetadata("page", "model"))
    port = free_port()
    blocks = space_app.launch_demo(
        model, server_name="127.0.0.1", server_port=port, quiet=True, prevent_thread_lock=True
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/gradio_api", timeout=60) as client:
        yield client
    blocks.close()


def upload_file(client, name: str, content: bytes) -> str:
    return client.post("/upload", files=[("files", (name, content))]).json()[0]


def call(client, api_name: str, data) -> str:
    """The answer of a handler to a value that a visitor sends."""
    response = client.post(f"/call/{api_name}", json={"data": [data]})
    if response.status_code != 200:
        return response.text
    return client.get(f"/call/{api_name}/{response.json()['event_id']}").text


META = {"meta": {"_type": "gradio.FileData"}}


def hostile_values(private: Path, uploads: Path, upload: str) -> dict[str, tuple[str, object]]:
    """Name -> handler and value: files that were not uploaded, and uploads with other paths."""
    link, folder_link = uploads / "link.png", uploads / "folder"
    link.symlink_to(private)
    folder_link.symlink_to(private.parent)
    url = "http://127.0.0.1:9/x.png"
    return {
        "path": ("classify", {"path": str(private)}),
        "path with meta": ("classify", {"path": str(private)} | META),
        "path with empty meta": ("classify", {"path": str(private), "meta": {}}),
        "path and url": ("classify", {"path": str(private), "url": url}),
        "path and orig_name": ("classify", {"path": str(private), "orig_name": Path(upload).name}),
        "stream": ("classify", {"path": str(private), "is_stream": True}),
        "stream with meta": ("classify", {"path": str(private), "is_stream": True} | META),
        "missing file": ("classify", {"path": "/no/such/file.png"}),
        "file URL": ("classify", {"path": private.as_uri()}),
        "web address": ("classify", {"path": url}),
        "web address with meta": ("classify", {"path": url} | META),
        "public address": ("classify", {"path": "http://192.0.2.1/x.png"} | META),
        "UNC path": ("classify", {"path": "\\\\server\\share\\x.png"} | META),
        "out of the folder": ("classify", {"path": f"{uploads}/../{private.parent.name}/{private.name}"}),
        "link": ("classify", {"path": str(link)}),
        "link with meta": ("classify", {"path": str(link)} | META),
        "folder that is a link": ("classify", {"path": str(folder_link / private.name)} | META),
        "the folder": ("classify", {"path": str(uploads)}),
        "null byte": ("classify", {"path": f"{upload}\0.png"}),
        "a long name": ("classify", {"path": f"{uploads}/{'x' * 5000}"}),
        "relative path": ("classify", {"path": os.path.relpath(private)}),
        "text": ("classify", str(private)),
        "a list": ("classify", [{"path": str(private)}]),
        "files": ("classify_files", [{"path": str(private)} | META]),
        "files without meta": ("classify_files", [{"path": str(private)}]),
        "files by address": ("classify_files", [{"path": url} | META]),
        "an upload and another file": ("classify_files", [{"path": upload} | META, {"path": str(link)} | META]),
        "video": ("classify_video", {"path": str(private.with_suffix(".avi"))} | META),
        "video by address": ("classify_video", {"path": "http://127.0.0.1:9/x.mp4"} | META),
        "link to a video": ("classify_video", {"path": str(folder_link / f"{private.stem}.avi")} | META),
    }


def test_hostile_requests_read_only_uploads(hostile_server, toy, tmp_path, monkeypatch):
    """Thirty requests with a file that was not uploaded get an answer without its class, picture and existence."""
    import cv2

    private = tmp_path / "private" / "p.png"
    private.parent.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    cv2.imwrite(str(private), pixels)
    video = cv2.VideoWriter(str(private.with_suffix(".avi")), cv2.VideoWriter.fourcc(*"MJPG"), 1, (64, 64))
    video.write(pixels)
    video.release()
    client, content = hostile_server, private.read_bytes()
    upload = upload_file(client, "../../p<b>.png", content)
    uploads = Path(os.environ["GRADIO_TEMP_DIR"])
    assert uploads.stat().st_mode & 0o77 == 0 and Path(upload).resolve().is_relative_to(uploads.resolve())
    assert '"confidences"' in call(client, "classify", {"path": upload} | META)
    answers = {}
    for name, (handler, value) in hostile_values(private, uploads, upload).items():
        answers[name] = call(client, handler, value)
    answered = {name: text for name, text in answers.items() if "event: complete" in text}
    assert not answered and len(answers) == 30
    assert not any("/private" in text or "Traceback" in text for text in answers.values()), answers
    monkeypatch.chdir(tmp_path)
    for path in (
        f"/file={private}",
        f"/file={uploads}/link.png",
        "/file=http://127.0.0.1:9/x",
        "/file=HTTPS://1.1.1.1/",
    ):
        assert client.get(path).status_code == 403
    for path in ("/proxy=http://127.0.0.1:9/x", "/file=private/p.png"):
        assert client.get(path).status_code in (400, 403, 404)
    with monkeypatch.context() as limits:
        limits.setattr(space_app, "MAX_UPLOAD_MB", 0.001)
        assert client.post("/upload", files=[("files", ("a.png", content))]).status_code == 413
    assert client.post("/call/classify", content=b" " * 1_100_000).status_code == 413
    assert client.post("/call/classify", content=iter([b"{", b"}"])).status_code == 413
    joined = {
        "data": [{"path": str(private)}],
        "fn_index": 0,
        "session_hash": "s",
        "event_data": {"path": str(private)},
    }
    client.post("/queue/join", json=joined)
    with client.stream("GET", "/queue/data", params={"session_hash": "s"}) as stream:
        lines = next(line for line in stream.iter_lines() if "process_completed" in line)
    assert '"success":false' in lines and "confidences" not in lines


def test_hostile_uploads_are_not_classified(hostile_server, tmp_path):
    """Lists of videos, images of many frames or pixels, and text that a browser would run."""
    import io

    from PIL import Image

    target = tmp_path / "x.avi"
    target.write_bytes(b"")
    frames, animation = [Image.new("L", (8, 8), number) for number in range(3)], io.BytesIO()
    frames[0].save(animation, "GIF", save_all=True, append_images=frames[1:])
    bomb = io.BytesIO()
    Image.new("1", (13_000, 13_000)).save(bomb, "PNG")
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/><script>alert(1)</script></svg>"
    for name, content in (("a.gif", animation.getvalue()), ("a.png", bomb.getvalue()), ("a.png", svg), ("a.svg", svg)):
        text = call(hostile_server, "classify", {"path": upload_file(hostile_server, name, content)} | META)
        assert text.startswith("event: error") and name in text, text
    for content in (f"#EXTM3U\n#EXTINF:1,\n{target}\n", f"ffconcat version 1.0\nfile {target}\n", "v=0\nm=video 9 RTP"):
        path = upload_file(hostile_server, "a.mp4", content.encode())
        text = call(hostile_server, "classify_video", {"path": path} | META)
        assert "a.mp4 cannot be read as a video (a playlist, not a video)" in text
