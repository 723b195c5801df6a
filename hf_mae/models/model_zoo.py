"""Catalogue of public checkpoints: `--model_name_or_path NAME` downloads and converts one."""

import csv
import logging
from dataclasses import dataclass
from pathlib import Path

from ..conversion.convert import convert_checkpoint
from ..conversion.messages import ConversionError
from ..conversion.reading import read_args_licence
from ..errors import UsageError, first_error_line
from ..files.atomic import write_text
from ..files.caches import cache_path, file_digest
from ..files.downloads import check_download_unchanged, download
from ..files.locks import wait_for_lock
from ..files.messages import FileMessage
from ..settings.inputs import CATALOGUE_FILE
from ..settings.licences import LicenceOrigin, find_licence_in_text, parse_licence
from ..settings.models import RANDOM_WEIGHTS
from .messages import ModelMessage

logger = logging.getLogger(__name__)
LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "LICENCE.txt", "LICENCE.md", "COPYING")


@dataclass(frozen=True)
class PublicCheckpoint:
    """Entry of the catalogue. The sizes are computed from the layout; the files were not opened."""

    name: str
    architecture: str
    stage: str
    mask_ratio: str
    url: str  # https://..., drive:ID (Google Drive) or hub:OWNER/NAME (Hugging Face)
    file: str
    megabytes: str  # approximately
    md5_prefix: str  # empty: not published
    layout: str
    licence: str
    mean_std: str  # empty: ImageNet's
    parts: str = ""  # `encoder`: it has no decoder
    pixel_targets: str = ""  # `plain`: its decoder predicts pixels that are not normalized; empty: not stated

    @property
    def norm_pix_loss(self) -> bool | None:
        """Whether its decoder predicts normalized patches; None: not stated on its page."""
        return False if self.pixel_targets == "plain" else None

    @property
    def licence_id(self) -> str:
        """Licence identifier of the Hub."""
        return self.licence.lower().replace(" ", "-")

    @property
    def download_path(self) -> Path:
        """Path of the downloaded file."""
        return cache_path(f"downloads/{self.name}/{self.file}")

    @property
    def converted_path(self) -> Path:
        """Folder of the converted weights."""
        return cache_path(f"checkpoints/{self.name}")

    @property
    def page_url(self) -> str:
        """Address of the page or file in a browser."""
        kind, _, rest = self.url.partition(":")
        if kind == "drive":
            return f"https://drive.google.com/file/d/{rest}/view"
        return f"https://huggingface.co/{rest}" if kind == "hub" else self.url


def load_checkpoint_catalogue() -> dict[str, PublicCheckpoint]:
    """Reads the public checkpoints by name."""
    with open(CATALOGUE_FILE, encoding="utf-8", newline="") as file:
        return {row["name"]: PublicCheckpoint(**row) for row in csv.DictReader(file)}


def resolve_checkpoint(model_name_or_path: str | Path) -> str:
    """Returns the converted folder of a catalogue name, downloading and converting it once; other values are unchanged.

    Raises:
        UsageError: If the file cannot be downloaded (the message names the path for a manual download), or if it is not
            the published file.
    """
    name = str(model_name_or_path)
    checkpoint = load_checkpoint_catalogue().get(name)
    if checkpoint is None or Path(name).exists():
        return name
    folder, path = checkpoint.converted_path, checkpoint.download_path
    if (folder / "conversion.json").is_file():  # no lock: the cache may be read-only
        return str(folder)
    with wait_for_lock(folder.with_name(f"{folder.name}.lock")):
        if (folder / "conversion.json").is_file():
            return str(folder)
        logger.info(
            "Downloading %s (%s, about %s MB, licence %s) from %s",
            name,
            checkpoint.architecture,
            checkpoint.megabytes,
            checkpoint.licence,
            checkpoint.page_url,
        )
        downloaded_manually = path.is_file()
        if not downloaded_manually:
            _download_checkpoint(checkpoint)
        _check_digest(checkpoint)
        try:
            convert_checkpoint(path, folder, overwrite=True, norm_pix_loss=checkpoint.norm_pix_loss)
        except ConversionError as error:
            raise UsageError(ModelMessage.CHECKPOINT_UNUSABLE, path=path, reason=error) from None
        _write_card(checkpoint, folder)
        if not downloaded_manually:
            path.unlink()
        logger.info("Converted to %s", folder)
    if checkpoint.mean_std:
        logger.info(
            "%s was trained with another mean and standard deviation: pass --mean_std %s", name, checkpoint.mean_std
        )
    return str(folder)


