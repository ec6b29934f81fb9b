"""Automatic splits: exact tenths of few images, hash tenths of many, groups together, and no order of a file."""

import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_jax.data.splits import EXACT_BELOW, divide, tenth


def names(count):
    return [f"{number}.png" for number in range(count)]


@pytest.mark.parametrize(
    ("images", "held_out"), [(3, 1), (4, 1), (10, 1), (14, 1), (15, 2), (60, 6), (170, 17), (EXACT_BELOW - 1, 100)]
)
def test_a_tenth_of_few_images_is_exact(images, held_out):
    counts = Counter(divide(names(images)))
    assert counts == {"train": images - 2 * held_out, "validation": held_out, "test": held_out}


def test_few_images_are_counted_off_by_their_hashes():
    images = names(60)
    order = sorted(images, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    expected = {"validation": set(order[:6]), "test": set(order[6:12]), "train": set(order[12:])}
    assigned = divide(images)
    assert {
        split: {n for n, its in zip(images, assigned, strict=True) if its == split} for split in expected
    } == expected


def test_many_images_are_divided_by_their_own_hash_alone():
    images = names(EXACT_BELOW + 400)
    assigned = divide(images)
    assert assigned == [{0: "validation", 1: "test"}.get(tenth(name), "train") for name in images]
    assert divide(images[:EXACT_BELOW]) == assigned[:EXACT_BELOW]  # those added move none


@pytest.mark.parametrize("count", [12, 100, EXACT_BELOW])
def test_the_order_of_the_file_does_not_matter(count):
    images, groups = names(count), [(str(number // 3),) if number % 2 else () for number in range(count)]
    order = np.random.default_rng(0).permutation(count)
    assigned, other = divide(images, groups), divide([images[i] for i in order], [groups[i] for i in order])
    assert [assigned[i] for i in order] == other


def test_one_more_of_few_images_moves_hardly_any():
    images = names(200)
    before, after = divide(images), divide(names(201))
    assert sum(a != b for a, b in zip(before, after[:200], strict=True)) <= 2


@settings(deadline=None, max_examples=40)
@given(
    groups=st.lists(
        st.lists(st.sampled_from("abcdefghij"), max_size=3, unique=True).map(tuple), min_size=5, max_size=60
    ),
    many=st.booleans(),
)
def test_images_joined_by_groups_are_in_one_split(groups, many):
    """Compared with joining by repeated merging of sets."""
    groups = groups * (EXACT_BELOW // len(groups) + 1) if many else groups
    assigned = divide(names(len(groups)), groups)
    parts = [{name} for name in "abcdefghij"]
    for mine in groups:
        touched = [part for part in parts if part & set(mine)]
        if touched:
            parts = [part for part in parts if part not in touched] + [set().union(*touched)]
    for part in parts:
        assert len({split for split, mine in zip(assigned, groups, strict=True) if part & set(mine)}) <= 1


def test_groups_fill_a_tenth_as_far_as_they_fit():
    groups = [("big",)] * 40 + [(f"pair {number // 2}",) for number in range(50)] + [()] * 10
    counts = Counter(divide(names(100), groups))
    assert counts == {"train": 80, "validation": 10, "test": 10}
    splits = dict(zip(groups, divide(names(100), groups), strict=True))
    assert splits["big",] == "train"


def test_only_large_groups_give_the_smallest():
    groups = [("a",)] * 30 + [("b",)] * 40 + [("c",)] * 20
    assigned = dict(zip(groups, divide(names(90), groups), strict=True))
    assert assigned == {("c",): "validation", ("a",): "test", ("b",): "train"}


def test_a_group_is_no_image_of_that_name():
    images = names(9)
    assert divide(images, [(), ("0.png",), *[()] * 7])[0] == divide(images, [(), ("x",), *[()] * 7])[0]


@pytest.mark.parametrize(("count", "expected"), [(0, []), (1, ["validation"]), (2, ["test", "validation"])])
def test_too_few_leave_nothing_to_train_on(count, expected):
    assert sorted(divide(names(count))) == expected
