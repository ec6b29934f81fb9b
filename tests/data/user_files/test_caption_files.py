"""Captions in three layouts: every caption is used or named with a reason, no path leaves the folder of images."""

import json
import re
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from vlm_jax.data.settings import CaptionFiles
from vlm_jax.data.sources import open_split
from vlm_jax.data.splits import tenth
from vlm_jax.data.user_files import dataset
from vlm_jax.data.user_files.coco_captions import CocoCaptions
from vlm_jax.data.user_files.dataset import read_split
from vlm_jax.data.user_files.karpathy import Karpathy
from vlm_jax.data.user_files.table import TableCaptions, TableQuestions
from vlm_jax.errors import InputError
from vlm_jax.settings.changes import with_changes

PHOTOS = Path(__file__).parents[4] / "shared" / "data" / "coco_photos.tar"  # beside a checkout, if at all


@pytest.fixture
def place(tmp_path):
    """A folder with images, some in folders, and a secret beside it."""
    names = ["a.png", "b.png", "sub/c.png", "train2017/000000000009.jpg", "val2014/COCO_val2014_000000000042.jpg"]
    for name in (*(f"images/{name}" for name in names), "secret.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), "red").save(tmp_path / name)
    return tmp_path


def write(path, content):
    """A list as JSON Lines, anything else as JSON; bytes as they are."""
    rows = content if isinstance(content, list) else [content]
    path.write_bytes(b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows))
    return str(path)


KINDS = {"table": TableCaptions, "coco_captions": CocoCaptions, "karpathy": Karpathy}


def data_of(place, *names, name="table", **settings):
    """Settings for files in `place`, of one split in all three places where a data set has one file a split."""
    paths = tuple(place / record for record in names)
    others = {"validation": paths, "test": paths} if issubclass(KINDS[name], CaptionFiles) else {}
    files = {"images": place / "images", "train": paths, "directory": place / "kept"}
    return KINDS[name](**files | others | settings)


def texts_of(examples):
    return {example.image_id: [text.text for text in example.texts] for example in examples}


# JSON Lines


def lines_of(place, *rows, captions="all"):
    write(place / "rows.jsonl", list(rows))
    return read_split(data_of(place, "rows.jsonl", captions=captions), "train")


def row(**changes):
    values = {"image": "a.png", "captions": ["a cat"], **changes}
    return {key: value for key, value in values.items() if value is not ...}


def test_lines_about_an_image_add_up_in_order(place):
    reading = lines_of(
        place,
        row(image="sub//./c.png", captions=["a cat", "a cat", "Zwei 猫"]),
        row(captions=["a dog"], question="kept out?"),
        row(image="./sub/c.png", captions=["another cat"]),
    )
    first, second = reading.examples
    assert reading.bad_rows == () and (first.image_id, second.image_id) == ("sub/c.png", "a.png")
    assert first.image == place / "images" / "sub" / "c.png"
    assert [tuple(caption) for caption in first.texts] == [
        ("rows.jsonl:1#1", "a cat", (), "caption"),
        ("rows.jsonl:1#2", "a cat", (), "caption"),
        ("rows.jsonl:1#3", "Zwei 猫", (), "caption"),
        ("rows.jsonl:3#1", "another cat", (), "caption"),
    ]


def test_the_first_caption_of_an_image_alone(place):
    rows = row(captions=["a cat", "a pet"]), row(image="b.png", captions=["a dog"]), row(captions=["later"])
    assert texts_of(lines_of(place, *rows, captions="first").examples) == {"a.png": ["a cat"], "b.png": ["a dog"]}
    assert texts_of(lines_of(place, *rows).examples)["a.png"] == ["a cat", "a pet", "later"]


