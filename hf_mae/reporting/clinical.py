"""What a clinical reader asks of a run, from its predictions: probabilities, operating points, patients, subgroups."""

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.manifests import manifest_of
from ..data.tables import read_table
from ..errors import UsageError, nearest
from ..evaluation.comparisons import holm
from ..evaluation.confusion import scores_of
from ..evaluation.intervals import FEWEST, Estimate, Rate, estimates
from ..evaluation.operating import WAYS, DecisionCurve, Rule, Sided, rates_at
from ..evaluation.patients import by_patient
from ..evaluation.probabilities import probability_scores
from ..evaluation.statistics import Predictions, units_of
from ..evaluation.subgroups import UNKNOWN, interactions, parts_of
from ..runs.finished import FinishedRun

PREDICTED = "predicted class"
FEWEST_IMAGES = 20  # of a subgroup, for scores to be shown
COMPARED = ("macro_f1", "accuracy")


@dataclass(frozen=True)
class Questions:
    """What a report is asked beyond its tables.

    Args:
        positive: classes that are positive, together; None: every class by itself, where there are operating points.
        operating_points: how thresholds are chosen.
        prevalence: of PPV and NPV; None: that of the images.
        subgroups: columns of the manifest, with `COLUMN:EDGE,EDGE` for bands.
        manifest: with these columns and `file_name`; None: the run's own.
        min_images: that a subgroup needs.
    """

    positive: tuple[str, ...] | None = None
    operating_points: tuple[Rule, ...] = ()
    prevalence: float | None = None
    subgroups: tuple[str, ...] = ()
    manifest: Path | None = None
    min_images: int = FEWEST_IMAGES


NOTHING_ASKED = Questions()


@dataclass(frozen=True)
class OperatingPoint:
    """Rates at a threshold that was chosen on another split.

    Args:
        rule: as it was asked for, or `PREDICTED`: the predicted class is positive.
        of: `images`, or patients by the `mean` or the `worst` of their images.
        thresholds: of each fold and run, on the summed score of the positive classes.
        chosen_on: split.
        there: sensitivity and specificity on that split.
        rates: on the images of the report.
    """

    rule: str
    of: str
    rates: dict[str, Rate]
    thresholds: list[float] = field(default_factory=list)
    chosen_on: str | None = None
    there: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Side:
    """Positive classes against the others.

    Args:
        classes: that are positive.
        prevalence: their share of the images, and that PPV and NPV are at.
        auroc: by `images`, and by patient where these are known.
        agreement: `accuracy`, `F1` of the positive side and Cohen's `kappa`, by the predicted class.
    """

    classes: list[str]
    prevalence: float
    at_prevalence: float
    auroc: dict[str, Estimate]
    average_precision: float
    agreement: dict[str, Estimate]
    points: list[OperatingPoint]
    decision_curve: DecisionCurve


@dataclass(frozen=True)
class Subgroup:
    """A part of the images; scores as fractions, None where it is too small."""

    value: str
    images: int
    units: str
    count: int
    scores: dict[str, Estimate] | None


@dataclass(frozen=True)
class Subgroups:
    """The parts that a column makes, and tests of no difference between those that are large enough.

    Args:
        tests: by score: `p_value`, `p_adjusted` (Holm, over all columns), `statistic` (F), `df`, `parts`.
    """

    column: str
    parts: list[Subgroup]
    tests: list[dict[str, Any]]


@dataclass(frozen=True)
class Clinical:
    """The answers for a run."""

    probabilities: dict[str, Estimate]
    sides: list[Side]
    patients: dict[str, dict[str, Estimate]]
    subgroups: list[Subgroups]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """What `report.json` holds."""
        found: dict[str, Any] = asdict(self)
        return found


def answers(run: FinishedRun, asked: Questions) -> Clinical:
    """Everything that is asked of a run, and that its predictions can tell."""
    notes: list[str] = []
    with_scores = all(fold.class_scores is not None for fold in run.folds)
    return Clinical(
        probability_scores(run.folds) if with_scores else {},
        _sides(run, asked, notes) if with_scores else [],
        by_patient(run.folds),
        _subgroups(run, asked),
        notes,
    )


# Sides


def _sides(run: FinishedRun, asked: Questions, notes: list[str]) -> list[Side]:
    if not (asked.positive or asked.operating_points):
        return []
    if asked.positive:
        for name in asked.positive:
            if name not in run.names:
                raise UsageError(
                    f"{run.folder} has no class {name}{nearest(name, run.names)}: --positive takes some of "
                    f"{', '.join(run.names)}."
                )
        if set(asked.positive) == set(run.names):
            raise UsageError("--positive names every class: there is nothing they can be told from.")
        groupings = [list(dict.fromkeys(asked.positive))]
    else:
        groupings = [[name] for name in run.names]
    rules = list(asked.operating_points)
    if rules and run.chosen is None and any(rule.needs_images for rule in rules):
        notes.append(f"No operating point: {run.why_none_chosen}.")
        rules = [rule for rule in rules if not rule.needs_images]
    return [side for names in groupings if (side := _side(run, names, rules, asked, notes)) is not None]


