"""Tables of every layout give the rows that JSON Lines give, and no bytes give a traceback."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vlm_jax.data.user_files.dataset import read_split
from vlm_jax.data.user_files.table import TableCaptions, TableQuestions
from vlm_jax.errors import InputError

ROWS = [
    {"image": "a.png", "question": "what is it, then?", "answers": ["a cat"]},
    {"image": "b.png", "question": 'is it a "cat"?', "answers": ["no"]},
    {"image": "b.png", "question": "how\nmany?", "answers": ["2"]},
]


@pytest.fixture
def place(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 4), "red").save(tmp_path / "images" / name)
    return tmp_path


def read(place, name, content, kind=TableQuestions, bad_rows="refuse"):
    """The train split of one file that is every split."""
    (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    paths = dict.fromkeys(("train", "validation", "test"), (place / name,))
    return read_split(kind(images=place / "images", directory=place / "kept", bad_rows=bad_rows, **paths), "train")


def texts(reading):
    assert reading.bad_rows == ()
    return {example.image_id: [(text.text, text.answers) for text in example.texts] for example in reading.examples}


def separated(rows, separator, names=("image", "question", "answers")):
    """The rows as a table, every value in quotes."""
    values = [names, *((row["image"], row["question"], row["answers"][0]) for row in rows)]
    quoted = [['"' + value.replace('"', '""') + '"' for value in row] for row in values]
    return "".join(separator.join(row) + "\r\n" for row in quoted)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", separated(ROWS, ",")),
        ("semicolons.csv", separated(ROWS, ";")),
        ("rows.TSV", separated(ROWS, "\t")),
        ("mark.csv", "\ufeff" + separated(ROWS, ",", ("img", " question ", "label"))),
        ("list.json", json.dumps(ROWS)),
        ("lines.json", "".join(json.dumps(row) + "\n" for row in ROWS)),
        ("aliases.json", json.dumps([{"file_name": r["image"], "question": r["question"], "answer": r["answers"][0]}
                                     for r in ROWS])),
    ],
)  # fmt: skip
def test_a_table_of_any_layout_gives_the_rows_of_json_lines(place, name, content):
    expected = texts(read(place, "rows.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS)))
    assert texts(read(place, name, content)) == expected and len(expected["b.png"]) == 2


def test_captions_under_the_names_of_a_metadata_file(place):
    lines = "".join(json.dumps({"file_name": name, "text": f"image {name}"}) + "\n" for name in ("a.png", "b.png"))
    table = "file_name,text\na.png,image a.png\nb.png,image b.png\n"
    readings = (read(place, name, content, TableCaptions)
                for name, content in (("metadata.jsonl", lines), ("metadata.csv", table)))  # fmt: skip
    assert [texts(reading) for reading in readings] == [{n: [(f"image {n}", ())] for n in ("a.png", "b.png")}] * 2


def test_images_are_beside_their_files_where_no_folder_is_given(place):
    (place / "more").mkdir()
    for folder, names in (("images", ("a.png", "b.png")), ("more", ("a.png",))):
        Image.new("RGB", (4, 4), "blue").save(place / folder / "a.png")
        lines = "".join(f"{name},image of {folder}\n" for name in names)
        (place / folder / "metadata.csv").write_text(f"file_name,text\n{lines}", encoding="utf-8")
    first, more = place / "images" / "metadata.csv", place / "more" / "metadata.csv"
    data = TableCaptions(train=(first, more), validation=(more,), test=(more,))
    examples = read_split(data, "train").examples
    assert {example.image_id: example.image for example in examples} == {
        name: place / name for name in ("images/a.png", "images/b.png", "more/a.png")
    }
    (example,) = read_split(data, "test").examples
    assert (example.image_id, example.image) == ("a.png", place / "more" / "a.png")


def test_only_questions_of_a_test_split_may_lack_answers(place):
    (place / "rows.csv").write_text("image,question,answers\na.png,what?,red\n", encoding="utf-8")
    train = place / "rows.csv"
    for content, questions, bad_rows in (
        ("image,question\na.png,what?\nb.png,how?\n", 2, 0),
        ("image,question,answers\na.png,what?,\nb.png,how?,\n", 2, 0),
        ("image,question,answers\na.png,what?,\nb.png,how?,so\n", 1, 1),
    ):
        (place / "test.csv").write_text(content, encoding="utf-8")
        data = TableQuestions(images=place / "images", train=(train,), test=(place / "test.csv",))
        reading = read_split(data, "test")
        texts_of = [text for example in reading.examples for text in example.texts]
        assert (len(texts_of), len(reading.bad_rows)) == (questions, bad_rows)
        assert {text.kind for text in texts_of} == ({"open"} if bad_rows else {"unanswered"})
    for split in ({"train": (place / "test.csv",)}, {"validation": (place / "test.csv",)}):
        reading = read_split(data.model_copy(update=split), next(iter(split)))
        assert len(reading.bad_rows) == 1


@pytest.mark.parametrize(
    ("name", "row", "place_of", "reason"),
    [
        ("rows.csv", "b.png,what?", 3, "2 values"),
        ("rows.csv", "b.png,what?,", 3, "'answers'"),
        ("rows.csv", 'b.png,"what?,red', 3, "CSV"),
        ("rows.csv", b"b.png,what?,r\xe9d", 3, "UTF-8"),
        ("rows.csv", "none.png,what?,red", 3, "none.png"),
    ],
)
def test_a_bad_row_is_named_and_the_others_live(place, name, row, place_of, reason):
    content = b"image,question,answers\na.png,what?,red\n" + (row if isinstance(row, bytes) else row.encode())
    reading = read(place, name, content)
    ((bad),) = reading.bad_rows
    assert bad.place == place_of and reason in bad.reason
    assert [example.image_id for example in reading.examples] == ["a.png"]


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("twice.csv", "image,image,question,answers\n", "'image' twice"),
        ("no_header.csv", "a.png,what?,red\n", "no header"),
        ("empty.csv", "", "no header"),
        ("object.json", "[1", "not JSON"),
        ("number.json", "3", "list of objects"),
    ],
)
def test_what_is_no_table_is_refused(place, name, content, part):
    with pytest.raises(InputError, match=part):
        read(place, name, content)


HEADS = [
    b"",
    b"image,question,answers\n",
    b"image\tquestion\tanswers\n",
    b"[",
    b"{",
    b"a.png#0\t",
    b"PAR1",
    b"a.png\n",
    b"sep=",
]
ENDINGS = ["csv", "tsv", "json", "jsonl", "txt", "parquet", "tar", "anything"]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ending=st.sampled_from(ENDINGS),
    head=st.sampled_from(HEADS),
    body=st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode(errors="surrogatepass")),
)
def test_no_bytes_give_a_traceback(place, ending, head, body):
    try:
        read(place, f"any.{ending}", head + body, bad_rows="skip")
    except InputError as error:
        assert "\n" not in str(error)
