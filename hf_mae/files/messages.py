"""Messages of files, locks and downloads: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class FileMessage(Message):
    """Errors and warnings of writing, locking, downloading and caching files."""

    # Writing
    IS_A_FILE = "{path} is a file. Specify a folder."
    IS_A_FOLDER = "{path} is a folder. Specify a file."
    FILE_EXISTS = "{path} already exists. Choose another name, or pass --overwrite."
    FOLDER_NOT_EMPTY = "{path} exists and is not empty. Choose another folder, or pass --overwrite."
    CANNOT_WRITE = "Cannot write {path} ({reason})."

    CACHE_NOT_WRITABLE = (
        "The cache {path} cannot be written ({reason}). New entries are written to a temporary folder, which is "
        "removed at the end. To keep them, set HF_HOME to a folder that you can write."
    )

    # Addresses
    ADDRESS_WITHOUT_CREDENTIALS = (
        "The password or token of {address} is not saved. Pass the complete address, e.g. with --data_dir."
    )

    CACHE_NOT_TRUSTED = (
        "The cache {path} is not used, because {reason}. Entries are written to a temporary folder, which is removed "
        "at the end. To keep them, change its owner (chown) or mode (chmod o-w), or set HF_HOME to another folder."
    )

    # Reading text
    NOT_UTF8 = (
        "{path} is not UTF-8 text: line {line} contains '{text}' (decoded as Latin-1). "
        "Save the file as UTF-8 (spreadsheets call it CSV UTF-8)."
    )

    # Locks
    FOLDER_LOCKED = (
        "Another run is writing to {path} (process {process} on {host}, since {since}). "
        "Wait until it finishes, or choose another folder."
    )
    FOLDER_LOCKED_BY_FILE = (
        "Another run is writing to {path} (process {process} on {host}, since {since}). Wait until it finishes, or "
        "choose another folder. This disk has no locks: if that process was killed, delete {lock}."
    )

    # Resumable tables
    TABLE_EXISTS = (
        "{path} already exists. Pass --resume to predict only the missing images, pass --overwrite, "
        "or choose another name."
    )
    TABLE_INCOMPLETE = (
        "{path} contains the rows of an interrupted run. Pass --resume to continue it, or --overwrite to start again."
    )
    TABLE_SETTINGS_DIFFER = (
        "{path} was written with different settings ({differences:list}). Use the same settings, or pass --overwrite."
    )
    TABLE_COLUMNS_DIFFER = (
        "The columns of {path} differ from those of this run (is --top_k the same?). "
        "Pass --overwrite, or choose another name."
    )
    TABLE_ROW_INVALID = (
        "{path} contains a line that `hf-mae predict` did not write. Pass --overwrite, or choose another name."
    )
    TABLE_INTERRUPTED = "{reason}. The completed rows are in {path}. Run the same command with --resume to continue."

    # Downloads
    DOWNLOAD_FAILED = "Cannot download {file} ({reason}). {hint}"
    DOWNLOAD_INCOMPLETE = (
        "Cannot download {file} completely ({reason}). {megabytes:.0f} MB are on the disk, "
        "and the same command resumes from there. {hint}"
    )
    DOWNLOAD_IS_WEB_PAGE = (
        "The server sent a web page instead of {file}. Sign in to the network if it requires that, "
        "or check whether the file was moved."
    )
    REMOTE_FILE_CHANGED = "{url} changed while it was read. Run the command again."
    RANGES_IGNORED = "The server of {url} cannot send parts of a file. Download the file and specify its path."
    DOWNLOAD_CHANGED = (
        "{path} is not the file that was downloaded from {url} before (SHA-256 {found}..., before: {expected}...). If "
        "the publisher changed it on purpose, delete the entry of this address from {digests}."
    )
    DIGESTS_DAMAGED = "{path} is damaged. Delete it; the checksums of earlier downloads are then lost."
    DIGEST_STORED = (
        "The publisher of {file} provides no checksum. Its SHA-256 ({digest}) is stored, and a later download that "
        "differs is rejected."
    )
    DRIVE_QUOTA = "Google Drive reports that the file {id} was downloaded too often today. Try again later."
    DRIVE_NOT_PUBLIC = (
        "Google Drive does not provide the file {id}, because it is no longer public. Ask its publisher for access."
    )
