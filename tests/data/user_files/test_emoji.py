"""Emoji drawings: labels and tags, splits by label and by hand, entries that cannot be used."""

import json
import re
import tarfile
import zlib
from pathlib import Path

import pytest
from PIL import Image

from vlm_jax.data.sources import open_split
from vlm_jax.data.user_files.dataset import read_split
from vlm_jax.data.user_files.emoji import Emoji
from vlm_jax.errors import InputError

REAL = Path(__file__).parents[4] / "shared" / "data" / "emoji64.tar"  # beside a checkout, if at all
# CRC-32 modulo 10: 0 is test, 1 validation, anything else train.
TRAIN, OTHER_TRAIN, VALIDATION, TEST = "1f600", "1f601", "1f608", "1f604"


def emoji(code, label="a face", tags=("smile",), styles=("google", "fluent3d"), **changes):
    return {"code": code, "label": label, "tags": list(tags), "renderings": list(styles), "category": "x", **changes}


@pytest.fixture
def folder(tmp_path):
    for code in (TRAIN, OTHER_TRAIN, VALIDATION, TEST):
        for style in ("google", "fluent3d"):
            (tmp_path / "emoji" / style).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), "red").save(tmp_path / "emoji" / style / f"{code}.png")
    Image.new("RGB", (4, 4), "blue").save(tmp_path / "secret.png")
    return tmp_path / "emoji"


ALL = [emoji(TRAIN), emoji(OTHER_TRAIN, styles=["google"]), emoji(VALIDATION), emoji(TEST, "joy", ())]


def data_of(folder, *entries, **settings):
    if entries:
        (folder / "captions.json").write_text(json.dumps(entries), encoding="utf-8")
    return Emoji(images=folder, directory=folder.parent / "kept", **settings)


def test_splits_by_label_and_by_hand(folder):
    assert [zlib.crc32(code.encode()) % 10 for code in (VALIDATION, TEST)] == [1, 0]
    assert min(zlib.crc32(code.encode()) % 10 for code in (TRAIN, OTHER_TRAIN)) > 1
    data = data_of(folder, *ALL)
    assert {split: [example.image_id for example in open_split(data, split)] for split in Emoji.splits} == {
        "train": [f"google/{TRAIN}.png", f"google/{OTHER_TRAIN}.png"],
        "validation": [f"google/{VALIDATION}.png"],
        "test": [f"google/{TEST}.png"],
        "test_style": [f"fluent3d/{TRAIN}.png"],
        "test_style_unseen": [f"fluent3d/{TEST}.png"],
    }
    assert open_split(data, "test_style")[0].image == folder / "fluent3d" / f"{TRAIN}.png"
    with pytest.raises(InputError, match=r"emoji has no split 'test_stlye'; choose one of: .*test_style"):
        open_split(data, "test_stlye")


def test_the_label_comes_first_and_then_the_tags(folder):
    data = data_of(folder, emoji(TRAIN, "grinning face", ["grin", "grinning face", "猫"]), *ALL[2:])
    (example,) = open_split(data, "train")
    assert [tuple(text) for text in example.texts] == [
        (f"google/{TRAIN}.png#1", "grinning face", (), "caption"),
        (f"google/{TRAIN}.png#2", "grin", (), "tag"),
        (f"google/{TRAIN}.png#3", "猫", (), "tag"),
    ]
    assert [text.text for text in open_split(data, "test")[0].texts] == ["joy"], "a label without tags"


def test_labels_are_learned_and_tags_stay_references(folder):
    data = data_of(folder, *ALL, captions="first")
    assert [[text.text for text in example.texts] for example in open_split(data, "train")] == [["a face"]] * 2
    for split in ("validation", "test_style"):
        (example,) = open_split(data, split)
        assert [text.text for text in example.texts] == ["a face", "smile"], split


