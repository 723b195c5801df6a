"""Secrets do not appear in what is printed and written; an address is still opened with its password."""

import json

import pytest
from support.messages import raises

from hf_mae.files import redaction
from hf_mae.files.archive_members import convert_remote_errors, file_system
from hf_mae.files.atomic import write_json, write_text
from hf_mae.files.messages import FileMessage
from hf_mae.files.redaction import CREDENTIALS, hide_credentials, redact, remember_secret, restore_credentials

SECRET = "Zq7secretZq7"


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch):
    monkeypatch.setenv(CREDENTIALS, "")
    monkeypatch.setattr(redaction, "_known_secrets", set())


@pytest.mark.parametrize(
    "text",
    [
        *(f"{scheme}://reader:{SECRET}@host/x" for scheme in ("http", "https", "s3", "hf", "git+ssh", "ftp", "HTTPS")),
        f"https://{SECRET}@host",
        f"http://reader:a@{SECRET}@[::1]:80/x.tar::12+34",
        f"cannot reach 'http://reader:{SECRET}@host/x': 401",
        f"HTTP_PROXY=http://u:{SECRET}@proxy:3128",
        f"https://host/x.tar?token={SECRET}",
        f"https://host/x.tar?part=1&X-Amz-Signature={SECRET}&part=2",
        f"https://host/x.tar?sv=2022&sig={SECRET}",
        f"https://host/x?X-Amz-Credential={SECRET}%2F2026",
        f"https://host/x?access_token={SECRET}",
        f"https://host/#access_token={SECRET}",
        f"--hub_token {SECRET}",
        f"--hub-token={SECRET} --seed 1",
        f"hub_token: {SECRET}",
        f'{{"hub_token": "{SECRET}"}}',
        f"{{'push_token': '{SECRET}'}}",
        f'"api_key": "a\\"{SECRET}"',
        f"MLFLOW_TRACKING_PASSWORD={SECRET}",
        f"WANDB_API_KEY={SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"hf_{SECRET}AbCdEfGh",
        f"ghp_{SECRET}AbCdEfGh",
    ],
)
def test_secrets_are_removed_from_texts(text):
    cleaned = redact(text)
    assert SECRET not in cleaned and redaction.REDACTED in cleaned
    assert redact(cleaned) == cleaned
    if text.startswith("{") and '"' in text:
        json.loads(cleaned)


@pytest.mark.parametrize(
    "text",
    [
        "hf://datasets/owner/name@revision/train.tar",
        "https://host/x.tar?design=3&page=2",
        "Pooling: cls (the class token).",
        "No Hugging Face token was found. Run `hf auth login`, or set HF_TOKEN.",
        "ask x@host, or read https://host/page",
        '{"hub_token": null, "num_tokens": 12, "monkey": "x", "key": "column"}',
        "hf_mae 0.1.0; hf_evaluate; keys=2",
        "tokens: 196; key: value; C:\\images\\x.png; classes: password",
    ],
)
def test_other_texts_stay(text):
    assert redact(text) == text


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "my_credential", "X_AUTH"],
)
def test_values_of_secret_variables_are_removed(name, monkeypatch):
    value = "0123456789abcdef0123456789abcdef01234567"
    assert redact(value) == value
    monkeypatch.setenv(name, value)
    assert redact(f"invalid: {value}!") == "invalid: REDACTED!"


def test_other_variables_and_given_tokens(monkeypatch):
    for name in ("SSH_AUTH_SOCK", "HF_TOKEN_PATH", "GIT_AUTHOR_NAME", "KEYBOARD"):
        monkeypatch.setenv(name, "/tmp/agent")
    assert redact("/tmp/agent") == "/tmp/agent"
    monkeypatch.setenv("HTTPS_PROXY", f"http://u:{SECRET}@proxy")
    assert redact(f"the proxy rejected {SECRET}") == "the proxy rejected REDACTED"
    remember_secret("given-token")
    assert redact("given-token is invalid") == "REDACTED is invalid"


@pytest.mark.parametrize(
    ("address", "hidden"),
    [
        (f"http://u:{SECRET}@h:80/a.tar", "http://REDACTED@h:80/a.tar"),
        (f"http://h/a.tar?x=1&sig={SECRET}", "http://h/a.tar?x=1&sig=REDACTED"),
        (f"s3://u:{SECRET}%40@h/*.tar", "s3://REDACTED@h/*.tar"),
    ],
)
def test_hidden_addresses_are_opened_with_their_credentials(address, hidden):
    assert hide_credentials(address) == hidden and hide_credentials(hidden) == hidden
    assert restore_credentials(hidden) == address
    hide_credentials(f"http://other:{SECRET}2@h2/b.tar")
    assert restore_credentials(hidden) == address
    if "?" not in address:  # another file of the same server
        assert restore_credentials(f"{hidden}.parquet") == f"{address}.parquet"
    password = SECRET + "@" * ("%40" in address)
    assert SECRET not in redact(f"{password} and {address}")


def test_other_values_are_not_changed():
    assert hide_credentials(["a", f"http://{SECRET}@h"]) == ["a", "http://REDACTED@h"]
    for value in (None, 3, "folder", "http://h/a.tar", "hf://datasets/a/b@main"):
        assert hide_credentials(value) == value and (not isinstance(value, str) or restore_credentials(value) == value)


def test_an_address_of_a_saved_recipe_needs_its_password():
    for address in ("http://REDACTED@h/a.tar", "http://h/a.tar?token=REDACTED"):
        with raises(FileMessage.ADDRESS_WITHOUT_CREDENTIALS, address=address):
            file_system(address)


def test_written_files_and_remote_errors_have_no_secret(tmp_path):
    write_text(tmp_path / "a", f"data: http://u:{SECRET}@h/a.tar\n")
    assert (tmp_path / "a").read_text() == "data: http://REDACTED@h/a.tar\n"
    write_json(tmp_path / "b", {"hub_token": SECRET, "data": [f"http://u:{SECRET}@h"], "hub_token_": None})
    assert json.loads((tmp_path / "b").read_text())["hub_token"] == "REDACTED"
    assert SECRET not in (tmp_path / "b").read_text()
    for error in (FileNotFoundError(f"http://u:{SECRET}@h"), ValueError(f"http://h?token={SECRET}")):
        with pytest.raises(OSError, match="REDACTED") as caught, convert_remote_errors():
            raise error
        assert SECRET not in str(caught.value)
