"""Each sentence of a study and each answer of a checklist is a fact of the records, for over twenty different runs."""

import csv
import gc
import re
from dataclasses import dataclass, replace

import pytest
from support.studies import CLASSES, IMAGES, make_splits, write_crossval, write_evaluation, write_finetuning

from hf_mae.data.exclusion_log import ExclusionReason
from hf_mae.evaluation.calibration import Calibration
from hf_mae.reporting.bibliography import format_bibtex
from hf_mae.reporting.checklists import CHECKLIST_TITLES, CHECKLISTS_CSV, build_checklist
from hf_mae.reporting.document import Paragraph
from hf_mae.reporting.report import compare
from hf_mae.reporting.study_description import build_study_description, list_cohorts
from hf_mae.runs.record import CROSSVAL, Centre, CentreSummary
from hf_mae.runs.record_io import read_record, write_record
from hf_mae.settings.data import DataArguments

pytestmark = pytest.mark.unit

BEST = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
BEST |= {"metric_for_best_model": "macro_f1"}
IMAGENET = DataArguments(data_dir="images", transforms="imagenet")
CROPS_ONLY = DataArguments(data_dir="images", transforms="imagenet", auto_augment="none", random_erasing=0.0)
HELD_OUT = DataArguments(data_dir="images", train_fraction=0.5, selection_fraction=0.25, val_fraction=0.2)
UNREADABLE, LISTED = (ExclusionReason.UNREADABLE, 2, None), (ExclusionReason.LISTED_IN_FILE, 3, "pairs.csv")
EXTERNAL_CLASS = (ExclusionReason.CLASS_NOT_IN_MODEL, 3, "Blood")
GIVEN = Calibration(1.5, 0.2, 0.7, 0.1, 0.6)

