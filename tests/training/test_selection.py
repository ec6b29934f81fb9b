"""Validations that all scored the same are told, and so are those before a resume."""

import json
import math

import pytest

from vlm_jax.training.selection import Selection


def run(scores, restart_after=None):
    """(the warnings at each validation, those of the whole run); perhaps gone on from a checkpoint's JSON."""
    selection, found = Selection("accuracy"), []
    for place, score in enumerate(scores, 1):
        found.append(selection.add(10 * place, score))
        if place == restart_after:
            state = json.loads(json.dumps(selection.state()))
            selection = Selection("accuracy")
            selection.restore(state)
    return found, selection.warnings()


@pytest.mark.parametrize("restart_after", [None, 1, 2, 3, 4])
def test_the_third_of_the_same_is_warned_of(restart_after):
    each, whole = run([0.25, 0.0, 0.0, 0.0, 0.0, 0.5], restart_after)
    assert [len(warnings) for warnings in each] == [0, 0, 0, 1, 1, 0]
    assert "0.0000" in each[4][0] and "4 validations" in each[4][0] and "steps 20 to 50" in each[4][0]
    assert whole == each[4]


@pytest.mark.parametrize("restart_after", [None, 1, 3, 4])
def test_they_need_not_be_in_a_row(restart_after):
    each, whole = run([0.5, 0.4, 0.5, 0.4, 0.5, 0.3], restart_after)
    assert [len(warnings) for warnings in each] == [0, 0, 0, 0, 1, 0]
    assert "0.5000" in each[4][0] and "3 validations" in each[4][0] and "steps 10 to 50" in each[4][0]
    assert whole == each[4]


@pytest.mark.parametrize("scores", [[], [0.5], [0.5, 0.5], [0.5, 0.5, 0.4, 0.4, 0.3], [0.1, 0.2, 0.3]])
def test_fewer_are_not(scores):
    each, whole = run(scores)
    assert not any(each) and whole == []


def test_what_is_no_number_is_the_same_as_itself():
    each, whole = run([math.nan, math.nan, math.nan])
    assert each[2] == whole and "not a finite number" in whole[0]
