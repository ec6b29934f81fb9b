"""The table of proofs: a row for every class, whatever becomes of the others."""

import re

import pytest

pytest.importorskip("torch", reason="torch is the oracle")

from experiments import prove_ports
from vlm_jax.errors import InputError
from vlm_jax.weights.families import FAMILIES

pytestmark = pytest.mark.parity


def rows(capsys):
    """The cells of each class."""
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    return {class_name: cells for _, class_name, *cells in lines}


def test_one_refusal_ends_its_own_row_alone(monkeypatch, capsys):
    def prove(family, class_name):
        if family.name == "bert":
            raise InputError("the sizes do not fit\nin two lines")
        return "1.0e-07 | 3 tensors | not compared", True

    monkeypatch.setattr(prove_ports, "_prove", prove)
    assert prove_ports.main([]) == 1
    table = rows(capsys)
    families = [family for family in FAMILIES.values() if not family.alias_of]
    whole = {name for family in families for name, known in family.classes.items() if not known.left}
    assert set(table) == whole and {"resnet50", "mobilenet_v2", "efficientnet_lite0", "CLIPVisionModel"} <= whole
    assert "the sizes do not fit" in table["BertModel"][0] and "FAIL" in table["BertModel"][-1]
    assert "FAIL" not in table["ViTModel"][-1]


def test_a_network_that_transformers_lacks_has_a_row(capsys):
    assert prove_ports.main(["--only", "mobilenet_v2"]) == 0
    difference, exported, training = rows(capsys)["mobilenet_v2"]
    assert re.fullmatch(r"\d\.\de-0\d", difference) and exported.endswith("tensors") and training == "not compared"