TRAININGS = {
    "plain": {},
    "frozen": {"freeze_backbone": True},
    "early stopping": BEST | {"num_train_epochs": 9, "learning_rate": 1e-12, "early_stopping_patience": 1},
    "max_steps": {"max_steps": 3, "per_device_train_batch_size": 3, "gradient_accumulation_steps": 2},
    "sgd": {"optim": "sgd", "lr_scheduler_type": "linear", "optim_args": "momentum=0.9"},
    "adafactor": {"optim": "adafactor", "lr_scheduler_type": "constant"},
    "warm-up": {"warmup_epochs": 0.5, "num_train_epochs": 2, "lr_scheduler_type": "polynomial"},
    "clipping": {"max_grad_norm": 0.5, "learning_rate": None, "weight_decay": 0.0, "layer_decay": 1.0},
    "drop path": {"drop_path": 0.2, "patch_dropout": 0.5, "options": IMAGENET},
    "crops only": {"options": CROPS_ONLY, "bf16": True},
    "mixup": {"mixup": 0.8, "cutmix": 1.0, "mixup_prob": 0.5},
    "cutmix": {"cutmix": 1.0, "smoothing": 0.0},
    "focal": {"loss": "focal", "focal_gamma": 1.5, "smoothing": 0.0},
    "ordinal": {"loss": "emd", "ordered": True},
    "balanced": {"class_weights": "balanced"},
    "weights": {"class_weights": ["1", "2.5"]},
    "sampling": {"sampling": "class_balanced", "exponent": 0.0},
    "logit adjustment": {"logit_adjustment": 1.0},
    "average": BEST | {"ema_decay": 0.9},
    "distilled": {"teacher": "runs/teacher", "teacher_weight": 0.3},
    "resumed": {"num_train_epochs": 3, "save_strategy": "epoch", "checkpoints": ("checkpoint-1", "checkpoint-2")},
    "held out": BEST
    | {"options": HELD_OUT, "excluded": (UNREADABLE, LISTED), "best": "selection"}
    | {"splits": make_splits(True, train=IMAGES, selection=4, validation=6, test=10)},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Output folders of all runs, by name."""
    root = tmp_path_factory.mktemp("studies")
    gc.collect()
    gc.freeze()  # the Trainer collects garbage after each training
    (root / "map.csv").write_text("data,model\nmucosa,mucosa\npolyp,polyp\nBlood,-\n")
    (root / "costs.csv").write_text("true,mucosa,polyp,prior\nmucosa,0,1,9\npolyp,5,0,1\n")
    rows = [f"test/{index}.png,{'ab'[index % 3 > 0]},{CLASSES[index % 2]},{CLASSES[index % 2]}" for index in range(10)]
    (root / "manifest.csv").write_text("\n".join(["file_name,device,first,second", *rows]) + "\n")
    found = {name: write_finetuning(root / name, **settings) for name, settings in TRAININGS.items()}
    plain = found["plain"]
    found["cross-validation"] = write_crossval(root / "cv", groups=True, seeds=(0, 1), **BEST)
    found["centres"] = leave_centres_out(write_crossval(root / "centres", **BEST))
    found["external"] = write_evaluation(
        *(root / "external", plain, "elsewhere"),
        **{"excluded": [EXTERNAL_CLASS], "unused": 4, "averaged_views": True, "precision": "bf16"},
        **{"class_map": str(root / "map.csv"), "unmapped_images": {"Blood": 3}},
    )
    found["internal"] = write_evaluation(root / "internal", plain, "images", size=10, calibration=GIVEN, unused=20)
    found["ensemble"] = write_evaluation(root / "ensemble", "user/model", "elsewhere", members=["runs/a", "runs/b"])
    found["unknown"] = write_evaluation(root / "unknown", "user/model", "elsewhere")
    gc.unfreeze()
    return found


def leave_centres_out(folder):
    """Changes the record of a cross-validation to one of three centres."""
    record = read_record(folder, CROSSVAL)
    centres = [Centre(name, number, 6, None, [], {}) for number, name in enumerate("ABC", 1)]
    summary = CentreSummary("hospital", centres, 0.1, {}, {})
    write_record(replace(record, crossval=replace(record.crossval, folds="each:hospital", by_centre=summary)), folder)
    return folder


RUNS = [
    *TRAININGS,
    "cross-validation",
    "centres",
    "external",
    "internal",
    "ensemble",
    "unknown",
    "compared",
    "requested",
]
REQUESTED = {"positive": "polyp", "operating_points": ["youden", "threshold=0.5"], "subgroups": "device"}
REQUESTED |= {"ppv_at_recall": 0.9, "prevalence": "1:99", "annotators": ["first", "second"], "min_subgroup": 2}
REQUESTED |= {"non_inferiority": ["accuracy=0.02", "sensitivity=0.05"], "equivalence": "roc_auc=0.03"}


@pytest.fixture(scope="module")
def report(folders):
    """Function: name of a run -> the run and the tables of its report."""

    def load(name):
        requested = REQUESTED if name == "requested" else {}
        if requested:
            root = folders["plain"].parent
            requested = requested | {"costs": root / "costs.csv", "manifest": root / "manifest.csv"}
        runs = [folders["plain"], folders["sgd"]] if name in ("compared", "requested") else [folders[name]]
        result = compare(runs, **requested)
        return result.runs[0], result.tables

    return load


@dataclass(frozen=True)
class Sentence:
    """A sentence of the methods: its pattern, the values of its groups (None: the sentence must be absent)."""

    pattern: str
    values: object


def train(run):
    return run.trained[0].train if run.trained else None


def when(condition, *values):
    return values if condition else None


def by_train(get):
    """Values from the facts of the training; absent if these are unknown."""
    return lambda run: get(train(run)) if run.trained else None


def plural(number, noun):
    return f"{number:.4g} {noun}{'' if number == 1 else 's'}"


def is_evaluation(run):
    return run.evaluated.kind == "evaluate"


def is_crossval(run):
    return run.evaluated.kind == "crossval"


def describe_length(run):
    facts = train(run)
    if facts is None:
        return None
    models = "The model was" if len(run.trained) == 1 else f"Each of the {len(run.trained)} models was"
    return models, plural(facts.epochs, "epoch"), plural(facts.updates, "update"), str(facts.effective_batch_size)


def describe_stop(run):
    facts = train(run)
    if facts is None or facts.updates == facts.planned_updates:
        return None
    return plural(facts.early_stopping_patience, "evaluation"), plural(facts.planned_epochs, "epoch")


def describe_optimizer(facts):
    optimizer = facts.optimizer
    additions = {
        "(betas {})": optimizer.betas and ", ".join(map(str, optimizer.betas)),
        "(momentum {})": optimizer.momentum and f"{optimizer.momentum:g}",
    }
    before = "".join(f" {text.format(value)}" for text, value in additions.items() if value)
    after = " (linear scaling rule)" if optimizer.base_learning_rate else ""
    after += f", weight decay {optimizer.weight_decay:g}"
    after += f", layer-wise learning-rate decay of {optimizer.layer_decay:g}" if optimizer.layer_decay != 1 else ""
    after += f", gradients clipped to a norm of {optimizer.max_grad_norm:g}" if optimizer.max_grad_norm else ""
    return optimizer.name, before, f"{facts.learning_rate:.3g}", after


def describe_rate(facts):
    schedule = facts.schedule
    warmup = f"rose in {schedule.warmup_updates:.4g} updates (warm-up) and then " if schedule.warmup_updates else ""
    titles = {"cosine_with_min_lr": "a cosine", "linear": "a linear", "polynomial": "a polynomial"}
    if schedule.name == "constant":
        return warmup, "was constant"
    return warmup, f"followed {titles[schedule.name]} decay to {schedule.final_learning_rate:.3g}"


def describe_parts(facts):
    counts = f"{facts.trained_parameters:,} of {facts.parameters:,}"
    return {
        "all": (f"All {facts.parameters:,} parameters were trained",),
        "head": (f"The backbone was frozen: only the classification head was trained ({counts} parameters)",),
        "part": (f"{counts} parameters were trained; the others were frozen",),
    }[facts.trained_part.value]


def describe_objective(facts):
    objective = facts.objective
    names = {"cross_entropy": "cross-entropy", "focal": "the focal loss with a gamma of 1.5"}
    names |= {"emd": "the squared earth mover's distance"}
    text = f" with label smoothing of {objective.smoothing:g}" if objective.smoothing else ""
    if objective.class_weights:
        weights = " ".join(f"{weight:g}" for weight in objective.class_weights.values())
        kind = " inversely proportional to the number of images" if objective.balanced else f" ({weights})"
        text += f", with class weights{kind}"
    if objective.logit_adjustment:
        text += f", with logit adjustment by class frequency (tau {objective.logit_adjustment:g})"
    text += ", with class-balanced sampling" if objective.sampling == "class_balanced" else ""
    return names[objective.loss], text


def describe_transforms(facts):
    augmentation = facts.augmentation
    if augmentation.transforms == "endoscopy":
        return ("horizontal and vertical flips, and rotations by up to 90 degrees",)
    steps = f", RandAugment ({augmentation.auto_augment})" if augmentation.auto_augment else ""
    steps += f", random erasing (probability {augmentation.random_erasing:g})" if augmentation.random_erasing else ""
    return (f"random crops, horizontal flips{steps}",)


def describe_mixing(facts):
    augmentation = facts.augmentation
    parts = {"mixup": augmentation.mixup, "CutMix": augmentation.cutmix}
    texts = [f"{name} (alpha {alpha:g})" for name, alpha in parts.items() if alpha]
    return when(texts, f"{augmentation.mixup_prob:g}", " or ".join(texts))


def describe_best(run):
    selection = run.trained[0].selection if run.trained else None
    if selection is None or selection.selection_split is None:
        return None
    models, epoch = (" of each model", "") if len(run.trained) > 1 else ("", f" (epoch {selection.epoch:g})")
    return models, selection.selection_split, epoch


def own_cohort(run):
    return run.evaluated.study if is_crossval(run) else run.trained[0].study if run.trained else None


def describe_splits(run):
    if (cohort := own_cohort(run)) is None:
        return None
    titles = {"train": "training", "selection": "selection of the epoch"}
    counts = ", ".join(f"{entry.images} for {titles.get(name, name)}" for name, entry in cohort.splits.items())
    return str(len(CLASSES)), counts


def describe_external(run):
    if not is_evaluation(run):
        return None
    external = "external images, which are not from the data of its training," if run.is_external else "images"
    return str(run.num_images), external, run.split, run.evaluated.data.name


def describe_tests(run, tables):
    pairs = [pair for table in tables for pair in table.comparisons if run.name in (pair["first"], pair["second"])]
    others = {name for pair in pairs for name in (pair["first"], pair["second"])} - {run.name}
    return when(pairs, ", ".join(sorted(others)), "; ".join(sorted({pair["test"] for pair in pairs})))


EVALUATED = "The scores of an image are"
UNIT = r"(patient or video|image)"
SENTENCES = [
    Sentence(r"Images of images in (\d+) classes were used: (.+)\.", describe_splits),
    Sentence(
        r"The images for cross-validation were divided into (\d+) folds, stratified by class and grouped by "
        rf"{UNIT}; each fold was evaluated by the models that were trained on the others\.",
        lambda run: when(is_crossval(run) and not run.centres, "3", "patient or video"),
    ),
    Sentence(
        r"Each (\w+) \((.+)\) was left out in turn: a model was trained on the images of the others, which also "
        r"selected its epoch, and evaluated on those of the one that was left out\.",
        lambda run: when(run.centres, "hospital", "A, B, C"),
    ),
    Sentence(
        r"Scores are reported for each, as their unweighted mean, and for all images together\.",
        lambda run: when(run.centres),
    ),
    Sentence(r"The cross-validation was repeated with (\d+) seeds\.", lambda run: when(run.name == "cv", "2")),
    Sentence(
        rf"([\d.]+) % of the training images were held out for validation, stratified by class and grouped by {UNIT} "
        r"\(seed (\d+)\)\.",
        lambda run: when(run.trained and run.trained[0].data.val_fraction, "20", "patient or video", "0"),
    ),
    Sentence(
        r"([\d.]+) % of the training images, stratified by class, were used\.",
        lambda run: when(run.trained and run.trained[0].data.train_fraction != 1, "50"),
    ),
    Sentence(
        rf"([\d.]+) % of the training images, grouped by {UNIT}, were held out to select the epoch, so that the "
        r"validation images were not used before the final evaluation\.",
        lambda run: when(run.trained and run.trained[0].data.selection_fraction, "25", "patient or video"),
    ),
    Sentence(
        r"Excluded images: (.+)\.",
        lambda run: when(own_cohort(run) and own_cohort(run).excluded, own_cohort(run) and own_cohort(run).excluded),
    ),
    Sentence(r"The model was evaluated on (\d+) (.+) of the (\w+) split of (\w+)\.", describe_external),
    Sentence(
        r"The classes were mapped to those of the model \(class map (.+)\); (\d+) classes were evaluated\.",
        lambda run: when(run.evaluated.data.class_map, "map.csv", "2"),
    ),
    Sentence(
        r"Images of these data that were not evaluated: (.+)\.",
        lambda run: when(is_evaluation(run) and run.evaluated.study.excluded, run.evaluated.study.excluded),
    ),
    Sentence(
        r"A vision transformer was fine-tuned from mae\.pth; it classifies from the class token, at (\d+) x "
        r"\d+ pixels\.",
        lambda run: when(run.trained, "8"),
    ),
    Sentence(
        r"The model is model \((\w+), (\d+) x \d+ pixels\); the record of its training is not available\.",
        lambda run: when(not run.trained, "ViTForImageClassification", "8"),
    ),
    Sentence(r"(.+) trained for (.+) \((.+) of (\d+) images\)\.", describe_length),
    Sentence(
        r"Early stopping \(no improvement in (.+)\) ended it before the planned (.+)\.",
        describe_stop,
    ),
    Sentence(
        r"The training was resumed (.+) from a checkpoint\.",
        by_train(lambda facts: when(facts.resumes, plural(facts.resumes, "time"))),
    ),
    Sentence(
        r"The optimizer was (\w+)(.*) with a learning rate of (\S+?)((?: \(linear scaling rule\))?, weight decay .+)\.",
        by_train(describe_optimizer),
    ),
    Sentence(r"The learning rate (rose .+ and then |)((?:was|followed).+)\.", by_train(describe_rate)),
    Sentence(r"((?:All|The backbone|[\d,]+ of) .*parameters.*)\.", by_train(describe_parts)),
    Sentence(r"The loss was (.+?)((?: with label smoothing|, with ).+|)\.", by_train(describe_objective)),
    Sentence(r"Training images were augmented with (.+)\.", by_train(describe_transforms)),
    Sentence(r"Batches were mixed with a probability of (\S+): (.+)\.", by_train(describe_mixing)),
    Sentence(
        r"Stochastic depth had a rate of (\S+) in the last block\.",
        by_train(lambda facts: when(facts.augmentation.drop_path, f"{facts.augmentation.drop_path:g}")),
    ),
    Sentence(
        r"A fraction of (\S+) of the patches was dropped\.",
        by_train(lambda facts: when(facts.augmentation.patch_dropout, f"{facts.augmentation.patch_dropout:g}")),
    ),
    Sentence(
        r"Computations were in (float32|bf16 \(mixed precision\))\.",
        by_train(
            lambda facts: ("float32" if facts.precision == "float32" else f"{facts.precision} (mixed precision)",)
        ),
    ),
    Sentence(
        r"The random seeds? (?:was|were) (.+)\.",
        lambda run: when(run.trained, " and ".join(sorted({str(record.train.seed) for record in run.trained}))),
    ),
    Sentence(
        r"The weights( of each model|) are those of the epoch with the best macro F1 on the (\w+) split"
        r"( \(epoch \d+\)|), so the scores on this split are optimistic\.",
        describe_best,
    ),
    Sentence(
        r"The weights are those at the end of the training\.",
        lambda run: when(run.trained and run.trained[0].selection.selection_split is None),
    ),
    Sentence(
        r"They are an exponential moving average \(--ema_decay (\S+)\)\.",
        lambda run: when(run.trained and run.trained[0].selection.ema_decay, "0.9"),
    ),
    Sentence(
        r"The model was distilled from (\w+) \(weight (\S+)\)\.",
        lambda run: when(run.trained and run.trained[0].selection.teacher, "teacher", "0.3"),
    ),
    Sentence(
        rf"{EVALUATED} the means of those of (\d+) models\.",
        lambda run: when(run.evaluated.members, str(len(run.evaluated.members))),
    ),
    Sentence(
        rf"{EVALUATED} means over (\d+) rotated and mirrored views \(test-time augmentation\)\.",
        lambda run: when(run.evaluated.averaged_views, "8"),
    ),
    Sentence(r"The predictions were computed in (\w+)\.", lambda run: when(run.evaluated.precision, "bf16")),
    Sentence(
        r"The logits were divided by a given temperature (\S+)\.", lambda run: when(run.evaluated.calibration, "1.500")
    ),
    Sentence(
        r"Macro-averaged precision.* are reported with 95 % score intervals .* over (patients or videos|images)"
        r"(, with the effective sample size|)(; quadratic.*|)\.",
        lambda run: (
            *(
                ("patients or videos", ", with the effective sample size")
                if run.folds[0].groups is not None
                else ("images", "")
            ),
            "ordinal" if run.ordered else "",
        ),
    ),
    Sentence(r"Software(?: of the training)?: hf_mae, torch 2\.", lambda run: when(run.trained)),
    Sentence(r"Hardware(?: of the training)?: (.+)\.", lambda run: when(run.trained, "2 CPU cores (x86_64)")),
    Sentence(r"Software of the evaluation: hf_mae, torch 2\.", lambda run: when(is_evaluation(run))),
    Sentence(r"Hardware of the evaluation: (.+)\.", lambda run: when(is_evaluation(run), "2 CPU cores (x86_64)")),
]
REQUESTED_SENTENCES = {
    r"Non-inferiority of (.+) to (.+) was tested with a margin of (.+) \(one-sided tests at 2\.5 %, adjusted for "
    r"multiple comparisons\)\.": ("sgd", "plain", "0.02 for accuracy and 0.05 for sensitivity"),
    r"Equivalence of (.+) to (.+) was tested with a margin of (.+) \(two one-sided tests at 5 %, adjusted for multiple "
    r"comparisons\)\.": ("sgd", "plain", "0.03 for AUROC"),
    r"Results are reported for (.+) against the rest, with net benefit\.": ("polyp",),
    r"Thresholds were chosen on the (\w+) split \((.+)\)\.": ("validation", "youden"),
    r"Thresholds were given \((.+)\)\.": ("threshold=0.5",),
    r"PPV and NPV are for a prevalence of (\S+) %\.": ("1",),
    r"The PPV at a recall of (\S+) % and a prevalence of (\S+) % is reported at the highest threshold that reaches "
    r"this recall on the evaluated images, with the estimate of the RARE challenge\.": ("90", "1"),
    r"The expected cost of the decisions is reported for given costs and (.+), and divided by that of the best single "
    r"decision for all images, for the predicted class and for the Bayes decision\.": (
        "given prevalences of the classes",
    ),
    r"The agreement of the annotators (.+) is reported as Krippendorff's alpha and Fleiss' kappa, and that of the "
    r"model with each of them as Cohen's kappa\.": ("first, second",),
    r"Subgroups were analysed by (\w+)(, with tests of interaction)\.": ("device", ", with tests of interaction"),
}
COMPARED = r"The model was compared with (.+?) \((.+)\), with p values adjusted for multiple comparisons\."


def read_methods(run, tables):
    """The sentences of the methods, without citations, and the keys of the references."""
    blocks, keys = build_study_description(run, tables)
    headings = [getattr(block, "text", "") for block in blocks]
    paragraphs = blocks[headings.index("Methods") + 1 : headings.index("References")]
    assert all(isinstance(block, Paragraph) for block in paragraphs)
    text = re.sub(r" ?\[@[^]]+\]", "", " ".join(block.text for block in paragraphs))
    assert text.count("[@") == 0 and "None" not in text and "  " not in text
    return re.split(r"(?<=\.) (?=[A-Z\d])", text), keys


@pytest.mark.parametrize("name", RUNS)
def test_each_sentence_of_a_study_is_a_fact_of_its_records(name, report):
    run, tables = report(name)
    sentences, keys = read_methods(run, tables)
    expected = {sentence.pattern: sentence.values(run) for sentence in SENTENCES}
    expected[COMPARED] = describe_tests(run, tables)
    expected |= {pattern: when(name == "requested", *values) for pattern, values in REQUESTED_SENTENCES.items()}
    for pattern, values in expected.items():
        matches = [match for text in sentences if (match := re.fullmatch(pattern, text))]
        assert len(matches) == (values is not None), (pattern, values, sentences)
        if matches and values and isinstance(values[0], list):  # exclusions
            for step in values[0]:
                assert f"{step.images} image" in matches[0][1] and str(step.detail or "unreadable") in matches[0][1]
        elif matches:
            found = ["ordinal" if group.startswith("; quadratic") else group for group in matches[0].groups()]
            assert found == list(values), (pattern, found, values)
    unmatched = [text for text in sentences if not any(re.fullmatch(pattern, text) for pattern in expected)]
    assert not unmatched
    assert ("loshchilov2019adamw" in keys) == (train(run) is not None and train(run).optimizer.name == "AdamW")
    assert all(f"{{{key}," in format_bibtex(keys) for key in keys)


@pytest.mark.parametrize("name", RUNS)
def test_the_numbers_of_a_flow_add_up(name, report):
    run, _ = report(name)
    for cohort in list_cohorts(run).values():
        assert cohort.total == sum(step.images for step in cohort.excluded) + sum(
            entry.images for entry in cohort.splits.values()
        )


# Answers that need a record of the training, or an analysis that was requested.
NEEDS_TRAINING = {
    "split",
    "level",
    "initialisation",
    "training",
    "selection",
    "imbalance",
    "subsets",
    "internal",
    "external",
}
ON_REQUEST = {"devices", "subgroups", "explanations", "labellers"}
ANSWERED_ON_REQUEST = {
    "subgroups": "Scores and tests of interaction by: device.",
    "labellers": "Agreement of first, second on 10 images: 100.0 % of pairs of labels, Krippendorff's alpha 1.000.",
    "output": "A score for each class (softmax), and the class with the highest score; thresholds given: "
    "threshold=0.5; thresholds chosen on the validation split: youden; the decision with the smallest expected cost.",
}
IN_REQUESTED_ANSWERS = {
    "metrics": ["net benefit", "PPV at a recall", "expected cost"],
    "uncertainty": ["non-inferiority of sgd to plain, accuracy, margin 0.02", "equivalence of sgd to plain"],
}


@pytest.mark.parametrize("name", RUNS)
def test_each_item_that_the_records_can_answer_is_answered(name, report):
    run, tables = report(name)
    with open(CHECKLISTS_CSV, encoding="utf-8", newline="") as file:
        topics = {(row["checklist"], row["item"]): row["answer"] for row in csv.DictReader(file)}
    answers = {}
    for checklist in CHECKLIST_TITLES:
        for item in build_checklist(run, checklist, tables):
            topic = topics[checklist, item.number]
            is_known = topic not in ON_REQUEST and (run.trained or topic not in NEEDS_TRAINING)
            is_known = topic != "author" and (is_known or (name == "requested" and topic in ANSWERED_ON_REQUEST))
            assert (item.answer is not None) == bool(is_known), (topic, item)
            answers[topic] = item
            if is_evaluation(run) and item.answer and topic in NEEDS_TRAINING:
                assert "record of the training" in item.source
    for topic, text in ANSWERED_ON_REQUEST.items():
        assert (answers[topic].answer == text) == (name == "requested"), answers[topic]
    for topic, texts in IN_REQUESTED_ANSWERS.items():
        assert all((text in answers[topic].answer) == (name == "requested") for text in texts), answers[topic]
    evaluated = str(run.num_images)
    assert (
        ("external images" in answers["external"].answer and evaluated in answers["external"].answer)
        if (run.is_external)
        else evaluated in (answers["internal"].answer or evaluated)
    )
    ensemble = answers["ensemble"].answer
    assert ("None" in ensemble) == (not run.evaluated.members and not run.evaluated.averaged_views)
    assert ("moving average" in ensemble) == any(record.selection.ema_decay for record in run.trained)
    assert ("Holm" in answers["uncertainty"].answer) == (name in ("compared", "requested"))