def test_one_file_of_lines_serves_questions_and_captions_in_one_process(place):
    write(place / "rows.jsonl", [{**row(captions=["a cat"]), "question": "what?", "answers": ["cat"]}])
    captions = data_of(place, "rows.jsonl")
    questions = TableQuestions(**{name: value for name, value in captions if name not in ("captions", "kind")})
    for data, expected in ((captions, "a cat"), (questions, "what?"), (captions, "a cat")):
        (example,) = read_split(data, "train").examples
        assert example.texts[0].text == expected


BAD_LINES = {
    "no captions": (
        row(captions=..., question="?"),
        r"the key 'captions' is missing; expected 'image' and 'captions'$",
    ),
    "a slip": (row(captions=..., captoins=["a"]), r"the key 'captions' is missing; did you mean 'captoins'\?"),
    "no image": (row(image=...), r"the key 'image' is missing; expected"),
    "a text": (row(captions="a cat"), r"captions must be a list, not 'a cat'"),
    "an object": (row(captions={"a": 1}), r"captions must be a list, not an object"),
    "none": (row(captions=[]), r"captions is empty; give at least one caption"),
    "an empty caption": (row(captions=["a", ""]), r"caption 2 is empty"),
    "a blank caption": (row(captions=[" \u3000\n"]), r"caption 1 is empty"),
    "a number": (row(captions=["a", 2]), r"caption 2 must be a text, not 2"),
    "null": (row(captions=[None]), r"caption 1 must be a text, not null"),
    "half an emoji": (row(captions=["\ud83d"]), r"caption 1 holds half a surrogate pair"),
    "missing": (row(image="z.png"), r"no image 'z.png'"),
    "up and out": (row(image="../secret.png"), r"holds '\.\.'; it may not leave the folder"),
    "absolute": (row(image="/etc/passwd"), r"'/etc/passwd' is absolute"),
    "link out": (row(image="out.png"), r"'out.png' leads outside the folder of images"),
    "a number as path": (row(image=5), r"the image path must be a text, not 5"),
    "no JSON": (b"{'image': 1}", r"the line is not JSON"),
    "no UTF-8": (b'{"image": "\xff"}', r"the line is not UTF-8: byte 0xff"),
    "long": (b'{"image": "' + b"a" * 10_000_000 + b'"}', r"longer than 10,000,000 bytes"),
    "deep": (b'{"captions": ' + b"[" * 200_000, r"nested too deeply"),
    "a key twice": (b'{"captions": [], "captions": []}', r"the key 'captions' stands in it twice"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_named_and_the_others_live(place, name):
    (place / "images" / "out.png").symlink_to("../secret.png")
    bad, reason = BAD_LINES[name]
    reading = lines_of(place, row(), bad, row(image="b.png"))
    assert texts_of(reading.examples) == {"a.png": ["a cat"], "b.png": ["a cat"]}
    (bad_row,) = reading.bad_rows
    assert (bad_row.file, bad_row.place) == (str(place / "rows.jsonl"), 2)
    assert re.search(reason, bad_row.reason), bad_row.reason
    assert str(bad_row).isprintable() and len(bad_row.reason) < 200


def test_a_damaged_image_is_a_bad_row_of_its_captions(place):
    (place / "images" / "b.png").write_bytes(b"broken")
    write(place / "rows.jsonl", [row(), row(image="b.png", captions=["one", "two"])])
    with pytest.raises(
        InputError, match=r"^1 bad row, the first .*b\.png, 2 captions: rows.jsonl:2#1, rows.jsonl:2#2: "
    ):
        open_split(data_of(place, "rows.jsonl"), "train")


# COCO's published captions


def published(*captions, images=((9, "000000000009.jpg"), (42, "COCO_val2014_000000000042.jpg"))):
    """COCO's layout; captions are (id, image, text)."""
    return {
        "info": {"year": 2017},
        "licenses": [],
        "images": [{"license": 3, "file_name": name, "id": number, "height": 4, "width": 4} for number, name in images],
        "annotations": [{"image_id": image, "id": number, "caption": text} for number, image, text in captions],
    }


CAPTIONS = ((770, 42, "A cat."), (3, 9, "a dog"), (771, 42, "Two cats\n"))


def coco_of(place, *contents):
    names = [f"captions_{number}.json" for number in range(len(contents))]
    for name, content in zip(names, contents, strict=True):
        write(place / name, content)
    return data_of(place, *names, name="coco_captions")


def test_coco_captions_by_the_number_of_their_image(place):
    examples = open_split(coco_of(place, published(*CAPTIONS)), "train")
    assert [example.image_id for example in examples] == ["42", "9"]
    assert [example.image.name for example in examples] == ["COCO_val2014_000000000042.jpg", "000000000009.jpg"]
    assert [tuple(caption) for caption in examples[0].texts] == [
        ("770", "A cat.", (), "caption"),
        ("771", "Two cats\n", (), "caption"),
    ]
    results = [{"image_id": int(example.image_id), "caption": "x"} for example in examples]  # COCO's format of results
    assert json.dumps(results) == '[{"image_id": 42, "caption": "x"}, {"image_id": 9, "caption": "x"}]'


@pytest.mark.parametrize(
    "name",
    ["COCO_train2014_000000000009.jpg", "000000000009.jpg", "train2017/000000000009.jpg", "train2014/COCO_train2014_"
     "000000000009.jpg"],
)  # fmt: skip
def test_an_image_of_2014_is_found_under_its_name_of_2017(place, name):
    (example,) = open_split(coco_of(place, published((1, 9, "a dog"), images=[(9, name)])), "train")
    assert example.image == place / "images" / "train2017" / "000000000009.jpg"


def test_several_files_are_one_split_and_an_image_in_two_is_one(place):
    second = published((5, 9, "more"), images=[(9, "000000000009.jpg")])
    data = coco_of(place, published(*CAPTIONS), second)
    assert texts_of(open_split(data, "train")) == {"42": ["A cat.", "Two cats\n"], "9": ["a dog", "more"]}
    other = published((6, 9, "no"), images=[(9, "a.png")])
    reading = read_split(coco_of(place, published(*CAPTIONS), other), "train")
    assert [str(bad) for bad in reading.bad_rows] == [
        f"{place}/captions_1.json, image 9: the file_name is 'a.png', in an earlier file '000000000009.jpg'"
    ]
    assert texts_of(reading.examples)["9"] == ["a dog"]


def test_a_missing_image_is_named_once_with_the_number_of_its_captions(place):
    content = published(*CAPTIONS, images=[(9, "000000000009.jpg"), (42, "gone.jpg")])
    reading = read_split(coco_of(place, content), "train")
    assert list(texts_of(reading.examples)) == ["9"]
    assert [str(bad) for bad in reading.bad_rows] == [
        f"{place}/captions_0.json, image 42: no image 'gone.jpg'; its 2 captions cannot be used"
    ]


BAD_COCO = {
    "no image": ("annotations", {"id": 1, "image_id": 8, "caption": "x"}, "caption 1", r"no image has the id 8"),
    "empty": ("annotations", {"id": 1, "image_id": 9, "caption": " "}, "caption 1", r"the caption is empty"),
    "list": ("annotations", {"id": 1, "image_id": 9, "caption": ["x"]}, "caption 1", r"the caption must be a text, no"),
    "half": ("annotations", {"id": 1, "image_id": 9, "caption": "\udc00"}, "caption 1", r"half a surrogate pair"),
    "id twice": ("annotations", {"id": 3, "image_id": 9, "caption": "x"}, "caption 3", r"id '3' belongs to an earlier"),
    "no id": ("annotations", {"image_id": 9, "caption": "x"}, "annotations entry 4", r"id must be .*, not null"),
    "true": (
        "annotations",
        {"id": 1, "image_id": True, "caption": "x"},
        "caption 1",
        r"image_id must be a whole numbe",
    ),
    "text": ("annotations", {"id": 1, "image_id": "9", "caption": "x"}, "caption 1", r"image_id must be .*, not '9'"),
    "no object": ("annotations", [1], "annotations entry 4", r"the entry is no object"),
    "image twice": ("images", {"id": 9, "file_name": "a.png"}, "image 9", r"an earlier entry has the same id"),
    "no caption": ("images", {"id": 8, "file_name": "a.png"}, "image 8", r"no caption has this image_id"),
    "large": ("images", {"id": 10**12, "file_name": "a.png"}, "image 1000000000000", r"at most 12 digits"),
    "negative": ("images", {"id": -1, "file_name": "a.png"}, "image -1", r"id must be .*not -1"),
    "image no object": ("images", 5, "images entry 3", r"the entry is no object"),
}


@pytest.mark.parametrize("name", BAD_COCO)
def test_a_bad_entry_of_coco_is_named_and_the_others_live(place, name):
    kind, entry, where, reason = BAD_COCO[name]
    content = published(*CAPTIONS)
    content[kind].append(entry)
    reading = read_split(coco_of(place, content), "train")
    (bad_row,) = reading.bad_rows
    assert bad_row.place == where and re.search(reason, bad_row.reason), bad_row
    assert texts_of(reading.examples) == {"42": ["A cat.", "Two cats\n"], "9": ["a dog"]}


@pytest.mark.parametrize(
    ("file_name", "reason"),
    [
        ("../secret.png", r"holds '\.\.'"),
        ("/etc/passwd", r"'/etc/passwd' is absolute"),
        ("~/secret.png", r"no image '~/secret.png'"),
        ("sub", r"'sub' is no regular file"),
        ("out.png", r"leads outside"),
        ("x\0.png", r"holds a NUL"),
        ("x" * 5000 + "/COCO_x_000000000042.jpg", r"File name too long"),
        (None, r"file_name must be a text, not null"),
        (" ", r"file_name is empty"),
    ],
)
def test_no_path_of_coco_leaves_the_folder(place, file_name, reason):
    (place / "images" / "out.png").symlink_to("../secret.png")
    content = published(*CAPTIONS, images=[(9, "000000000009.jpg"), (42, file_name)])
    reading = read_split(coco_of(place, content), "train")
    (bad_row,) = reading.bad_rows
    assert bad_row.place == "image 42" and re.search(reason, bad_row.reason), bad_row
    assert list(texts_of(reading.examples)) == ["9"] and str(bad_row).isprintable()


# Karpathy's splits

SENTENCES = ("A cat.", "a pet")


def entry(number, filename, split="train", *, texts=SENTENCES, **changes):
    sentences = [
        {"tokens": text.split(), "raw": text, "imgid": number, "sentid": 10 * number + place}
        for place, text in enumerate(texts)
    ]
    identity = {"sentids": [record["sentid"] for record in sentences], "imgid": number, "filename": filename}
    return {**identity, "sentences": sentences, "split": split, **changes}


def karpathy_of(place, *images):
    write(place / "dataset.json", {"images": images, "dataset": "coco"})
    return data_of(place, "dataset.json", name="karpathy")


def test_one_karpathy_file_serves_every_split(place):
    data = karpathy_of(
        place,
        entry(1, "a.png", texts=("a cat", "a pet")),
        entry(2, "000000000009.jpg", "restval", filepath="train2017", cocoid=9),
        entry(3, "COCO_val2014_000000000042.jpg", "val", filepath="val2014", cocoid=42),
        entry(4, "c.png", "test", filepath="sub"),
    )
    train, validation, test = (open_split(data, split) for split in ("train", "validation", "test"))
    assert [example.image_id for example in train] == ["a.png", "9"]
    assert [example.image_id for example in validation] == ["42"] and [e.image_id for e in test] == ["sub/c.png"]
    assert [tuple(caption) for caption in train[0].texts] == [
        ("10", "a cat", (), "caption"),
        ("11", "a pet", (), "caption"),
    ]
    assert validation[0].image == place / "images" / "val2014" / "COCO_val2014_000000000042.jpg"
    first = with_changes(data, {"captions": "first"})
    assert texts_of(open_split(first, "train")) == {"a.png": ["a cat"], "9": ["A cat."]}
    assert open_split(first, "test") == test


def test_no_tenth_is_taken_from_a_karpathy_file(place):
    """Not even of images whose hash would put them there."""
    names = [f"{number}.png" for number in range(100) if tenth(f"{number}.png") < 2]
    for name in names:
        Image.new("RGB", (4, 4)).save(place / "images" / name)
    data = karpathy_of(place, *(entry(number, name) for number, name in enumerate(names)))
    assert len(names) > 10 and len(read_split(data, "train").examples) == len(names)
    assert read_split(data, "validation").examples == () == read_split(data, "test").examples
    with pytest.raises(InputError, match=r"^the validation split is empty: no image for it in .*dataset.json$"):
        open_split(data, "train")


def test_a_karpathy_file_in_a_flat_folder(place):
    data = karpathy_of(place, entry(1, "a.png", filepath="somewhere"))
    assert [example.image.name for example in read_split(data, "train").examples] == ["a.png"]


BAD_KARPATHY = {
    "no split": (entry(2, "b.png", None), "image 'b.png'", r"split must be a text, not null"),
    "other split": (entry(2, "b.png", "trian"), "image 'b.png'", r"split is 'trian'; expected one of train, restval"),
    "a list": (entry(2, "b.png", ["train"]), "image 'b.png'", r"split must be a text, not a list"),
    "twice": (entry(2, "./a.png", "test"), "image './a.png'", r"an earlier entry is about the same image"),
    "no sentence": (entry(2, "b.png", texts=()), "image 'b.png'", r"sentences is empty; give at least one sentence"),
    "sentences": (entry(2, "b.png", sentences="x"), "image 'b.png'", r"sentences must be a list, not 'x'"),
    "missing": (entry(2, "z.png"), "image 'z.png'", r"no image 'z.png'"),
    "out": (entry(2, "secret.png", filepath=".."), "image 'secret.png'", r"holds '\.\.'"),
    "out by name": (entry(2, "../secret.png"), "image '../secret.png'", r"holds '\.\.'"),
    "absolute": (entry(2, "/etc/passwd", filepath="sub"), "image '/etc/passwd'", r"'/etc/passwd' is absolute"),
    "path": (entry(2, "b.png", filepath=3), "image 'b.png'", r"filepath must be a text, not 3"),
    "name": (entry(2, 7), "images entry 2", r"filename must be a text, not 7"),
    "cocoid": (entry(2, "b.png", cocoid="x"), "image 'b.png'", r"cocoid must be a whole number"),
    "no object": (None, "images entry 2", r"the entry is no object"),
}


@pytest.mark.parametrize("name", BAD_KARPATHY)
def test_a_bad_image_of_karpathy_is_named_and_the_others_live(place, name):
    bad, where, reason = BAD_KARPATHY[name]
    reading = read_split(karpathy_of(place, entry(1, "a.png"), bad, entry(3, "sub/c.png")), "train")
    (bad_row,) = reading.bad_rows
    assert bad_row.place == where and re.search(reason, bad_row.reason), bad_row
    assert texts_of(reading.examples) == {"a.png": ["A cat.", "a pet"], "sub/c.png": ["A cat.", "a pet"]}


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        ({"raw": "", "sentid": 5}, r"raw is empty"),
        ({"raw": ["a"], "sentid": 5}, r"raw must be a text, not a list"),
        ({"raw": "a"}, r"sentid must be a text or a whole number, not null"),
        ({"raw": "a", "sentid": 10}, r"the sentid '10' belongs to an earlier row"),
        ("a", r"the sentence is no object"),
    ],
)
def test_a_bad_sentence_leaves_the_others_of_its_image(place, sentence, reason):
    image = entry(1, "a.png")
    image["sentences"].append(sentence)
    reading = read_split(karpathy_of(place, image), "train")
    (bad_row,) = reading.bad_rows
    assert bad_row.place == "image 'a.png', sentence 3" and re.search(reason, bad_row.reason), bad_row
    assert texts_of(reading.examples) == {"a.png": ["A cat.", "a pet"]}


