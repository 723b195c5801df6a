"""The published copy of a run: the only place that decides which files and fields are uploaded.

Files and fields are on lists of allowed ones. Names that may identify a patient become random codes, and the texts are
searched for what must not be in them.
"""

import csv
import fnmatch
import getpass
import io
import json
import logging
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import ModelCard

from ..errors import UsageError, inform, warn
from ..files.atomic import csv_line, finite_or_null
from ..files.redaction import redact
from ..runs.identifiers import PSEUDONYMS_FILE, IdentifierKind, NameRules, Pseudonyms
from ..runs.predictions import LOGIT_PREFIX, METADATA_KEY, REQUIRED_COLUMNS, SCORE_PREFIX, hash_bytes
from ..runs.public_record import make_portable_recipe, make_public_record
from ..runs.record import ALL_RESULTS, FIGURES_DIR, RunRecord, run_name
from ..runs.record_io import read_record, record_to_dict
from .image_metadata import remove_metadata
from .messages import SharingMessage

logger = logging.getLogger(__name__)
REQUIRED_FILES = ("config.json", "model.safetensors", "README.md", ALL_RESULTS)
PREDICTION_COLUMNS = (*REQUIRED_COLUMNS, "score")  # and those of the classes
PREDICTION_FACTS = ("schema_version", "classes", "temperature")  # in the schema of a parquet file
PRIVATE_CONFIG_FIELDS = ("_name_or_path", "_commit_hash", "name_or_path")
IDENTIFIER_TITLES = {
    IdentifierKind.GROUP: "patients or videos",
    IdentifierKind.PATIENT_WORD: "names that contain patient, case or a similar word",
    IdentifierKind.DATE: "names with a date",
    IdentifierKind.LONG_NUMBER: "names with a long number",
    IdentifierKind.UNKNOWN_WORD: "names whose words may be those of a person",
}
PUBLIC_BY_CONSTRUCTION = ("predictions_", "pretraining_images")  # files whose names were replaced
TEXT_SUFFIXES = (".json", ".md", ".yaml", ".csv")
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<])(?:file://)?(?:/(?:[\w.@ -]+/)+[\w.@-]+|[A-Za-z]:\\[\w.\\ -]+)")
GENERIC_USERS = ("root", "user", "users", "ubuntu", "admin", "runner", "jovyan", "localhost", "home", "docker", "model")
MIN_NAME_LENGTH = 4  # characters of a user name, host name or patient that is searched in texts


@dataclass
class Publication:
    """What is published of a run, and how.

    Args:
        run: a completed run.
        repo_id: name of the repository, which replaces that of the run.
        licence: of the model card; None: not known.
        allow_identifiers: publish names of files as they are, and do not search the texts.
        publish_images: publish reconstructions, which show images.
        pseudonyms: random codes of names that may identify a patient.
        files: path in the repository -> a file, or its content.
    """

    run: Path
    repo_id: str
    licence: str | None
    allow_identifiers: bool
    publish_images: bool
    pseudonyms: Pseudonyms
    record: RunRecord = field(init=False)
    files: dict[str, Path | bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.record = read_record(self.run)
        self.rules = self.pseudonyms.rules


Copy = Callable[[Publication, Path], "Path | bytes"]


def _copy_file(publication: Publication, path: Path) -> Path:
    return path


def _copy_config(publication: Publication, path: Path) -> bytes:
    values = json.loads(path.read_text(encoding="utf-8"))
    return _to_json({name: value for name, value in values.items() if name not in PRIVATE_CONFIG_FIELDS})


def _copy_weights(publication: Publication, path: Path) -> Path | bytes:
    """Returns the file, or a copy without metadata if there is more of it than the framework."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    return path if set(metadata) <= {"format"} else save(load_file(path), {"format": "pt"})


def _copy_record(publication: Publication, path: Path) -> bytes:
    return _to_json(record_to_dict(make_public_record(publication.record, publication.rules)))


def _copy_recipe(publication: Publication, path: Path) -> bytes:
    recipe = path.read_text(encoding="utf-8")
    return make_portable_recipe(recipe, publication.record.kind, publication.rules).encode()


def _copy_card(publication: Publication, path: Path) -> bytes:
    """Returns the card with the name of the repository and the licence."""
    card, name = ModelCard.load(path), run_name(publication.run)
    short = publication.repo_id.rpartition("/")[2]
    for snippet in ('model="{}"', "--model_name_or_path {} "):
        card.text = card.text.replace(snippet.format(name), snippet.format(publication.repo_id))
    card.text = re.sub(rf"\A\s*# {re.escape(name)}\s*$", lambda _: f"# {short}", card.text, count=1, flags=re.M)
    if card.data.get("model_name") == name:
        card.data.model_name = short
    card.data.license = publication.licence
    return str(card).encode()


def _copy_predictions(publication: Publication, path: Path) -> bytes:
    """Returns a CSV file of predictions without patients, with codes for names that may identify one."""
    header, *rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    columns = [i for i, name in enumerate(header) if name in PREDICTION_COLUMNS or name.startswith(SCORE_PREFIX)]
    names = header.index("file_name")
    for row in rows:
        row[names] = _public_file_name(publication, row[names])
    return "".join(csv_line(row[i] for i in columns) for row in [header, *rows]).encode()


def _copy_prediction_table(publication: Publication, path: Path) -> bytes:
    """Returns a parquet file of predictions, like `_copy_predictions`; it is published after the CSV file."""
    table = pq.read_table(path)
    columns = [n for n in table.column_names if n in PREDICTION_COLUMNS or n.startswith((SCORE_PREFIX, LOGIT_PREFIX))]
    facts = json.loads((table.schema.metadata or {}).get(METADATA_KEY, b"{}"))
    public_facts = {name: facts[name] for name in PREDICTION_FACTS if name in facts}
    csv_file = publication.files.get(path.with_suffix(".csv").name)
    if isinstance(csv_file, bytes):
        public_facts["csv_sha256"] = hash_bytes(csv_file)
    elif "csv_sha256" in facts:
        public_facts["csv_sha256"] = ""
    names = pa.array([_public_file_name(publication, name) for name in table["file_name"].to_pylist()], pa.string())
    table = table.select(columns).set_column(columns.index("file_name"), "file_name", names)
    table = table.replace_schema_metadata({METADATA_KEY: json.dumps(public_facts)} if public_facts else None)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _copy_image_list(publication: Publication, path: Path) -> bytes:
    """Returns the list of pre-training images, which `finetune` compares with the images that it evaluates."""
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    names = ((_public_file_name(publication, row["file_name"]), row["phash"]) for row in rows)
    return "".join(map(csv_line, [("file_name", "phash"), *names])).encode()


def _copy_check(publication: Publication, path: Path) -> bytes:
    """Returns the comparison of the ONNX files with PyTorch."""
    values = json.loads(path.read_text(encoding="utf-8"))
    return _to_json(
        {name: values[name] for name in ("images", "split", "float32", "int8", "pytorch") if name in values}
    )


def _copy_figure(publication: Publication, path: Path) -> bytes:
    content = path.read_bytes()
    return remove_metadata(content) if content else content


def _public_file_name(publication: Publication, name: str) -> str:
    public = publication.pseudonyms.file_name(name)  # also counts the names
    return name if publication.allow_identifiers else public


def _to_json(values: Any) -> bytes:
    return (json.dumps(finite_or_null(values), indent=2, ensure_ascii=False, default=str) + "\n").encode()


PUBLISHED_FILES: dict[str, Copy] = {  # in this order
    "model.safetensors": _copy_weights,
    "config.json": _copy_config,
    "preprocessor_config.json": _copy_config,
    "README.md": _copy_card,
    ALL_RESULTS: _copy_record,
    "recipe.yaml": _copy_recipe,
    "temperature.json": _copy_file,
    "uncertainty.json": _copy_file,
    "uncertainty.safetensors": _copy_weights,
    "metrics_*.csv": _copy_file,
    "predictions_*.csv": _copy_predictions,
    "predictions_*.parquet": _copy_prediction_table,
    "pretraining_images.csv": _copy_image_list,
    "onnx/model*.onnx": _copy_file,
    "onnx/model*.onnx.data": _copy_file,
    "onnx/check.json": _copy_check,
    **{
        f"{FIGURES_DIR}/{name}.png": _copy_figure
        for name in ("learning_curves", "confusion_matrix_*", "per_class_f1_*", "roc_*", "precision_recall_*")
        + ("reliability_*", "risk_coverage_*")
    },
}
IMAGE_FILES: dict[str, Copy] = {"step-*.png": _copy_figure}  # reconstructions of training images


def check_completed(run: Path) -> None:
    """Checks that a folder is a completed run.

    Raises:
        UsageError: If it is not.
    """
    for name in REQUIRED_FILES:
        if not (run / name).is_file():
            raise UsageError(SharingMessage.RUN_NOT_COMPLETED, run=run, file=name)


def open_pseudonyms(run: Path, key: str | None, class_names: Iterable[str]) -> Pseudonyms:
    """Opens the random codes of a run; the patients are those of its predictions."""
    groups = {group for path in run.glob("predictions_*.parquet") for group in _read_groups(path)}
    return Pseudonyms.open(Path(key) if key else run / PSEUDONYMS_FILE, NameRules.from_data(class_names, groups))


def _read_groups(path: Path) -> list[str]:
    if "group" not in pq.read_schema(path).names:
        return []
    return [str(group) for group in pq.read_table(path, columns=["group"])["group"].unique().to_pylist()]


def build_published_files(publication: Publication, ignore_patterns: list[str] | None = None) -> None:
    """Adds the files of a run to its publication.

    Args:
        ignore_patterns: patterns of files that are not published, such as `predictions_*.csv`.

    Raises:
        UsageError: If a file is damaged, or its text contains what must not be published.
    """
    if not publication.allow_identifiers:
        check_class_names(publication.rules, publication.record.classes)
    copies = PUBLISHED_FILES | (IMAGE_FILES if publication.publish_images else {})
    for pattern, copy in copies.items():
        for path in sorted(publication.run.glob(pattern)):
            name = path.relative_to(publication.run).as_posix()
            is_ignored = any(fnmatch.fnmatch(part, p) for part in name.split("/") for p in ignore_patterns or [])
            if path.is_file() and not is_ignored:
                try:
                    publication.files[name] = copy(publication, path)
                except (ValueError, KeyError, OSError, pa.ArrowException) as error:
                    if isinstance(error, UsageError):
                        raise
                    raise UsageError(SharingMessage.FILE_DAMAGED, path=path, reason=error) from None
    for name, content in publication.files.items():
        if isinstance(content, bytes) and name.endswith((".md", ".json", ".yaml")):
            publication.files[name] = redact(content.decode("utf-8")).encode()
    report_identifiers(publication.pseudonyms, publication.allow_identifiers)
    if not publication.allow_identifiers:
        check_texts(publication.files, publication.rules, publication.repo_id)
        publication.pseudonyms.save()


def check_class_names(rules: NameRules, names: Iterable[str]) -> None:
    """Checks that no class name contains a date, a long number, a word such as patient, or the name of a patient.

    Raises:
        UsageError: If one does; class names are published as they are.
    """
    for name in names:
        if rules.find_identifier(name):
            raise UsageError(SharingMessage.PRIVATE_TEXT, file="The list of classes", text=name)


def report_identifiers(pseudonyms: Pseudonyms, allow_identifiers: bool) -> None:
    """Lists how many names may identify a patient, and what happens to them."""
    counts = Counter(pseudonyms.replaced.values())
    found = [f"{title}: {counts[kind]}" for kind, title in IDENTIFIER_TITLES.items() if counts[kind]]
    if found and allow_identifiers:
        warn(logger, SharingMessage.IDENTIFIERS_PUBLISHED, found=found)
    elif found:
        inform(logger, SharingMessage.IDENTIFIERS_REPLACED, found=found, key=pseudonyms.path)


def check_texts(files: Mapping[str, Path | bytes], rules: NameRules, repo_id: str = "") -> None:
    """Checks that no text contains an absolute path, the user or host name, or a patient.

    Args:
        files: path in the repository -> a file, or its content.
        repo_id: name of the repository, which may contain the user name.

    Raises:
        UsageError: If one does.
    """
    names = [name for name in (_user(), socket.gethostname().partition(".")[0]) if _is_specific(name)]
    groups = [group for group in rules.groups if NameRules(rules.words).find_identifier(group)]
    words = [re.escape(name) for name in names] + [re.sub(r"\\? ", r"[\\W_]+", re.escape(group)) for group in groups]
    private = re.compile(rf"(?<![\w/.])(?:{'|'.join(words)})(?![\w/])", re.I) if words else None
    for name, content in files.items():
        if not name.endswith(TEXT_SUFFIXES) or name.startswith(PUBLIC_BY_CONSTRUCTION):
            continue
        text = (content.read_bytes() if isinstance(content, Path) else content).decode("utf-8", "replace")
        text = text.replace(repo_id, "") if repo_id else text
        if found := ABSOLUTE_PATH.search(text) or (private and private.search(text)):
            raise UsageError(SharingMessage.PRIVATE_TEXT, file=name, text=found[0])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without an entry of the user
        return ""


def _is_specific(name: str) -> bool:
    return len(name) >= MIN_NAME_LENGTH and name.lower() not in GENERIC_USERS