def _download_checkpoint(checkpoint: PublicCheckpoint) -> None:
    path = checkpoint.download_path
    hint = f"Download {checkpoint.file} from {checkpoint.page_url} and save it as {path}."
    if not checkpoint.url.startswith("hub:"):
        download(checkpoint.url, path, hint)
        return
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(checkpoint.url.removeprefix("hub:"), checkpoint.file, local_dir=path.parent)
    except Exception as error:  # huggingface_hub raises many classes
        raise UsageError(
            FileMessage.DOWNLOAD_FAILED, file=checkpoint.file, reason=first_error_line(error), hint=hint
        ) from None


def _check_digest(checkpoint: PublicCheckpoint) -> None:
    path = checkpoint.download_path
    if not checkpoint.md5_prefix:
        check_download_unchanged(checkpoint.url, path)
        return
    digest = file_digest(path, "md5")
    if not digest.startswith(checkpoint.md5_prefix):
        raise UsageError(
            ModelMessage.CHECKPOINT_DIGEST_DIFFERS,
            path=path,
            file=checkpoint.file,
            found=digest[:6],
            expected=checkpoint.md5_prefix,
            url=checkpoint.page_url,
        )


def _write_card(checkpoint: PublicCheckpoint, folder: Path) -> None:
    """Writes a model card for the converted weights; models trained from them inherit its licence."""
    from huggingface_hub import ModelCard, ModelCardData

    metadata = ModelCardData(license=checkpoint.licence_id, library_name="transformers", tags=["masked-autoencoder"])
    text = (
        f"---\n{metadata.to_yaml()}\n---\n\n# {checkpoint.name}\n\n{checkpoint.architecture}, {checkpoint.stage}; "
        f"converted by hf_mae from {checkpoint.page_url}. Licence of the weights: {checkpoint.licence}.\n"
    )
    write_text(folder / "README.md", str(ModelCard(text)))


def find_licence(model_name_or_path: str | Path) -> tuple[str | None, LicenceOrigin]:
    """Finds the licence of a model that is not a run: the id of the Hub (None: unknown or none), and its origin."""
    if model_name_or_path == RANDOM_WEIGHTS:
        return None, LicenceOrigin.RANDOM_WEIGHTS
    path = Path(model_name_or_path)
    entries = load_checkpoint_catalogue()
    if path.name in entries and (not path.exists() or path == entries[path.name].converted_path):
        return entries[path.name].licence_id, LicenceOrigin.CATALOGUE
    if path.is_file():
        matches = [entry for entry in entries.values() if entry.file == path.name]
        if len(matches) == 1:
            return matches[0].licence_id, LicenceOrigin.FILE_NAME
        return _with_origin(parse_licence(read_args_licence(path)), LicenceOrigin.CHECKPOINT)
    licence = read_card_licence(path / "README.md" if path.is_dir() else str(model_name_or_path))
    if licence is None and (files := [file for name in LICENCE_FILES if (file := path / name).is_file()]):
        text = files[0].read_text(encoding="utf-8", errors="replace")
        return _with_origin(find_licence_in_text(text), LicenceOrigin.LICENCE_FILE)
    return _with_origin(licence, LicenceOrigin.MODEL_CARD)


def _with_origin(licence: str | None, origin: LicenceOrigin) -> tuple[str | None, LicenceOrigin]:
    return licence, origin if licence else LicenceOrigin.UNKNOWN


def read_card_licence(card: str | Path) -> str | None:
    """Reads the licence in a model card (a file, or a Hub id); None: the card is missing or names no known licence."""
    from huggingface_hub import ModelCard

    try:
        licence = ModelCard.load(card).data.get("license")
    except Exception:  # no card, a damaged one, or no network
        return None
    return parse_licence(licence if isinstance(licence, str) else None)
