"""Your own files: every row is used or named with a reason, no path leaves the folder, no image is in two splits."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from vlm_jax.data import image_inspection
from vlm_jax.data.answers import AnswerVocabulary
from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.data.image_settings import ImageInput
from vlm_jax.data.sources import open_split
from vlm_jax.data.splits import divide
from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.data.user_files import dataset
from vlm_jax.data.user_files.dataset import read_split
from vlm_jax.data.user_files.table import TableCaptions, TableQuestions
from vlm_jax.errors import InputError
from vlm_jax.invocation import command_name
from vlm_jax.settings.changes import with_changes

GOOD = {"image": "a.png", "question": "what is it?", "answers": ["a cat"]}


@pytest.fixture
def place(tmp_path):
    """A folder with images, and a secret beside it."""
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    for name in ("a.png", "b.png", "sub/c.png", "größe 猫.png"):
        Image.new("RGB", (4, 4), "red").save(images / name)
    Image.new("RGB", (4, 4), "blue").save(tmp_path / "secret.png")
    return tmp_path


def write(path, *rows):
    """A line a row; bytes as they are, text and objects as JSON Lines."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return str(path)


def data_of(place, train="rows.jsonl", *, kind=TableQuestions, bad_rows="refuse", **splits):
    """Settings for files in `place`; images in its folder `images`."""
    names = {"train": train, **splits}
    paths = {split: tuple(place / file for file in str(file_names).split()) for split, file_names in names.items()}
    return kind(images=place / "images", directory=place / "kept", bad_rows=bad_rows, **paths)


def read(place, *rows, **options):
    """What `train` holds when validation and test do not take a share of it."""
    write(place / "rows.jsonl", *rows)
    return read_split(data_of(place, validation="rows.jsonl", test="rows.jsonl", **options), "train")


def row(**changes):
    return {key: value for key, value in {**GOOD, **changes}.items() if value is not ...}


def text(**changes):
    return json.dumps(row(**changes)).encode()


def test_rows_of_an_image_become_one_example_in_order(place):
    reading = read(
        place,
        row(image="sub//./c.png", question_id=7, answers=["yes", "no", "yes"]),
        row(),
        row(image="./sub/c.png", question="how many?", answers=["2"], answer_type="number", extra={"kept": None}),
    )
    assert reading.bad_rows == () and [example.image_id for example in reading.examples] == ["sub/c.png", "a.png"]
    first, second = reading.examples
    assert first.image == place / "images" / "sub" / "c.png"
    assert [(q.text_id, q.text, q.answers, q.kind) for q in first.texts] == [
        ("7", "what is it?", ("yes", "no", "yes"), "yes_no"),
        ("rows.jsonl:3", "how many?", ("2",), "number"),
    ]
    assert [(q.text_id, q.kind) for q in second.texts] == [("rows.jsonl:2", "open")]


def test_blank_lines_carriage_returns_and_a_byte_order_mark_are_no_trouble(place):
    reading = read(place, b"\xef\xbb\xbf" + text() + b"\r", b"", b" \t\r", text(image="b.png") + b"\r")
    assert reading.bad_rows == ()
    assert [q.text_id for e in reading.examples for q in e.texts] == ["rows.jsonl:1", "rows.jsonl:4"]
    (place / "rows.jsonl").write_bytes(text())  # and no newline at the end
    assert len(read_split(data_of(place, validation="rows.jsonl"), "train").examples) == 1


