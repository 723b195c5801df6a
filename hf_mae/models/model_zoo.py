"""The catalogue of public checkpoints: `--model_name_or_path NAME` downloads one, and converts it once."""

import csv
import logging
from dataclasses import dataclass
from pathlib import Path

from ..conversion.convert import convert_checkpoint
from ..conversion.errors import ConversionError
from ..errors import UsageError, first_error_line
from ..files.atomic import write_text
from ..files.caches import cache_folder
from ..files.downloads import check_download_unchanged, download, file_digest
from ..files.locks import wait_for_lock
from ..settings.models import RANDOM_WEIGHTS

logger = logging.getLogger(__name__)
CATALOGUE_FILE = Path(__file__).parents[1] / "published" / "checkpoints.csv"


@dataclass(frozen=True)
class PublicCheckpoint:
    """A line of the catalogue. None of the files was opened when it was made: sizes are computed from the layout."""

    name: str
    architecture: str
    stage: str
    mask_ratio: str
    url: str  # https://..., drive:ID (Google Drive) or hub:OWNER/NAME (Hugging Face)
    file: str
    megabytes: str  # about
    md5_prefix: str  # as far as it is published
    layout: str
    licence: str
    mean_std: str  # where it differs from ImageNet's

    @property
    def norm_pix_loss(self) -> bool | None:
        """Whether its decoder predicts normalised patches, where its page says."""
        return False if "without norm_pix_loss" in self.stage else None

    @property
    def licence_id(self) -> str:
        """The Hub's name of the licence."""
        return self.licence.lower().replace(" ", "-")

    @property
    def download_path(self) -> Path:
        """Where the file is downloaded to."""
        return cache_folder() / "downloads" / self.name / self.file

    @property
    def converted_path(self) -> Path:
        """Where the converted weights are kept."""
        return cache_folder() / "checkpoints" / self.name

    @property
    def page_url(self) -> str:
        """The page or file that a person opens."""
        kind, _, rest = self.url.partition(":")
        if kind == "drive":
            return f"https://drive.google.com/file/d/{rest}/view"
        return f"https://huggingface.co/{rest}" if kind == "hub" else self.url


def load_checkpoint_catalogue() -> dict[str, PublicCheckpoint]:
    """The public checkpoints by name."""
    with open(CATALOGUE_FILE, encoding="utf-8", newline="") as file:
        return {row["name"]: PublicCheckpoint(**row) for row in csv.DictReader(file)}


def resolve_checkpoint(model_name_or_path: str | Path) -> str:
    """What to load: for a name of the catalogue its converted folder, downloaded and converted once; else as given.

    Raises:
        UsageError: it cannot be downloaded (it says which file to put where), or is another file than the published.
    """
    name = str(model_name_or_path)
    checkpoint = load_checkpoint_catalogue().get(name)
    if checkpoint is None or Path(name).exists():
        return name
    folder, path = checkpoint.converted_path, checkpoint.download_path
    with wait_for_lock(folder.with_name(f"{folder.name}.lock")):
        if (folder / "conversion.json").is_file():
            return str(folder)
        logger.info(
            "%s (%s, about %s MB, licence %s) from %s",
            name,
            checkpoint.architecture,
            checkpoint.megabytes,
            checkpoint.licence,
            checkpoint.page_url,
        )
        put_there_by_a_person = path.is_file()
        if not put_there_by_a_person:
            _download_checkpoint(checkpoint)
        _check_digest(checkpoint)
        try:
            report = convert_checkpoint(path, folder, overwrite=True, norm_pix_loss=checkpoint.norm_pix_loss)
        except ConversionError as error:
            raise UsageError(f"{path} is no checkpoint that can be used ({error}): delete it and try again.") from None
        _write_card(checkpoint, folder)
        if not put_there_by_a_person:
            path.unlink()  # the weights stand in the converted folder
        logger.info("%s\nConverted once into %s", report.summary(), folder)
    if checkpoint.mean_std:
        logger.info("%s was trained with other means: pass --mean_std %s", name, checkpoint.mean_std)
    return str(folder)


def _download_checkpoint(checkpoint: PublicCheckpoint) -> None:
    path = checkpoint.download_path
    advice = f"get {checkpoint.file} from {checkpoint.page_url} and put it at {path}."
    if not checkpoint.url.startswith("hub:"):
        download(checkpoint.url, path, advice)
        return
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(checkpoint.url.removeprefix("hub:"), checkpoint.file, local_dir=path.parent)
    except Exception as error:  # huggingface_hub raises many kinds; one sentence serves them all
        raise UsageError(f"{checkpoint.file} cannot be downloaded ({first_error_line(error)}): {advice}") from None


def _check_digest(checkpoint: PublicCheckpoint) -> None:
    path = checkpoint.download_path
    if not checkpoint.md5_prefix:
        check_download_unchanged(checkpoint.url, path)
        return
    found = file_digest(path, "md5")
    if not found.startswith(checkpoint.md5_prefix):
        raise UsageError(
            f"{path} is not the published {checkpoint.file} (MD5 {found[:6]}, expected {checkpoint.md5_prefix}): "
            f"delete it and try again, or get it from {checkpoint.page_url}."
        )


def _write_card(checkpoint: PublicCheckpoint, folder: Path) -> None:
    """A card beside the converted weights, whose licence the models made from them inherit."""
    from huggingface_hub import ModelCard, ModelCardData

    metadata = ModelCardData(license=checkpoint.licence_id, library_name="transformers", tags=["masked-autoencoder"])
    text = (
        f"---\n{metadata.to_yaml()}\n---\n\n# {checkpoint.name}\n\n{checkpoint.architecture}, {checkpoint.stage}; "
        f"converted by hf_mae from {checkpoint.page_url}. Licence of the weights: {checkpoint.licence}.\n"
    )
    write_text(folder / "README.md", str(ModelCard(text)))


def find_licence(model_name_or_path: str | Path) -> tuple[str | None, str]:
    """The licence that a base checkpoint imposes: the Hub's name of it (None: unknown), and how that is known."""
    from huggingface_hub import ModelCard

    if model_name_or_path == RANDOM_WEIGHTS:
        return None, "nothing imposes one"
    path = Path(model_name_or_path)
    entries = load_checkpoint_catalogue()
    if path.name in entries and (not path.exists() or path == entries[path.name].converted_path):
        return entries[path.name].licence_id, "the catalogue"
    if path.is_file():
        same = [entry for entry in entries.values() if entry.file == path.name]
        if len(same) == 1:
            return same[0].licence_id, f"the catalogue's {same[0].name}, by the name of the file"
        return None, "a file does not say"
    try:
        card = ModelCard.load(path / "README.md" if path.is_dir() else str(model_name_or_path))
    except Exception:  # there is no card, or no network to get it
        return None, "it has no card that could be read"
    return card.data.get("license"), "its model card"
