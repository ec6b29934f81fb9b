"""VQA v2's official files, in the published layout: pairs by content, images by COCO's names, bad entries by id."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from vlm_jax.data.sources import open_split
from vlm_jax.data.user_files.dataset import read_split
from vlm_jax.data.user_files.vqa_v2 import VQAv2
from vlm_jax.errors import InputError

ANSWERS = ("net", "net", "net", "netting", "net", "mesh", "net", "net ", "Net", "")
HEAD = {"info": {"version": "2.0", "year": 2017}, "license": {"name": "CC BY 4.0"}, "data_type": "mscoco"}


def published(subtype="train2014"):
    """Three questions about two images."""
    rows = [
        (458752, 458752000, "what?", "other"),
        (9, 9001, "how many?", "number"),
        (458752, 458752001, "is it?", "yes/no"),
    ]
    questions = [{"image_id": image, "question": text, "question_id": number} for image, number, text, _ in rows]
    annotations = [
        {
            "question_type": "what is", "multiple_choice_answer": "net", "image_id": image, "answer_type": kind,
            "question_id": number,
            "answers": [
                {"answer": answer, "answer_confidence": "maybe", "answer_id": place}
                for place, answer in enumerate(ANSWERS, 1)
            ],
        }
        for image, number, _, kind in rows
    ]  # fmt: skip
    head = {**HEAD, "data_subtype": subtype}
    return {**head, "task_type": "Open-Ended", "questions": questions}, {**head, "annotations": annotations}


def write(folder, questions, annotations, *, prefix=""):
    paths = folder / f"{prefix}questions.json", folder / f"{prefix}annotations.json"
    for path, content in zip(paths, (questions, annotations), strict=True):
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return tuple(map(str, paths))


def image(path):
    Image.new("RGB", (4, 4), "red").save(path)


@pytest.fixture
def folder(tmp_path):
    """A folder in which the images are where COCO's archives put them."""
    for subtype in ("train2014", "val2014"):
        (tmp_path / "coco" / subtype).mkdir(parents=True)
        for number in (9, 458752):
            image(tmp_path / "coco" / subtype / f"COCO_{subtype}_{number:012d}.jpg")
    return tmp_path


def data_of(folder, train, *, images="coco", bad_rows="refuse"):
    splits = dict.fromkeys(("train", "validation", "test"), tuple(map(Path, train)))
    return VQAv2(images=folder / images, directory=folder / "kept", bad_rows=bad_rows, **splits)


@pytest.mark.parametrize("backwards", [False, True])
def test_a_pair_in_either_order(folder, backwards):
    paths = write(folder, *published())
    first, second = open_split(data_of(folder, paths[::-1] if backwards else paths), "train")
    assert (first.image_id, second.image_id) == ("458752", "9")
    assert first.image == folder / "coco" / "train2014" / "COCO_train2014_000000458752.jpg"
    assert [(q.text_id, q.text, q.answers, q.kind) for q in first.texts] == [
        ("458752000", "what?", ANSWERS, "other"),
        ("458752001", "is it?", ANSWERS, "yes/no"),
    ]
    (question,) = second.texts
    assert question.kind == "number" and question.answers is first.texts[0].answers


@pytest.mark.parametrize(
    "name",
    ["COCO_train2014_000000000009.jpg", "train2014/COCO_train2014_000000000009.jpg", "000000000009.jpg",
     "train2014/000000000009.jpg"],
)  # fmt: skip
def test_images_under_every_name_of_coco(folder, name):
    images = folder / "flat"
    (images / "train2014").mkdir(parents=True)
    for file in (name, name.replace("000000000009", "000000458752")):
        image(images / file)
    examples = open_split(data_of(folder, write(folder, *published()), images="flat"), "train")
    assert [example.image for example in examples][1] == images / name


@pytest.mark.parametrize("archive", ["train2017", "val2017", "val2014"])
def test_images_in_the_folder_of_another_archive(folder, archive):
    """COCO 2017 has the images of 2014 in other archives."""
    for number in (9, 458752):
        (folder / "coco17" / archive).mkdir(parents=True, exist_ok=True)
        image(folder / "coco17" / archive / f"{number:012d}.jpg")
    examples = open_split(data_of(folder, write(folder, *published()), images="coco17"), "train")
    assert {example.image.parent.name for example in examples} == {archive}


def test_test_questions_need_no_annotations(folder):
    pair, (questions, _) = write(folder, *published()), write(folder, *published("val2014"), prefix="test_")
    data = data_of(folder, pair).model_copy(update={"test": (Path(questions),)})
    texts = [(q.text_id, q.answers, q.kind) for e in open_split(data, "test") for q in e.texts]
    assert texts == [(number, (), "unanswered") for number in ("458752000", "458752001", "9001")]
    with pytest.raises(InputError, match="no annotations in"):
        open_split(data.model_copy(update={"train": (Path(questions),)}), "train")


def test_several_pairs_are_one_split(folder):
    train, val = published(), published("val2014")
    for entry in val[0]["questions"] + val[1]["annotations"]:
        entry["question_id"] += 10**9
        entry["image_id"] = 9
    paths = write(folder, *train) + write(folder, *val, prefix="val_")
    examples = open_split(data_of(folder, paths), "train")
    assert sum(len(example.texts) for example in examples) == 6


