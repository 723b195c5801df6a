"""Licences of chains of models: CC BY-NC stays CC BY-NC after training, distillation, ensembles and export."""

import shutil
from dataclasses import replace

import pytest
import torch
from support.messages import logged, raises

from hf_mae import convert, ensemble, export, export_onnx
from hf_mae.models.model_zoo import find_licence
from hf_mae.runs.messages import RunMessage
from hf_mae.runs.record_io import read_record, write_record
from hf_mae.runs.run_licences import choose_licence, find_licences, inherited_licence, licence_of_exported
from hf_mae.settings.licences import LicenceFact, LicenceOrigin, LicenceRole
from hf_mae.settings.messages import SettingsMessage
from hf_mae.settings.models import RANDOM_WEIGHTS

NC = "cc-by-nc-4.0"


def model_folder(path, licence=None, text=None):
    path.mkdir()
    if licence:
        (path / "README.md").write_text(f"---\nlicense: {licence}\n---\n# card\n")
    if text:
        (path / "LICENSE").write_text(text)
    return str(path)


@pytest.fixture
def licensed_run(finetuned, tmp_path):
    """Function: licence of the base -> copy of a completed run."""

    def copy(licence, name="run"):
        run = shutil.copytree(finetuned(), tmp_path / name, ignore=shutil.ignore_patterns("checkpoint-*"))
        fact = LicenceFact(LicenceRole.BASE, "base", licence, LicenceOrigin.MODEL_CARD)
        write_record(replace(read_record(run), licences=[fact]), run)
        return run

    return copy


def test_sources_of_licences(tmp_path):
    nc = model_folder(tmp_path / "nc", NC)
    mit = model_folder(tmp_path / "mit", text="MIT License")
    unknown = model_folder(tmp_path / "unknown")
    facts = find_licences("mae_pretrain_vit_base", mit)
    assert [(fact.role, fact.licence, fact.origin) for fact in facts] == [
        (LicenceRole.BASE, NC, LicenceOrigin.CATALOGUE),
        (LicenceRole.TEACHER, "mit", LicenceOrigin.LICENCE_FILE),
    ]
    assert inherited_licence(find_licences(mit, nc)) == NC  # a teacher counts
    assert inherited_licence(find_licences(unknown)) is None
    assert find_licences(RANDOM_WEIGHTS)[0].origin is LicenceOrigin.RANDOM_WEIGHTS


def test_a_run_passes_on_its_licence_whatever_its_card_says(licensed_run):
    run = licensed_run(NC)
    (run / "README.md").write_text("---\nlicense: mit\n---\n")
    (run / "checkpoint-3").mkdir()
    for source in (run, run / "checkpoint-3"):
        assert inherited_licence(find_licences(str(source))) == NC


def test_licences_after_export_and_conversion(licensed_run, tmp_path):
    run = licensed_run(NC)
    export(str(run), str(tmp_path / "model.pth"))
    assert find_licence(tmp_path / "model.pth") == (NC, LicenceOrigin.CHECKPOINT)
    assert torch.load(tmp_path / "model.pth", weights_only=True)["args"]["licence"] == NC
    convert(str(tmp_path / "model.pth"), str(tmp_path / "converted"))
    export(str(tmp_path / "converted"), str(tmp_path / "timm"), to="timm")
    pytest.importorskip("onnxscript")
    export_onnx(str(run), str(tmp_path / "onnx"))
    for folder in ("converted", "timm", "onnx"):
        assert find_licence(tmp_path / folder) == (NC, LicenceOrigin.MODEL_CARD), folder
    model = (tmp_path / "onnx" / "onnx" / "model.onnx").read_bytes()
    assert b"site-packages" not in model and str(tmp_path).encode() not in model and b".py" not in model
    assert "data_dir" not in (tmp_path / "onnx" / "check.json").read_text()


def test_an_ensemble_has_the_strictest_licence_of_its_members(licensed_run, tmp_path, caplog):
    runs = [str(licensed_run(licence, licence)) for licence in ("mit", NC, "gpl-3.0")]
    ensemble(runs[:2], output_dir=str(tmp_path / "two"))
    assert inherited_licence(find_licences(str(tmp_path / "two"))) == NC
    assert f"license: {NC}" in (tmp_path / "two" / "README.md").read_text()
    assert str(tmp_path) not in (tmp_path / "two" / "README.md").read_text()
    assert licence_of_exported(runs) is None and logged(caplog.records, RunMessage.LICENCE_NOT_WRITTEN)


def test_the_licence_of_a_push(licensed_run, caplog):
    run = licensed_run(NC)
    record, card = read_record(run), run / "README.md"
    assert choose_licence(record, card, None) == NC
    assert choose_licence(record, card, "cc-by-nc-sa-4.0") == "cc-by-nc-sa-4.0"
    with raises(SettingsMessage.LICENCE_TOO_PERMISSIVE, stated="mit", inherited=NC):
        choose_licence(record, card, "mit")
    card.write_text("---\nlicense: mit\n---\n")  # edited by the user
    with raises(SettingsMessage.LICENCE_TOO_PERMISSIVE, stated="mit", inherited=NC):
        choose_licence(record, card, None)
    unknown = replace(record, licences=[LicenceFact(LicenceRole.BASE, "base", None, LicenceOrigin.UNKNOWN)])
    card.unlink()
    assert choose_licence(unknown, card, None) is None and logged(caplog.records, RunMessage.LICENCE_UNKNOWN)