BAD = {
    "no JSON": (b"{'image': 1}", r"the line is not JSON: .*, character 2$"),
    "half a line": (text()[:-5], r"the line is not JSON"),
    "two objects": (text() + text(), r"the line is not JSON: Extra data"),
    "a list": (b"[1]", r"the line is a list; expected one object a line"),
    "a number": (b"1e999", r"the line is inf; expected one object"),
    "null": (b"null", r"the line is null; expected one object"),
    "no UTF-8": (text()[:-2] + b"\xff]}", r"the line is not UTF-8: byte 0xff"),
    "UTF-16": (text().decode().encode("utf-16"), r"the line is not UTF-8: byte 0xff"),
    "surrogate bytes": (b'{"image": "\xed\xa0\x80"}', r"the line is not UTF-8: byte 0xed"),
    "deep lists": (b'{"image": ' + b"[" * 200_000, r"nested too deeply"),
    "deep objects": (b'{"a": ' * 200_000, r"nested too deeply"),
    "long": (b'{"image": "' + b"a" * 10_000_000 + b'"}', r"longer than 10,000,000 bytes"),
    "many digits": (b'{"question_id": ' + b"9" * 5000 + b"}", r"a number in it has too many digits"),
    "NaN": (text(question_id=float("nan")), r"NaN is no JSON"),
    "infinity": (text(extra=float("-inf")), r"-Infinity is no JSON"),
    "a key twice": (b'{"image": "a.png", "image": "b.png"}', r"the key 'image' stands in it twice"),
    "an inner key twice": (text()[:-1] + b', "x": {"y": 1, "y": 2}}', r"the key 'y' stands in it twice"),
    "no image": (row(image=..., imag="a.png"), r"the key 'image' is missing; did you mean 'imag'\?"),
    "no question": (row(question=...), r"the key 'question' is missing; expected 'image', 'question' and 'answers'"),
    "no answers": (row(answers=...), r"the key 'answers' is missing"),
    "answers as a text": (row(answers="a cat"), r"answers must be a list, not 'a cat'"),
    "answers as an object": (row(answers={"a": 1}), r"answers must be a list, not an object"),
    "empty answers": (row(answers=[]), r"answers is empty; give at least one"),
    "a number as answer": (row(answers=["one", 2]), r"answer 2 must be a text, not 2"),
    "a blank answer": (row(answers=[" \u3000\n"]), r"answer 1 is empty"),
    "half an emoji": (row(answers=["\ud83d"]), r"answer 1 holds half a surrogate pair, '\\ud83d'"),
    "half an emoji asked": (row(question="what \udc00?"), r"the question holds half a surrogate pair"),
    "empty question": (row(question=""), r"the question is empty"),
    "blank question": (row(question=" \t\n"), r"the question is empty"),
    "null question": (row(question=None), r"the question must be a text, not null"),
    "true as id": (row(question_id=True), r"question_id must be a text or a whole number, not true"),
    "a fraction as id": (row(question_id=1.5), r"question_id must be a text or a whole number, not 1.5"),
    "a list as id": (row(question_id=[1]), r"question_id must be .*, not a list"),
    "a taken id": (row(question_id="first"), r"the question_id 'first' belongs to an earlier row"),
    "empty kind": (row(answer_type=""), r"answer_type is empty"),
    "long kind": (row(answer_type="x" * 101), r"answer_type must be at most 100 printable characters, not 'xxx"),
    "kind of two lines": (row(answer_type="a\nb"), r"answer_type must be at most 100 printable characters"),
    "empty path": (row(image=""), r"the image path is empty"),
    "a number as path": (row(image=5), r"the image path must be a text, not 5"),
    "NUL in the path": (row(image="a.png\0"), r"holds a NUL"),
    "absolute": (row(image="/etc/passwd"), r"'/etc/passwd' is absolute"),
    "up and out": (row(image="../secret.png"), r"'../secret.png' holds '\.\.'; it may not leave the folder"),
    "down, up and out": (row(image="sub/../../secret.png"), r"holds '\.\.'"),
    "up and back": (row(image="sub/../a.png"), r"holds '\.\.'"),
    "home": (row(image="~/secret.png"), r"no image '~/secret.png'"),
    "missing": (row(image="z.png"), r"no image 'z.png'"),
    "missing folder": (row(image="z/a.png"), r"no image 'z/a.png'"),
    "a file as folder": (row(image="a.png/b.png"), r"no image 'a.png/b.png'"),
    "a folder": (row(image="sub"), r"'sub' is no regular file"),
    "the folder": (row(image="."), r"'\.' is no regular file"),
    "a long name": (row(image="x" * 5000), r"no image 'x{60}'\.\.\.$"),
    "a long folder": (row(image="x" * 5000 + "/a.png"), r"cannot read 'x{60}'\.\.\.: File name too long"),
    "a pipe": (row(image="pipe"), r"'pipe' is no regular file"),
    "link out": (row(image="out.png"), r"'out.png' leads outside the folder of images"),
    "folder link out": (row(image="out/secret.png"), r"leads outside the folder of images"),
    "device": (row(image="zero"), r"leads outside"),
    "dangling link": (row(image="dangling"), r"'dangling' is a link that leads nowhere"),
    "links in a circle": (row(image="circle"), r"'circle' is a link that leads nowhere"),
    "folder link in a circle": (row(image="circle/a.png"), r"link that leads nowhere"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_named_and_the_others_live(place, name):
    images = place / "images"
    os.mkfifo(images / "pipe")
    for link, target in {"out.png": "../secret.png", "out": "..", "zero": "/dev/zero", "circle": "circle"}.items():
        (images / link).symlink_to(target)
    (images / "dangling").symlink_to("nothing")
    bad, reason = BAD[name]
    reading = read(place, row(question_id="first"), bad, row(image="b.png"))
    assert [example.image_id for example in reading.examples] == ["a.png", "b.png"]
    (bad_row,) = reading.bad_rows
    assert (bad_row.file, bad_row.place) == (str(place / "rows.jsonl"), 2)
    assert re.search(reason, bad_row.reason), bad_row.reason
    assert str(bad_row).startswith(f"{place / 'rows.jsonl'}:2: ")
    assert str(bad_row).isprintable() and len(bad_row.reason) < 200


def test_a_home_in_a_path_is_never_expanded(place, monkeypatch):
    """With a relative folder of images a path may begin with "~", which readers of images expand."""
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.chdir(place / "images")
    (place / "images" / "~").mkdir()
    Image.new("RGB", (1, 1)).save(place / "images" / "~" / "secret.png")
    rows = write(place / "rows.jsonl", row(image="~/secret.png"))
    data = TableQuestions(images=Path(), **dict.fromkeys(("train", "validation", "test"), (Path(rows),)))
    (example,) = open_split(data, "train")
    assert example.image == place / "images" / "~" / "secret.png"


def test_links_inside_the_folder_are_fine(place):
    (place / "images" / "link.png").symlink_to("sub/c.png")
    (place / "images" / "folder").symlink_to("sub")
    (place / "elsewhere").symlink_to("images")
    rows = write(place / "rows.jsonl", row(image="link.png"), row(image="folder/c.png"), row(image="größe 猫.png"))
    splits = dict.fromkeys(("train", "validation", "test"), (Path(rows),))
    examples = open_split(TableQuestions(images=place / "elsewhere", **splits), "train")
    assert [example.image_id for example in examples] == ["link.png", "folder/c.png", "größe 猫.png"]
    assert all(example.image.read_bytes() for example in examples)


TEXTS = [
    "\0 and \x1b[31m", "שלום \u202e عكس", "👩‍👩‍👧‍👦 🧿", "猫は何色ですか", "e" + "\u0301" * 500, "$x$ \\ \" '",
    "\ufeff\u200b a",
    "word " * 200_000, "W" * 1_000_000,
]  # fmt: skip


def test_any_text_is_kept_and_can_be_encoded(place):
    reading = read(place, *(row(question=text, answers=[text]) for text in TEXTS))
    assert reading.bad_rows == ()
    (example,) = reading.examples
    assert [(question.text, question.answers) for question in example.texts] == [(text, (text,)) for text in TEXTS]
    tokenizer, answers = Tokenizer.build(["what is it?"], 100), AnswerVocabulary(["a cat"])
    encode = ExampleEncoder(tokenizer, answers, ImageInput(size=(8, 8)), max_length=8, texts_per_image=2)
    encoded = encode(example)
    assert encoded.input_ids.shape == (len(TEXTS), 8) and encoded.image.shape == (8, 8, 3)


def test_images_are_read_when_decoded_and_named_by_file(place):
    (place / "images" / "a.png").write_bytes(b"not an image")
    (example,) = read(place, row()).examples
    tokenizer, answers = Tokenizer.build(["what is it?"], 100), AnswerVocabulary(["a cat"])
    encode = ExampleEncoder(tokenizer, answers, ImageInput(size=(8, 8)), max_length=8, texts_per_image=2)
    with pytest.raises(InputError, match=rf"^{re.escape(str(place))}/images/a\.png is not an image"):
        encode(example)
    (place / "images" / "a.png").unlink()
    with pytest.raises(InputError, match=r"no image file .*images/a\.png"):
        encode(example)
    with pytest.raises(InputError, match=r"^image 5 is not an image"):
        encode(example._replace(image_id="5", image=b"not an image"))


def test_equal_texts_are_kept_once(place):
    (example,) = read(place, *(row(answers=["a", "a cat", "a cat"]) for _ in range(2))).examples
    first, second = example.texts
    assert first.text is second.text and first.answers is second.answers and first.answers[1] is first.answers[2]


def test_files_of_one_name_give_different_ids_that_do_not_depend_on_the_folder(place):
    (place / "more").mkdir()
    write(place / "more" / "rows.jsonl", row())
    write(place / "rows.jsonl", row())
    data = data_of(place, "rows.jsonl more/rows.jsonl", validation="rows.jsonl", test="rows.jsonl")
    moved = shutil.copytree(place, place / "moved" / "here")
    other = data_of(moved, "rows.jsonl more/rows.jsonl", validation="rows.jsonl", test="rows.jsonl")
    for settings in (data, other):
        (example,) = open_split(settings, "train")
        assert [question.text_id for question in example.texts] == ["rows.jsonl:1", "more/rows.jsonl:1"]


def test_bad_rows_are_refused_in_one_line(place):
    write(place / "rows.jsonl", row(), row(question=""), row(image="z.png"))
    write(place / "more.jsonl", row(image="b.png"), b"{")
    data = data_of(place, validation="rows.jsonl", test="more.jsonl")
    message = (
        f"3 bad rows, the first {place}/rows.jsonl:2: the question is empty; "
        f"run {command_name('inspect_data')} to see all, or set data.bad_rows skip"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):  # a training should not end with the test's
        open_split(data, "train")
    with pytest.raises(InputError, match=r"^1 bad row, the first .*more\.jsonl:2: the line is not JSON"):
        open_split(data, "test")


def test_bad_rows_are_skipped_counted_and_named_once(place, capfd):
    write(place / "rows.jsonl", row(), *[row(question="")] * 7, row(image="b.png"))
    data = data_of(place, bad_rows="skip", validation="rows.jsonl", test="rows.jsonl")
    for split in ("train", "validation", "test", "train"):
        assert [example.image_id for example in open_split(data, split)] == ["a.png", "b.png"]
    output, errors = capfd.readouterr()
    first = f"{place}/rows.jsonl:2: the question is empty; {place}/rows.jsonl:3: the question is empty; "
    read_as, note, *_ = errors.split("\n")
    assert output == "" and note.startswith(f"note: 7 bad rows left out: {first}")
    assert "JSON Lines" in read_as and "2 images, 2 questions; columns image, question, answers" in read_as
    assert errors.count("the question is empty") == 5 and errors.endswith("; and 2 more\n")


def damage(file):
    """Flip a byte in the midst of a PNG's pixels."""
    data = bytearray(file.read_bytes())
    data[data.index(b"IDAT") + 6] ^= 0xFF
    file.write_bytes(data)


def test_a_damaged_image_is_a_bad_row_of_every_question_about_it(place, capfd):
    damage(place / "images" / "b.png")
    for name in ("rows", "more"):
        rows = [row(image="a.png"), *(row(image="b.png", question=f"{n}?", question_id=f"q{n}") for n in range(5))]
        write(place / f"{name}.jsonl", *rows)
    files = {"validation": "more.jsonl", "test": "more.jsonl"}
    with pytest.raises(
        InputError, match=r"^1 bad row, the first .*b\.png, 5 questions: q0, q1, q2 and 2 more: .*damaged"
    ):
        open_split(data_of(place, **files), "train")
    for split in ("train", "validation", "test"):
        (example,) = open_split(data_of(place, bad_rows="skip", **files), split)
        assert example.image_id == "a.png"
    assert "1 bad row left out" in capfd.readouterr().err


def test_images_are_checked_once_until_they_change(place, monkeypatch):
    decoded = []
    read = image_inspection.read_image_file
    monkeypatch.setattr(
        image_inspection, "read_image_file", lambda path, **options: decoded.append(path.name) or read(path, **options)
    )
    write(place / "rows.jsonl", row(image="a.png"), row(image="b.png"))
    data = data_of(place, validation="rows.jsonl", test="rows.jsonl")
    open_split(data, "train")
    open_split(data, "test")
    assert sorted(decoded) == ["a.png", "b.png"]
    Image.new("RGB", (5, 5), "green").save(place / "images" / "b.png")
    open_split(data, "test")
    assert sorted(decoded) == ["a.png", "b.png", "b.png"]
    damage(place / "images" / "b.png")
    for _ in range(2):  # what is bad is not remembered as good
        with pytest.raises(InputError, match=r"b\.png"):
            open_split(data, "test")
    assert len(open_split(with_changes(data, {"limit": 1}), "test")) == 1


@pytest.fixture
def many(place):
    """200 images with two questions each."""
    for number in range(200):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(place / "images" / f"{number}.png")
    write(place / "many.jsonl", *(row(image=f"{number}.png") for _ in range(2) for number in range(200)))
    return place


def test_splits_by_hash_share_no_image(many):
    splits = {split: open_split(data_of(many, "many.jsonl"), split) for split in ("train", "validation", "test")}
    ids = {split: [example.image_id for example in examples] for split, examples in splits.items()}
    assert sum(map(len, ids.values())) == 200 == len(set().union(*ids.values()))
    assert {split: len(those) for split, those in ids.items()} == {"train": 160, "validation": 20, "test": 20}
    names = [f"{number}.png" for number in range(200)]
    for name, split in zip(names, divide(names), strict=True):
        assert name in ids[split]
    assert all(len(example.texts) == 2 for examples in splits.values() for example in examples)


def test_a_split_with_a_file_takes_none_of_the_training_images(many):
    write(many / "rows.jsonl", row())
    with_test = data_of(many, "many.jsonl", test="rows.jsonl")
    assert [example.image_id for example in open_split(with_test, "test")] == ["a.png"]
    assert len(open_split(with_test, "train")) == 180  # the second tenth is learned from
    without = data_of(many, "many.jsonl")
    assert list(open_split(with_test, "validation")) == list(open_split(without, "validation"))
    with_both = data_of(many, "many.jsonl", test="rows.jsonl", validation="rows.jsonl")
    assert len(open_split(with_both, "train")) == 200


def test_few_images_have_a_part_in_every_split_and_a_note(place, capsys):
    names = [f"{number}.png" for number in range(30)]
    for name in names:
        Image.new("RGB", (4, 4)).save(place / "images" / name)
    for count, held_out in ((3, 1), (10, 1), (29, 3), (30, 3)):
        write(place / f"{count}.jsonl", *(row(image=name) for name in names[:count]))
        data = data_of(place, f"{count}.jsonl")
        sizes = [len(open_split(data, split)) for split in ("train", "validation", "test")]
        assert sizes == [count - 2 * held_out, held_out, held_out]
        notes = capsys.readouterr().err.splitlines()[1:]
        assert len(notes) == (count < 30) and all(f"{count} images divided into train" in note for note in notes)


def test_two_images_cannot_be_divided_into_three_and_can_into_two(place):
    write(place / "two.jsonl", row(), row(image="b.png"))
    with pytest.raises(InputError, match=r"the train split is empty: .* at least 3 images .*data.validation FILE$"):
        open_split(data_of(place, "two.jsonl"), "train")
    write(place / "held out.jsonl", row(image="sub/c.png"))
    for name in ("validation", "test"):  # the remedy
        data = with_changes(data_of(place, "two.jsonl"), {name: (place / "held out.jsonl",)})
        assert [len(open_split(data, split)) for split in ("train", "validation", "test")] == [1, 1, 1]


def test_images_of_a_group_are_in_one_split(many):
    """Twenty patients of ten images; a row without a group, or with another group too, does not part them."""
    rows = [row(image=f"{number}.png", group=number // 10) for number in range(200)]
    rows += [row(image=f"{number}.png") for number in range(200)]
    rows += [row(image="0.png", group="twins"), row(image="199.png", group="twins")]
    write(many / "many.jsonl", *rows)
    data = data_of(many, "many.jsonl")
    patients = {
        split: {int(example.image_id.split(".")[0]) // 10 for example in open_split(data, split)}
        for split in ("train", "validation", "test")
    }
    assert sorted([*patients["train"], *patients["validation"], *patients["test"]]) == list(range(20))
    assert len(patients["validation"]) == len(patients["test"]) == 2
    assert any({0, 19} <= those for those in patients.values())
    write(many / "captions.jsonl", *({"image": "1.png", "captions": ["one"], "group": "x"} for _ in range(2)))
    captions = data_of(many, "captions.jsonl", validation="rows.jsonl", kind=TableCaptions)
    write(many / "rows.jsonl", {"image": "2.png", "captions": ["one"]})
    assert read_split(captions, "test").groups + read_split(captions, "train").groups == (("x",),)


@pytest.mark.parametrize("group", ["", " ", ["a"], True, 1.5])
def test_a_group_is_a_text_or_a_whole_number(place, group):
    reading = read(place, row(group=group), row(group=None), row(group=7))
    assert [bad.place for bad in reading.bad_rows] == [1] and "group" in reading.bad_rows[0].reason
    assert reading.groups == (("7",),)


def test_limit_takes_the_first(many):
    data = data_of(many, "many.jsonl")
    for split in ("train", "validation", "test"):
        assert list(open_split(with_changes(data, {"limit": 3}), split)) == list(open_split(data, split))[:3]
        few = open_split(with_changes(data, {"evaluation_limit": 2}), split)
        assert len(few) == (2 if split != "train" else len(open_split(data, split)))


def test_a_file_is_read_once_until_it_changes(many):
    data = data_of(many, "many.jsonl")
    before = dataset._read.cache_info().misses
    for split in ("train", "validation", "test", "train"):
        open_split(data, split)
    assert dataset._read.cache_info().misses == before + 1
    write(many / "many.jsonl", *(row(image=f"{number}.png") for number in range(100)))
    assert sum(len(open_split(data, split)) for split in ("train", "validation", "test")) == 100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": "picturs"}, r"data.images '.*picturs' does not exist; give the folder"),
        ({"images": "many.jsonl"}, r"data.images '.*many.jsonl' is no folder"),
        ({"train": ("manny.jsonl",)}, r"data.train: no file '.*manny.jsonl'; did you mean 'many.jsonl'\?"),
        ({"test": ("none/x.jsonl",)}, r"data.test: no file '.*x.jsonl', and no folder '.*none'"),
        ({"validation": ("images/x.jsonl",)}, r"data.validation: no file .*; its folder holds no .jsonl, .json,"),
        ({"train": ("images",)}, r"images has its images in it; give no data\.images"),
        ({"train": ("many.jsonl", "many.jsonl")}, r"data.train gives a file twice"),
        ({"train": ("x" * 5000,)}, r"cannot read .*File name too long"),
        ({"train": ("~nobody-of-that-name/x.jsonl",)}, r"no file '~nobody-of-that-name/x.jsonl'"),
        ({"train": ("empty.jsonl",)}, r"the train split is empty: no image for it in .*empty.jsonl; .* at least 3 "),
        ({"train": ("few.jsonl",)}, r"the train split is empty: .*few.jsonl; .* 3 images .*data.validation FILE$"),
        ({"train": ("few.jsonl",), "validation": ("few.jsonl",)}, r"the test split is .* 2 .*--data.test FILE$"),
        ({"test": ("bad.jsonl",), "bad_rows": "skip"}, r"bad.jsonl:1: .* 1 bad row, and the test split is empty: .*"),
    ],
)  # fmt: skip
def test_mistakes_are_named(many, changes, message, monkeypatch):
    monkeypatch.chdir(many)
    for name, rows in {"empty.jsonl": (), "few.jsonl": (row(image="0.png"),), "bad.jsonl": (b"{",)}.items():
        write(many / name, *rows)
    paths = {name: tuple(map(Path, value)) for name, value in changes.items() if isinstance(value, tuple)}
    paths |= {"images": Path(changes["images"])} if "images" in changes else {}
    data = with_changes(TableQuestions(images=Path("images"), train=(Path("many.jsonl"),)), changes | paths)
    with pytest.raises(InputError, match=message) as error:
        open_split(data, "train")
    assert "\n" not in str(error.value)


def test_a_home_is_expanded_in_settings_and_other_splits_are_named(many, monkeypatch):
    monkeypatch.setenv("HOME", str(many))
    data = TableQuestions(images=Path("~/images"), train=(Path("~/many.jsonl"),))
    assert len(open_split(data, "train")) > 100
    with pytest.raises(InputError, match=r"table has no split 'tests'; choose one of: .*test"):
        open_split(data, "tests")
