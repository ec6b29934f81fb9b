"""Validations that all scored the same are told, and so are those before a resume."""

import json
import math

import pytest

from vlm_jax.training.selection import Selection


def run(scores, restart_after=None):
    """(the warnings at each validation, those of the whole run); perhaps gone on from a checkpoint's JSON."""
    selection, by_step = Selection("accuracy"), []
    for place, score in enumerate(scores, 1):
        by_step.append(selection.add(10 * place, score))
        if place == restart_after:
            state = json.loads(json.dumps(selection.state()))
            selection = Selection("accuracy")
            selection.restore(state)
    return by_step, selection.warnings()


@pytest.mark.parametrize("restart_after", [None, 1, 2, 3, 4])
def test_the_third_of_the_same_is_warned_of(restart_after):
    by_step, final = run([0.25, 0.0, 0.0, 0.0, 0.0, 0.5], restart_after)
    assert [len(warnings) for warnings in by_step] == [0, 0, 0, 1, 1, 0]
    assert "0.0000" in by_step[4][0] and "4 validations" in by_step[4][0] and "steps 20 to 50" in by_step[4][0]
    assert final == by_step[4]


@pytest.mark.parametrize("restart_after", [None, 1, 3, 4])
def test_they_need_not_be_in_a_row(restart_after):
    by_step, final = run([0.5, 0.4, 0.5, 0.4, 0.5, 0.3], restart_after)
    assert [len(warnings) for warnings in by_step] == [0, 0, 0, 0, 1, 0]
    assert "0.5000" in by_step[4][0] and "3 validations" in by_step[4][0] and "steps 10 to 50" in by_step[4][0]
    assert final == by_step[4]


@pytest.mark.parametrize("scores", [[], [0.5], [0.5, 0.5], [0.5, 0.5, 0.4, 0.4, 0.3], [0.1, 0.2, 0.3]])
def test_fewer_are_not(scores):
    by_step, final = run(scores)
    assert not any(by_step) and final == []


def test_what_is_no_number_is_the_same_as_itself():
    by_step, final = run([math.nan, math.nan, math.nan])
    assert by_step[2] == final and "not a finite number" in final[0]