# All layouts


@pytest.mark.parametrize("name", ["coco_captions", "karpathy"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"x.json is not JSON"),
        (b'{"images": [', r"x.json is not JSON"),
        (b"[]", r"x.json: expected an object with lists 'images'"),
        (b'{"images": {}, "annotations": []}', r"x.json: expected an object with lists 'images'"),
        (b'{"images": [], "images": [], "annotations": []}', r"x.json: expected an object with lists 'images'"),
        (b'{"images": "\xff"}', r"x.json is not UTF-8: byte 13"),
        (b'{"images": ' + b"[" * 200_000, r"x.json is nested too deeply; expected"),
        (b'{"images": [' + b"9" * 5000 + b"]}", r"x.json is not JSON: Exceeds the limit"),
        (b'{"images": [], "annotations": []}', r"the train split is empty: no image for it in .*x.json$"),
    ],
)
def test_files_that_are_none_are_named(place, name, content, message):
    (place / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        open_split(data_of(place, "x.json", name=name, bad_rows="skip"), "train")
    assert "\n" not in str(error.value)


def test_a_key_twice_spoils_its_entry_only(place):
    coco = json.dumps(published(*CAPTIONS)).replace('"image_id": 9,', '"image_id": 9, "image_id": 42,').encode()
    reading = read_split(coco_of(place, coco), "train")
    assert list(texts_of(reading.examples)) == ["42"]
    assert {bad.reason for bad in reading.bad_rows} == {
        "the entry is no object with keys that differ", "no caption has this image_id",
    }  # fmt: skip


def test_a_karpathy_file_is_read_once_for_all_splits_until_it_changes(place):
    images = [entry(1, "a.png"), entry(2, "b.png", "val"), entry(3, "sub/c.png", "test")]
    data = karpathy_of(place, *images)
    before = dataset._read.cache_info().misses
    for split, captions in (("train", "all"), ("validation", "all"), ("test", "first")):
        assert len(open_split(with_changes(data, {"captions": captions}), split)) == 1
    assert dataset._read.cache_info().misses == before + 1
    data = karpathy_of(place, *images, entry(4, "000000000009.jpg"))
    assert len(open_split(data, "train")) == 2


def test_real_photographs(tmp_path):
    if not PHOTOS.exists():
        pytest.skip("the photographs are not beside this checkout")
    with tarfile.open(PHOTOS) as tar:
        tar.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    listed = json.loads((tmp_path / "captions.json").read_text(encoding="utf-8"))
    write(tmp_path / "rows.jsonl", [{"image": record["file"], "captions": record["captions"]} for record in listed])
    numbered = [
        (n, record["id"], text) for n, (record, text) in enumerate((e, t) for e in listed for t in e["captions"])
    ]
    images = [(record["id"], f"COCO_{record['split']}_{record['file']}") for record in listed]
    write(tmp_path / "coco.json", published(*numbered, images=images))
    images = [entry(record["id"], record["file"], "restval", texts=record["captions"]) for record in listed]
    write(tmp_path / "karpathy.json", {"images": images})
    texts_by_layout = []
    for name, file in (("table", "rows.jsonl"), ("coco_captions", "coco.json"), ("karpathy", "karpathy.json")):
        data = data_of(tmp_path, file, name=name)
        reading = read_split(data, "train")
        assert reading.bad_rows == ()
        texts_by_layout.append([(e.image, [text.text for text in e.texts]) for e in reading.examples])
    assert texts_by_layout[0] == texts_by_layout[1] == texts_by_layout[2] and len(texts_by_layout[0]) == 111
    assert sum(len(texts) for _, texts in texts_by_layout[0]) == 555
