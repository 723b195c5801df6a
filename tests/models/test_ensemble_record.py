"""`ensemble.json`: the members of an ensemble."""

import json

import pytest
from support.messages import raises

from hf_mae.models.ensemble import MemberInfo, read_ensemble_members, write_ensemble_members
from hf_mae.models.messages import ModelMessage

MEMBERS = [MemberInfo("1", "runs/a"), MemberInfo("2", "runs/b", random_fold=True)]


def test_written_members_are_read_again(tmp_path):
    assert read_ensemble_members(tmp_path) == []
    write_ensemble_members(tmp_path, MEMBERS)
    assert read_ensemble_members(tmp_path) == MEMBERS


@pytest.mark.parametrize(
    "values",
    [
        [1],
        {"members": [{"folder": "1", "source": "x"}]},
        {"schema_version": 1, "members": []},
        {"schema_version": 1, "members": [{"folder": "../elsewhere", "source": "x"}]},
        {"schema_version": 1, "members": [{"folder": "1", "path": "x"}]},
    ],
)
def test_damaged_files_are_rejected(tmp_path, values):
    (tmp_path / "ensemble.json").write_text(json.dumps(values))
    with raises(ModelMessage.ENSEMBLE_DAMAGED, path=tmp_path / "ensemble.json"):
        read_ensemble_members(tmp_path)


def test_another_schema_version_is_named_also_if_its_fields_differ(tmp_path):
    (tmp_path / "ensemble.json").write_text('{"schema_version": 2, "members": [{"path": "1"}]}')
    with raises(ModelMessage.ENSEMBLE_OF_OTHER_VERSION, version=2, supported=1):
        read_ensemble_members(tmp_path)
