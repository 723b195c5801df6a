"""The report of a conversion as text."""

import json

from hf_mae.conversion.facts import BaselineModel, FactCode, fact
from hf_mae.conversion.report import ConversionReport, Verification
from hf_mae.reporting.conversion_summary import FACT_TEXTS, format_conversion


def test_every_fact_of_a_report_has_a_sentence():
    assert set(FACT_TEXTS) == set(FactCode) - {FactCode.KEY_BIAS_OMITTED}


def test_the_summary_lists_unused_and_new_tensors_with_their_reasons():
    head = fact(FactCode.HEAD_SIZE_DIFFERS, found=5, requested=3)
    report = ConversionReport(
        source={"name": "a.pth", "contents": ["model", "epoch"]},
        target={"class": "ViTForImageClassification"},
        mapping=[{"source": "cls_token", "target": ["vit.embeddings.cls_token"]}],
        unused=[{"source": f"decoder.{name}", "reason": fact(FactCode.DECODER)} for name in "abcd"]
        + [{"source": "head.weight", "reason": head}],
        initialized=[{"target": "classifier.weight", "reason": head}],
        notes=[fact(FactCode.OTHER_AVERAGED_WEIGHTS, location="ema"), fact(FactCode.KEYS_RENAMED, layout="mmpretrain")],
        verification=Verification(BaselineModel.TIMM, 0, 2, 1e-6, 3.5),
    )
    assert format_conversion(report).splitlines() == [
        "a.pth ({model, epoch}) -> ViTForImageClassification",
        "used         1 tensor of the source",
        "unused       decoder.a, decoder.b and 2 more: decoder: used in pre-training only",
        "unused       head.weight: the head of the checkpoint has 5 labels, not 3; replaced by a new head",
        "initialized  classifier.weight: the head of the checkpoint has 5 labels, not 3; truncated normal, std 2e-5",
        "note         the file also contains averaged weights (ema); pass --weights ema to convert them",
        "note         the keys were renamed (MAE and ViT of MMPretrain)",
        "verified     against timm: largest difference 1e-06 (largest output 3.5)",
    ]
    assert "<p>a.pth ({model, epoch}) -&gt;" in report._repr_html_()
    values = json.loads(json.dumps(report.to_dict()))
    assert values["initialized"][0]["reason"] == {
        "code": "head_size_differs",
        "values": {"found": 5, "requested": 3},
    }
    assert values["verification"]["against"] == "timm" and "image_processor" not in values