def spoil(change):
    """The published pair after `change(questions, annotations)`."""
    questions, annotations = published()
    change(questions["questions"], annotations["annotations"])
    return questions, annotations


def put(side, **values):
    """Replace keys of the second question, or of its annotation."""
    return lambda *sides: sides[side][1].update(values)


BAD = {
    "no annotation": (lambda q, a: a.pop(1), "questions", "question 9001", "no annotation has this question_id"),
    "no question": (lambda q, a: q.pop(1), "annotations", "question 9001", "no question has this question_id"),
    "other image": (put(1, image_id=8), "questions", "question 9001", "about image 9, its annotation about 8"),
    "question twice": (lambda q, a: q.append(q[0]), "questions", "question 458752000", "belongs to an earlier row"),
    "annotation twice": (lambda q, a: a.append(a[0]), "annotations", "question 458752000", "an earlier annotation"),
    "no object": (lambda q, a: q.append([1]), "questions", "entry 4", "the entry is no object"),
    "no id": (lambda q, a: q.append({"question": "x"}), "questions", "entry 4", "question_id must be .*, not null"),
    "true as id": (lambda q, a: a.append({"question_id": True}), "annotations", "question true", "question_id must be"),
    "empty question": (put(0, question=" "), "questions", "question 9001", "the question is empty"),
    "text as image": (put(0, image_id="9"), "questions", "question 9001", "image_id must be a whole number .*'9'"),
    "way out": (put(0, image_id="../9"), "questions", "question 9001", r"image_id must be .*'\.\./9'"),
    "large image": (put(0, image_id=10**12), "questions", "question 9001", "image_id must be a whole number of at"),
    "negative image": (put(0, image_id=-9), "questions", "question 9001", "image_id must be .*not -9"),
    "no image": (lambda q, a: (q[1].update(image_id=7), a[1].update(image_id=7)), "questions", "question 9001",
                   "no image 'COCO_train2014_000000000007.jpg'"),
    "no answers": (put(1, answers=[]), "questions", "question 9001", "answers is empty; give at least one answer"),
    "answers as text": (put(1, answers="net"), "questions", "question 9001", "answers must be a list, not 'net'"),
    "answer without text": (put(1, answers=[{"answer": 3}]), "questions", "question 9001", "answer 1 has no text"),
    "half an emoji": (put(1, answers=[{"answer": "\ud83d"}]), "questions", "question 9001", "half a surrogate pair"),
    "blank answers": (put(1, answers=[{"answer": " "}]), "questions", "question 9001", "every answer is empty"),
    "no kind": (put(1, answer_type=None), "questions", "question 9001", "answer_type must be a text, not null"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_entry_is_named_and_the_others_live(folder, name):
    change, file, place, reason = BAD[name]
    reading = read_split(data_of(folder, write(folder, *spoil(change))), "train")
    (bad_row,) = reading.bad_rows
    assert (bad_row.file, bad_row.place) == (str(folder / f"{file}.json"), place)
    assert re.search(reason, bad_row.reason), bad_row.reason
    assert str(bad_row).startswith(f"{folder}/{file}.json, {place}: ")
    question_ids = {question.text_id for example in reading.examples for question in example.texts}
    assert question_ids >= {"458752000", "458752001"}


def test_a_key_twice_spoils_its_entry_only(folder):
    questions, annotations = published()
    spoiled = json.dumps(questions).replace('"image_id": 9,', '"image_id": 9, "image_id": 458752,')
    reading = read_split(data_of(folder, write(folder, spoiled.encode(), annotations)), "train")
    assert [example.image_id for example in reading.examples] == ["458752"]
    assert [row.reason for row in reading.bad_rows] == [
        "the entry is no object with keys that differ", "no question has this question_id",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"questions.json is not JSON"),
        (b'{"questions": [', r"questions.json is not JSON"),
        (b"[]", r"questions.json holds no list of questions or annotations"),
        (b'{"questions": {}}', r"holds no list"),
        (b'{"questions": [], "questions": []}', r"holds no list"),
        (b'{"questions": "\xff"}', r"questions.json is not UTF-8: byte 16"),
        (b'{"questions": ' + b"[" * 200_000, r"questions.json is nested too deeply"),
        (b'{"questions": [' + b"9" * 5000 + b"]}", r"questions.json is not JSON: Exceeds the limit"),
        (b'{"questions": [], "data_subtype": "../.."}', r"has the data_subtype '\.\./\.\.'; expected one such as"),
        (b'{"annotations": []}', r"no questions in .*; a split of vqa_v2 takes the questions and the annotations"),
        (b'{"questions": []}', r"the train split is empty"),
    ],
)
def test_files_that_are_none_are_named(folder, content, message):
    paths = write(folder, content, published()[1])
    with pytest.raises(InputError, match=message):
        open_split(data_of(folder, paths, bad_rows="skip"), "train")


def test_a_missing_half_is_named(folder):
    paths = write(folder, *published())
    for path, missing in zip(paths, ("annotations", "questions"), strict=True):
        with pytest.raises(InputError, match=rf"no {missing} in .*{path}"):
            open_split(data_of(folder, (path,)), "train")