def _side(run: FinishedRun, names: list[str], rules: list[Rule], asked: Questions, notes: list[str]) -> Side | None:
    ids = [run.names.index(name) for name in names]
    here = Sided.of(run.folds, ids)
    there = Sided.of(run.chosen, ids) if run.chosen else None
    area = here.area()
    if area is None:
        notes.append(f"{' and '.join(names)}: of no image, or of every one, so nothing is told of it.")
        return None
    levels = {"images": (here, there)}
    if asked.positive and here.knows_patients:
        levels |= {way: (here.by_patient(way), there and there.by_patient(way)) for way in WAYS}
    points, areas = [OperatingPoint(PREDICTED, "images", rates_at(here.folds, asked.prevalence))], {"images": area}
    for of, (judged, chosen) in levels.items():
        if of != "images" and (one := judged.area()) is not None:
            areas[of] = one
        for rule in rules:
            try:
                points.append(_point(rule, of, judged, chosen, run.chosen_split, asked.prevalence))
            except UsageError as error:
                notes.append(f"{' and '.join(names)}: {error}")
    return Side(
        names,
        here.prevalence,
        here.prevalence if asked.prevalence is None else asked.prevalence,
        areas,
        here.average_precision(),
        here.agreement(),
        points,
        here.net_benefit(),
    )


def _point(
    rule: Rule, of: str, here: Sided, there: Sided | None, split: str | None, prevalence: float | None
) -> OperatingPoint:
    if there is None:
        thresholds = [[rule.target] * len(fold.predicted) for fold in here.folds]
        achieved, chosen_on = {}, None
    else:
        own, chosen_on = there.thresholds(rule), split if rule.needs_images else None
        achieved = {name: rate.value for name, rate in rates_at(there.at(own)).items()}
        every = iter([value for of_fold in own for value in of_fold])
        thresholds = [[next(every) for _ in fold.predicted] for fold in here.folds]  # of each run its own
        achieved = {name: achieved[name] for name in ("sensitivity", "specificity") if name in achieved}
    rates = rates_at(here.at(thresholds), prevalence)
    flat = [value for of_fold in thresholds for value in of_fold]
    return OperatingPoint(str(rule), of, rates, flat, chosen_on, achieved)


# Subgroups


def _subgroups(run: FinishedRun, asked: Questions) -> list[Subgroups]:
    if not asked.subgroups:
        return []
    rows = _rows_by_file(run, asked.manifest)
    found = [_by_column(run, text, rows, asked.min_images) for text in asked.subgroups]
    tests = [test for one in found for test in one.tests]
    for test, adjusted in zip(tests, holm([test["p_value"] for test in tests])):
        test["p_adjusted"] = adjusted
    return found


def _rows_by_file(run: FinishedRun, manifest: Path | None) -> dict[str, dict[str, Any]]:
    path = manifest
    if path is None and run.source is not None:
        path = manifest_of(run.source)
    if path is None or not path.is_file():
        raise UsageError(
            f"{run.folder}: its data has no manifest with columns that could make subgroups (name one with --manifest)."
        )
    rows = read_table(path)
    if "file_name" not in rows[0]:
        raise UsageError(f"{path} lacks the column file_name; it has {', '.join(map(str, rows[0]))}.")
    by_file = {str(row["file_name"]): row for row in rows}
    files = {name for fold in run.file_names for name in fold}
    if missing := sorted(files - set(by_file)):
        raise UsageError(
            f"{path} has no row for {len(missing)} of the {len(files)} images of {run.folder} ({missing[0]}...): "
            "subgroups need every one."
        )
    return by_file


def _by_column(run: FinishedRun, text: str, rows: dict[str, dict[str, Any]], min_images: int) -> Subgroups:
    name, _, bands = text.partition(":")
    known = [str(column) for column in next(iter(rows.values()))]
    if name not in known:
        raise UsageError(
            f"There is no column {name}{nearest(name, known)}: --subgroups takes some of {', '.join(known)}."
        )
    if bands and not re.fullmatch(r"[-+.\d]+(,[-+.\d]+)*", bands):
        raise UsageError(f"--subgroups {text}: bands are numbers, as in {name}:50,65.")
    edges = [float(edge) for edge in bands.split(",")] if bands else []
    values = [rows[file].get(name) for fold in run.file_names for file in fold]
    try:
        titles, place = parts_of(values, edges)
    except ValueError as error:
        raise UsageError(f"The column {name} makes no subgroups: {error}.") from None
    starts = np.cumsum([0, *(len(fold.labels) for fold in run.folds)])
    by_fold = [place[start:end] for start, end in zip(starts, starts[1:])]
    parts, large = [], []
    for number, title in enumerate(titles):
        inside = [fold.of_images(own == number) for fold, own in zip(run.folds, by_fold) if (own == number).any()]
        if not inside:
            continue
        part = _part(title, inside, min_images)
        parts.append(part)
        if part.scores is not None and title != UNKNOWN and units_of(inside).effective >= FEWEST:
            large.append(inside)
    tests = [asdict(test) for test in interactions(large, scores_of, COMPARED)]
    return Subgroups(name, parts, tests)


def _part(title: str, folds: list[Predictions], min_images: int) -> Subgroup:
    units, images = units_of(folds), sum(len(fold.labels) for fold in folds)
    count = len(units.times) if units.kind == "groups" else images
    if images < min_images:
        return Subgroup(title, images, units.kind, count, None)
    return Subgroup(title, images, units.kind, count, estimates(folds))
