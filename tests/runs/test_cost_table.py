"""Tables of the costs of decisions."""

import pytest
from support.messages import raises

from hf_mae.runs.cost_table import read_costs
from hf_mae.runs.messages import RunMessage

pytestmark = pytest.mark.unit
VALID = "true,polyp,ulcer,prior\npolyp,0,4,1\nulcer,1.5,0,3\n"


def test_costs_are_in_the_order_of_the_classes(tmp_path):
    path = tmp_path / "costs.csv"
    path.write_text(VALID)
    costs = read_costs(path).select(["ulcer", "polyp"], "run")
    assert costs.matrix.tolist() == [[0, 1.5], [4, 0]] and costs.priors.tolist() == [0.75, 0.25]
    path.write_text(VALID.replace(",prior", "").replace(",1\n", "\n").replace(",3\n", "\n"))
    assert read_costs(path).select(["ulcer", "polyp"], "run").priors is None
    path.write_text("true;prior;2.0\nprior;0;1\n2;1;0\n")
    assert read_costs(path).select(["prior", "2"], "run").priors is None, "prior is a class"


@pytest.mark.parametrize(
    "old, new, code",
    [
        ("polyp,0", "adenoma,0", RunMessage.COSTS_NOT_SQUARE),
        ("ulcer,1.5", "polyp,1.5", RunMessage.COSTS_NOT_SQUARE),
        ("1.5", "-1", RunMessage.COST_INVALID),
        ("1.5", "", RunMessage.COST_INVALID),
        ("1.5", "inf", RunMessage.COST_INVALID),
        (",3", ",nan", RunMessage.COST_INVALID),
    ],
)
def test_invalid_tables(old, new, code, tmp_path):
    path = tmp_path / "costs.csv"
    path.write_text(VALID.replace(old, new))
    with raises(code):
        read_costs(path)


def test_priors_must_not_all_be_0(tmp_path):
    path = tmp_path / "costs.csv"
    path.write_text(VALID.replace(",1\n", ",0\n").replace(",3\n", ",0\n"))
    with raises(RunMessage.COST_INVALID):
        read_costs(path)


def test_other_classes_are_named(tmp_path):
    path = tmp_path / "costs.csv"
    path.write_text(VALID)
    with raises(RunMessage.COSTS_OF_OTHER_CLASSES, missing=["cancer"], unknown=["ulcer"]):
        read_costs(path).select(["polyp", "cancer"], "run")
