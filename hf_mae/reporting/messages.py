"""Messages of reports and figures: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class ReportingMessage(Message):
    """Errors and warnings of reports, figures, cards and checklists."""

    # Options of a report
    PREVALENCE_NOT_USED = (
        "--prevalence has no effect without --positive, --operating_point or --ppv_at_recall. Pass one of them, or "
        "omit it."
    )

    MARGIN_NEEDS_POSITIVE = "A margin of {score} needs positive classes. Pass --positive."
    MARGIN_WITHOUT_RUNS = "--non_inferiority and --equivalence compare at least two runs on the same images."

    # Subgroups
    NO_MANIFEST = "The data of {folder} has no manifest whose columns could define subgroups. Pass one with --manifest."
    NO_FILE_NAME_COLUMN = (
        "{path} has no column file_name. Its columns are {names:list}. Rename the column with the file names."
    )
    IMAGES_WITHOUT_ROW = (
        "{path} has no row for {missing} of the {total} images of {folder} ({example}...). Add them: subgroups need a "
        "row for each image."
    )
    UNKNOWN_COLUMN = "The manifest has no column {name}{suggestion}. Pass {flag} with one or more of {names:list}."
    INVALID_BANDS = "--subgroups {text} is not valid. Bands are numbers separated by commas, e.g. {name}:50,65."

    # Annotators
    TOO_FEW_ANNOTATORS = "--annotators needs at least two columns, one per annotator, not {columns:list}."
    NO_SHARED_ANNOTATIONS = (
        "No image of {source} has labels of two of the annotators {columns:list}. Pass columns with class names."
    )
    ANNOTATIONS_NOT_GRADES = (
        "The annotators used {names:list}, which are not grades of {run}. Empty these cells: they then count as not "
        "annotated."
    )

    # Checklists
    UNKNOWN_CHECKLIST = "Unknown checklist {name}. Choose one of {names:list}."
    NO_COHORT_IN_RECORD = (
        "{folder} has no description of its images, which a checklist needs. Repeat the command that wrote it."
    )

    # Optional packages
    PYTHON_DOCX_MISSING = "Writing a .docx file needs python-docx: pip install 'hf_mae[docx]'."
    UMAP_MISSING = "--umap needs the package umap-learn: pip install 'hf_mae[umap]'."

    # Figures
    FIGURE_FAILED = "Could not draw the figure {name} ({error}). The results are complete without it."
    GLYPHS_MISSING = (
        "{name}: the fonts of this machine lack {count:count character} of its text, which appear as boxes. Install a "
        "font that has them, such as Noto."
    )