BAD = {
    "no label": (emoji(OTHER_TRAIN, None), f"emoji '{OTHER_TRAIN}'", r"label must be a text, not null"),
    "blank label": (emoji(OTHER_TRAIN, " \n"), f"emoji '{OTHER_TRAIN}'", r"label is empty"),
    "half a pair": (emoji(OTHER_TRAIN, "\ud83d"), f"emoji '{OTHER_TRAIN}'", r"label holds half a surrogate pair"),
    "tags": (emoji(OTHER_TRAIN) | {"tags": "smile"}, f"emoji '{OTHER_TRAIN}'", r"tags must be a list, not 'smile'"),
    "a tag": (emoji(OTHER_TRAIN, tags=["a", 3]), f"emoji '{OTHER_TRAIN}'", r"tag 2 must be a text, not 3"),
    "renderings": (emoji(OTHER_TRAIN, renderings=None), f"emoji '{OTHER_TRAIN}'", r"renderings must be a list, not nu"),
    "a rendering": (emoji(OTHER_TRAIN, styles=[[]]), f"emoji '{OTHER_TRAIN}'", r"rendering 1 must be a text, not a li"),
    "twice": (emoji(TRAIN), f"emoji '{TRAIN}'", r"an earlier entry has the same code"),
    "twice by path": (emoji(f"./{TRAIN}"), f"emoji './{TRAIN}'", r"an earlier entry has the same code"),
    "missing": (emoji("1f999"), "emoji '1f999'", r"no image 'google/1f999.png'"),
    "out": (emoji("../../secret"), "emoji '../../secret'", r"holds '\.\.'; it may not leave the folder"),
    "link": (emoji("link"), "emoji 'link'", r"'google/link.png' leads outside the folder"),
    "NUL": (emoji("1f\0"), r"emoji '1f\x00'", r"holds a NUL"),
    "no code": (emoji(5), "entry 2", r"code must be a text, not 5"),
    "half a code": (emoji("\ud83d"), r"emoji '\ud83d'", r"code holds half a surrogate pair"),
    "no object": ([1], "entry 2", r"the entry is no object"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_entry_is_named_and_the_others_live(folder, name):
    (folder / "google" / "link.png").symlink_to("../../secret.png")
    bad, place, reason = BAD[name]
    reading = read_split(data_of(folder, ALL[0], bad, *ALL[2:]), "train")
    (bad_row,) = reading.bad_rows
    assert (bad_row.file, bad_row.place) == (str(folder / "captions.json"), place)
    assert re.search(reason, bad_row.reason) and str(bad_row).isprintable(), bad_row
    assert [example.image_id for example in reading.examples] == [f"google/{TRAIN}.png"]


def test_a_rendering_named_twice_is_one_and_other_hands_are_left_alone(folder):
    data = data_of(folder, emoji(TRAIN, styles=["google", "google", "nobody", "../.."]))
    assert [example.image_id for example in read_split(data, "train").examples] == [f"google/{TRAIN}.png"]
    assert read_split(data, "train").bad_rows == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"data.images: no file '.*captions.json'; its folder holds no .json"),
        (b"{}", r"captions.json holds an object; expected a list of emoji with their labels"),
        (b"[", r"captions.json is not JSON"),
        (b'["\xff"]', r"captions.json is not UTF-8: byte 3"),
        (b"[]", r"the train split is empty: no image for it in .*captions.json$"),
    ],
)
def test_a_list_that_is_none_is_named(folder, content, message):
    if content is not None:
        (folder / "captions.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_split(data_of(folder), "train")


def test_real_renderings(tmp_path):
    if not REAL.exists():
        pytest.skip("the drawings are not beside this checkout")
    with tarfile.open(REAL) as tar:
        tar.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    data = data_of(tmp_path, captions="first")
    readings = {split: read_split(data, split) for split in Emoji.splits}
    assert all(reading.bad_rows == () for reading in readings.values())
    counts = {split: len(reading.examples) for split, reading in readings.items()}
    assert counts == {"train": 1523, "validation": 189, "test": 199, "test_style": 1474, "test_style_unseen": 192}
    labels = {split: [e.texts[0].text for e in reading.examples] for split, reading in readings.items()}
    seen = set(labels["train"])
    assert seen >= set(labels["test_style"]) and "grinning face" in seen
    assert not seen & {*labels["validation"], *labels["test"], *labels["test_style_unseen"]}
