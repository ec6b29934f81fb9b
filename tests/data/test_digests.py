"""The content of a split has one digest wherever it lies, and whatever is another in it is named."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from vlm_jax.data.datasets.easy_vqa import EasyVQA
from vlm_jax.data.digests import DIGITS, digest_split, image_digests, what_differs
from vlm_jax.data.sources import open_split
from vlm_jax.data.user_files.table import TableQuestions

OPENED = None  # while a list, gets every path that this process opens: an audit hook cannot be taken away


def _note(event, arguments):
    if event == "open" and OPENED is not None:
        OPENED.append(str(arguments[0]))


sys.addaudithook(_note)


def write(place, rows):
    """The text file and the images of a data set."""
    (place / "images").mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(dict.fromkeys(row["image"] for row in rows)):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "images" / name)
    write_rows(place, rows)


def write_rows(place, rows):
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


ROWS = [
    {"image": f"{n % 6}.png", "question": f"what is {n}?", "answers": ["red", "blue"][: 1 + n % 2]} for n in range(12)
]


@pytest.fixture
def place(tmp_path):
    write(tmp_path / "here", ROWS)
    return tmp_path / "here"


def data_of(place, **settings):
    splits = dict.fromkeys(("train", "validation", "test"), (place / "rows.jsonl",))
    return TableQuestions(images=place / "images", directory=place.parent / "kept", **splits, **settings)


def digest_of(place, split="train", **settings):
    data = data_of(place, **settings)
    return digest_split(open_split(data, split), data, split)


def test_it_is_of_content_and_not_of_places(place):
    moved = shutil.copytree(place, place.parent / "there" / "deep")
    before, after = digest_of(place), digest_of(moved)
    assert before == after and what_differs(before, after) is None
    assert (before.images, before.texts, list(before.items)) == (6, 12, [f"{n}.png" for n in range(6)])
    assert {len(item) for item in before.items.values()} == {DIGITS} and len(before.sha256) == 64


def test_ids_of_images_are_no_content(place):
    renamed = shutil.copytree(place, place.parent / "there")
    for n in range(6):
        (renamed / "images" / f"{n}.png").rename(renamed / "images" / f"new-{n}.png")
    write_rows(renamed, [row | {"image": f"new-{row['image']}", "question_id": f"q{n}"} for n, row in enumerate(ROWS)])
    assert what_differs(digest_of(place), digest_of(renamed)) is None


def swapped(place):
    changed_file, source_file = place / "images" / "1.png", place / "images" / "4.png"
    first = changed_file.read_bytes()
    changed_file.write_bytes(source_file.read_bytes())
    source_file.write_bytes(first)


def changed_rows(**changes):
    return lambda place: write_rows(place, [ROWS[0], ROWS[1] | changes, *ROWS[2:]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swapped, "2 images with another image, text or answer, the first '1.png'"),
        (changed_rows(answers=["green"]), "1 image with another image, text or answer, the first '1.png'"),
        (changed_rows(answers=["blue", "red"]), "1 image with another image, text or answer, the first '1.png'"),
        (changed_rows(question="what?"), "1 image with another image, text or answer, the first '1.png'"),
        (lambda place: write_rows(place, ROWS[:-1]), "1 image with another image, text or answer, the first '5.png'"),
        (lambda place: write_rows(place, [*ROWS[:2], *ROWS[3:8], *ROWS[9:]]), "1 image missing, the first '2.png'"),
        (lambda place: write_rows(place, ROWS[::-1]), "6 images with another image"),
        (lambda place: write_rows(place, [*ROWS[6:], *ROWS[:6]]), "6 images with another image"),
        (lambda place: write(place, [*ROWS, ROWS[0] | {"image": "z.png"}]), "1 image new, the first 'z.png'"),
    ],
)
def test_what_is_another_is_counted_and_named(place, change, message):
    before = digest_of(place)
    change(place)
    assert message in what_differs(before, digest_of(place))


def test_another_order_of_images_is_another_split(place):
    by_image = sorted(ROWS, key=lambda row: row["image"])
    write_rows(place, by_image)
    before = digest_of(place)
    write_rows(place, sorted(by_image, key=lambda row: row["image"], reverse=True))
    assert what_differs(before, digest_of(place)) == "its images are in another order"


@pytest.mark.parametrize("limits", [(None, 4), (4, None), (2, 4)])
def test_smaller_limits_compare_the_common_images(place, limits):
    before, after = (digest_of(place, "test", evaluation_limit=limit) for limit in limits)
    assert before.sha256 != after.sha256 and what_differs(before, after) is None
    write_rows(place, [ROWS[0] | {"answers": ["no"]}, *ROWS[1:]])
    assert "1 image with another" in what_differs(before, digest_of(place, "test", evaluation_limit=limits[1]))
    write_rows(place, ROWS[1:5])
    assert what_differs(before, digest_of(place, "test", evaluation_limit=limits[1])) is not None


def opened(place, call):
    """The images that a call opens."""
    global OPENED
    OPENED = []
    try:
        call()
        return sorted(path for path in OPENED if path.startswith(str(place / "images")) and path.endswith(".png"))
    finally:
        OPENED = None


def test_a_second_start_opens_no_image_and_a_third_those_that_changed(place):
    def start():
        data = data_of(place)
        for split in ("train", "validation", "test"):
            digest_split(open_split(data, split), data, split)

    assert len(set(opened(place, start))) == 6
    assert opened(place, start) == []
    file = place / "images" / "3.png"
    before = digest_of(place)
    Image.new("RGB", (16, 16), "red").save(file)
    assert set(opened(place, start)) == {str(file)}
    assert "the first '3.png'" in what_differs(before, digest_of(place))
    os.utime(file)
    assert set(opened(place, start)) == {str(file)}, "of another time it may be another one"


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: "nonsense\n\x00 \n",
        lambda _: "",
        lambda text: text[:-9],
        lambda text: text[:-9] + ("0" if text[-9] != "0" else "1") + text[-8:],
    ],
    ids=["nonsense", "empty", "cut", "one digit"],
)
def test_a_damaged_cache_is_rebuilt(place, damage):
    """It would say that an image is another one."""
    before = digest_of(place)
    for file in (place.parent / "kept").rglob("*.txt"):
        file.write_text(damage(file.read_text(encoding="utf-8")), encoding="utf-8")
    assert digest_of(place) == before
    assert opened(place, lambda: digest_of(place)) == [], "and remembered again"


def test_a_prepared_data_set_is_read_through_once(data_directory, tmp_path, monkeypatch):
    data = EasyVQA(directory=data_directory, limit=20)
    split_digest = digest_split(open_split(data, "train"), data, "train")
    monkeypatch.setattr("vlm_jax.data.digests.image_digests", lambda *_: pytest.fail("read again"))
    assert digest_split(open_split(data, "train"), data, "train") == split_digest
    monkeypatch.undo()
    moved = shutil.copytree(data_directory, tmp_path / "moved", ignore=shutil.ignore_patterns("split_digests"))
    data = EasyVQA(directory=moved, limit=20)
    assert digest_split(open_split(data, "train"), data, "train") == split_digest
    images = image_digests(open_split(data, "train"), data)
    assert len(images) == 20 == split_digest.images and len(set(images)) == 20
