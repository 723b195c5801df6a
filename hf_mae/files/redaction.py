"""Removes passwords and tokens from what is printed and written.

Options hold addresses without their credentials (`hide_credentials`), so that no record, cache or message contains
them; `restore_credentials` adds them again when the address is opened. `redact` removes secrets from a text.
"""

import json
import os
import re
from typing import Any, TypeVar
from urllib.parse import unquote

from ..errors import UsageError
from .messages import FileMessage

REDACTED = "REDACTED"
CREDENTIALS = "HF_MAE_CREDENTIALS"  # environment variable for child processes: JSON, hidden address -> address
MIN_LENGTH = 8  # of the value of an environment variable that is a secret
SECRET_VARIABLE = re.compile(
    r"(?:.*_)?(TOKEN|KEY|SECRET|PASSWORD|PASSWD|AUTH|CREDENTIALS?)(?:_(?!PATH|FILE|SOCK|DIR|HOME|TIMEOUT).*)?", re.I
)
USER = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/?#\"'<>]*@", re.I)
_NAME = (
    r"[\w.%-]*(?:token|signature|secret|passw(?:or)?d|pwd|credentials?|auth|key|key-pair-id|policy)|sig|user(?:name)?"
)
PARAMETER = re.compile(rf"([?&;#](?:{_NAME})=)([^&;\s#\"'<>]+)", re.I)
_OPTION = (
    r"[\w-]*(?:passwords?|passwd|secret)|[\w-]*(?:api|access|secret|private|account)[_-]key"
    r"|(?:[\w-]*[_-])?(?:hub|hf|push|api|access|auth|bearer|refresh|session|security|id)[_-]token"
)
PATTERNS = (
    (re.compile(rf'("(?:{_OPTION})"\s*:\s*)"(?:[^"\\]|\\.)+"', re.I), rf'\1"{REDACTED}"'),
    (re.compile(rf"('(?:{_OPTION})'\s*:\s*)'(?:[^'\\]|\\.)+'", re.I), rf"\1'{REDACTED}'"),
    (
        re.compile(rf"((?<![\w\"'-])(?:--)?(?:{_OPTION})\s*(?:=|:\s)\s*)(?!null\b|none\b)[^\s,;&\"'\\)\]}}]+", re.I),
        rf"\1{REDACTED}",
    ),
    (re.compile(rf"(--(?:{_OPTION})\s+)(?!-)[^\s\"'\\]+", re.I), rf"\1{REDACTED}"),
    (re.compile(r"\b([A-Z0-9_]*(?:TOKEN|KEY|SECRET|PASSWORD|AUTH|CREDENTIALS?)=)[^\s\"'\\,;&]+"), rf"\1{REDACTED}"),
    (re.compile(r"(authorization[\"']?\s*[:=]\s*[\"']?(?:basic|bearer|token)\s+)[\w.~+/=-]+", re.I), rf"\1{REDACTED}"),
    (re.compile(r"\b(?:hf_[A-Za-z0-9]{16,}|gh[opsu]_\w{20,}|github_pat_\w{20,}|AKIA[0-9A-Z]{16})\b"), REDACTED),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), REDACTED),  # a JSON web token
)
T = TypeVar("T")
_known_secrets: set[str] = set()


def redact(text: str) -> str:
    """Removes secrets from a text: credentials in addresses, values of options and variables such as `hub_token`,
    tokens of known services, and the values of environment variables whose name is that of a secret."""
    text = _hide(text)
    for pattern, replacement in PATTERNS:
        text = pattern.sub(replacement, text)
    for secret in _find_secrets():
        text = text.replace(secret, REDACTED)
    return text


def remember_secret(value: object) -> None:
    """Makes `redact` remove a value, e.g. that of `--hub_token`."""
    if isinstance(value, str) and value:
        _known_secrets.add(value)


def hide_credentials(value: T) -> T:
    """Returns an address, or a list of them, without user, password and token; other values unchanged."""
    if isinstance(value, list):
        return type(value)(map(hide_credentials, value))
    if not isinstance(value, str) or "://" not in value or (hidden := _hide(value)) == value:
        return value
    os.environ[CREDENTIALS] = json.dumps(_read_credentials() | {hidden: str(value)})
    return type(value)(hidden)


def restore_credentials(address: str) -> str:
    """Returns an address with what `hide_credentials` removed from it, or from another one on the same server.

    Raises:
        UsageError: If it is not known, e.g. because the address is that of a saved recipe.
    """
    if REDACTED not in address:
        return address
    known = {hidden: full for hidden, full in _read_credentials().items() if _server(hidden) == _server(address)}
    if not known:
        raise UsageError(FileMessage.ADDRESS_WITHOUT_CREDENTIALS, address=address)
    nearest = max(known, key=lambda hidden: len(os.path.commonprefix([hidden, address])))
    restored = address.replace(_server(nearest), _server(known[nearest]), 1)
    return restored.replace(_query(nearest), _query(known[nearest]), 1) if _query(nearest) else restored


def _hide(text: str) -> str:
    if "://" not in text:
        return text
    return PARAMETER.sub(rf"\1{REDACTED}", USER.sub(rf"\1{REDACTED}@", text))


def _read_credentials() -> dict[str, str]:
    return dict[str, str](json.loads(os.environ.get(CREDENTIALS) or "{}"))


def _server(address: str) -> str:
    return address.partition("://")[2].partition("?")[0].partition("/")[0]


def _query(address: str) -> str:
    return address.partition("?")[2]


def _find_secrets() -> list[str]:
    """Returns the values to remove, longest first."""
    found = set(_known_secrets)
    for name, value in os.environ.items():
        if name == CREDENTIALS:
            addresses: Any = json.loads(value or "{}").values()
        elif SECRET_VARIABLE.fullmatch(name) and len(value) >= MIN_LENGTH:
            found.add(value)
            continue
        else:
            addresses = [value] if "://" in value and "@" in value else []
        for address in addresses:
            password = _server(address).rpartition("@")[0].partition(":")[2]
            found |= {password, unquote(password), *(match[2] for match in PARAMETER.finditer(address))}
    return sorted((secret for secret in found if len(secret) >= 4), key=len, reverse=True)
