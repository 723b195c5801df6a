"""Results of a cross-validation that leaves one centre out, as a table: for reports and the terminal."""

from dataclasses import replace

from ..evaluation.metrics import headline_metric_names
from ..runs.record import CentreSummary
from ..settings.metrics import METRICS
from .headline import HeadlineRow, estimated_scores, headline_table
from .table import Column, Table
from .text_templates import report_text


def centre_table(summary: CentreSummary) -> Table:
    """Builds the table: one row per centre, their mean, all images, and, if requested, the gap to random folds."""
    rows = [
        HeadlineRow(
            [centre.name, centre.images, "" if centre.patients is None else centre.patients, ", ".join(centre.absent)],
            estimated_scores(centre.scores),
        )
        for centre in summary.centres
    ]
    images = sum(centre.images for centre in summary.centres)
    rows.append(HeadlineRow(["mean of the centres", "", "", ""], estimated_scores(summary.mean)))
    rows.append(HeadlineRow(["all images", images, "", ""], estimated_scores(summary.pooled)))
    if summary.gap is not None:
        gap = {name: replace(score, signed=True) for name, score in estimated_scores(summary.gap).items()}
        rows.append(HeadlineRow(["all images, minus random folds", "", "", ""], gap))
    names = headline_metric_names(ordered="qwk" in summary.mean)
    worst = {METRICS[name].title: summary.worst_centre(name).name for name in names if METRICS[name].compared}
    columns = [Column(summary.column), Column("images", "r"), Column("patients", "r"), Column("classes without images")]
    return headline_table(columns, rows, caption=report_text("centres", summary=summary, worst=worst))
