"""Messages of publishing: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class SharingMessage(Message):
    """Errors and warnings of the Hub, ONNX, the demo and the Space."""

    # Hub: what is published
    RUN_NOT_COMPLETED = "{run} is not a completed run ({file} is missing). Pass the output folder of a completed run."
    REPOSITORY_NOT_EMPTY = (
        "{repo_id} already exists, with {count:count file}. Choose another --repo_id, or pass --update to add a commit."
    )
    FINISHED_BUT_NOT_PUSHED = (
        "The run is finished, but it was not pushed. {reason} Then run: hf-mae push {run} --repo_id {repo_id}"
    )

    # Hub: identifiers of patients
    IDENTIFIERS_REPLACED = (
        "Replaced by random codes: {found:list}. The key is in {key}; keep it private. To publish the names, pass "
        "--allow_identifiers."
    )
    IDENTIFIERS_PUBLISHED = "Published as they are (--allow_identifiers): {found:list}."
    PRIVATE_TEXT = (
        "{file} would publish {text!r}, which is an absolute path, or the name of a user, a machine or a patient. "
        "Remove it, or pass --allow_identifiers."
    )
    FILE_DAMAGED = "{path} cannot be published: it is damaged ({reason})."

    # Hub: errors of the server and the network
    TOKEN_MISSING = "No Hugging Face token was found. Run `hf auth login`, or set HF_TOKEN."
    TOKEN_REJECTED = "The Hub rejected the token ({reason}). Run `hf auth login` again."
    TOKEN_WITHOUT_WRITE_ACCESS = "The token cannot write to {repo_id} ({reason}). Use a token with the write role."
    HUB_OFFLINE = "HF_HUB_OFFLINE is set, so nothing can be pushed. Unset it and push again."
    INVALID_REPO_ID = "{repo_id} is not a repository name of the form USER/NAME ({reason}). Pass --repo_id USER/NAME."
    HUB_ERROR = "The Hub returned status {status} for {repo_id}: {reason}"
    HUB_UNREACHABLE = "The Hub ({url}) cannot be reached ({reason}). Try again later."
    UPLOAD_FAILED = (
        "The upload to {repo_id} failed ({reason}); the repository has not changed. Push again: files that are already "
        "uploaded are not sent again."
    )

    # Datasets
    METADATA_REMOVED = "Metadata is not published: {found:list}."

    # Demo
    OPERATING_POINT_WITHOUT_CLASSES = "--operating_point requires the positive classes. Pass --positive CLASS ..."
    INVALID_CLASS_NOTES = "{path} (--class_notes) is not a CSV file with the columns class and note."
    UNKNOWN_CLASS_IN_NOTES = "{path} has a note on {name}, but the model has no such class{suggestion}."
    OPERATING_POINT_WITHOUT_PREDICTIONS = (
        "The operating point cannot be chosen: the run contains no predictions. Run hf-mae evaluate first."
    )
    NO_OPERATING_POINT = "The operating point cannot be chosen: {reason}."
