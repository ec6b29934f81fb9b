"""Each format of a table: counts and rows equal what another reader says of the same file."""

import csv
import io
import json
import pickle
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vlm_jax.cache_contents import contents
from vlm_jax.data.digests import image_digests
from vlm_jax.data.images import decode_image, read_image_file
from vlm_jax.data.sources import open_split
from vlm_jax.data.user_files import dataset, stored_rows
from vlm_jax.data.user_files.dataset import read_split
from vlm_jax.data.user_files.table import TableCaptions, TableQuestions
from vlm_jax.errors import InputError
from vlm_jax.files import sha256

COLOURS = {f"{number}.png": (number * 20, 50, 200 - number) for number in range(12)}


def png(name):
    file = io.BytesIO()
    Image.new("RGB", (6, 4), COLOURS[name]).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def photos(tmp_path):
    """Twelve images in a folder of their own."""
    (tmp_path / "photos").mkdir()
    for name in COLOURS:
        (tmp_path / "photos" / name).write_bytes(png(name))
    return tmp_path / "photos"


def captions_of(path, **settings):
    data = TableCaptions(train=(path,), directory=path.parent / "kept", **settings)
    reading = read_split(data.model_copy(update={"validation": (path,), "test": (path,)}), "train")
    assert reading.bad_rows == ()
    return reading


def rows_in(reading):
    """Image and caption of each text."""
    return [(example.image, text.text) for example in reading.examples for text in example.texts]


def metadata_csv(photos):
    path = photos / "metadata.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file_name", "text"), *((name, f"a “{name}”, wide") for name in COLOURS)])
    with path.open(newline="", encoding="utf-8") as file:
        return path, [(row["file_name"], row["text"]) for row in csv.DictReader(file)]


def metadata_jsonl(photos):
    path = photos / "metadata.jsonl"
    path.write_text("".join(json.dumps({"file_name": name, "text": f"a {name}"}) + "\n" for name in COLOURS))
    return path, [(name, f"a {name}") for name in COLOURS]


def parquet_paths(photos):
    path = photos / "metadata.parquet"
    pq.write_table(pa.table({"file_name": list(COLOURS), "text": [f"a {name}" for name in COLOURS]}), path)
    columns = pq.read_table(path).to_pydict()
    return path, list(zip(columns["file_name"], columns["text"], strict=True))


@pytest.mark.parametrize("write", [metadata_csv, metadata_jsonl, parquet_paths])
def test_a_folder_as_hugging_face_has_it(photos, write, capsys):
    path, expected = write(photos)
    for place in (path, photos):
        rows = rows_in(captions_of(place))
        assert rows == [(photos / name, text) for name, text in expected] and len(rows) == 12
    assert ": 12 images, 12 captions; columns file_name, text\n" in capsys.readouterr().err


def test_splits_in_folders_are_the_splits(photos):
    for split, names in (("train", ("0.png", "1.png")), ("val", ("2.png",)), ("test", ("3.png",))):
        folder = photos.parent / "splits" / split
        folder.mkdir(parents=True)
        lines = "".join(f"{name},a {name}\n" for name in names)
        for name in names:
            (folder / name).write_bytes(png(name))
        (folder / "metadata.csv").write_text(f"file_name,text\n{lines}", encoding="utf-8")
    data = TableCaptions(train=(photos.parent / "splits",), directory=photos.parent / "kept")
    sizes = {split: len(open_split(data, split)) for split in ("train", "validation", "test")}
    assert sizes == {"train": 2, "validation": 1, "test": 1}


def test_a_folder_per_class_answers_one_question(photos, capsys):
    classes = {"cat": ("0.png", "deep/er/1.png"), "dog, wet": ("2.JPG",), ".hidden": ("3.png",)}
    for name, files in classes.items():
        for file in files:
            path = photos.parent / "classes" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4)).save(path)
            (path.parent / "notes.txt").write_text("no image")
    folder = photos.parent / "classes"
    data = TableQuestions(train=(folder,), validation=(folder,), test=(folder,), question="which animal?")
    reading = read_split(data, "train")
    rows = {(e.image_id, t.text, t.answers) for e in reading.examples for t in e.texts}
    expected = {
        (path.relative_to(folder).as_posix(), "which animal?", (path.relative_to(folder).parts[0],))
        for path in folder.rglob("*") if path.suffix in (".png", ".JPG") and ".hidden" not in path.parts
    }  # fmt: skip
    assert rows == expected and len(rows) == 3 and reading.bad_rows == ()
    assert "as a folder per class: 3 images, 3 questions\n" in capsys.readouterr().err
    assert TableQuestions(train=(folder,)).question == "what is this?"
    (folder / "5.png").write_bytes(png("5.png"))
    (bad_row,) = read_split(data, "train").bad_rows
    assert bad_row.place == "5.png"


HF_FEATURES = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}


@pytest.mark.parametrize("struct", [False, True])
def test_images_inside_parquet(photos, struct):
    """The same image in several rows is one image; a label of a ClassLabel is its name."""
    names = [*COLOURS, "0.png"]
    images = [{"bytes": png(name), "path": name} if struct else png(name) for name in names]
    labels, questions = [number % 2 for number in range(13)], [f"what is {number}?" for number in range(13)]
    table = pa.table({"image": images, "question": questions, "label": labels, "embedding": [[0.5]] * 13})
    path = photos.parent / "rows.parquet"
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(HF_FEATURES)}), path, row_group_size=5)
    data = TableQuestions(train=(path,), validation=(path,), test=(path,), directory=photos.parent / "kept")
    for _ in range(2):  # from the file, and from its index
        examples = open_split(data, "train")
        assert [len(example.texts) for example in examples] == [2, *[1] * 11]
        rows = [
            (read_image_file(pickle.loads(pickle.dumps(e.image))), t.text, t.answers)
            for e in examples for t in e.texts
        ]  # fmt: skip
        expected = [(png(name), q, (("cat", "dog")[n],)) for name, q, n in zip(names, questions, labels, strict=True)]
        assert sorted(rows) == sorted(expected)
        dataset._read.cache_clear()
    assert len({example.image_id for example in examples}) == 12


def test_shards_that_are_named_for_splits(photos):
    for name, image in (("train-00000-of-00002", "0.png"), ("train-00001-of-00002", "1.png"), ("test-00000", "2.png")):
        pq.write_table(pa.table({"image": [png(image)], "text": ["a"]}), photos.parent / f"{name}.parquet")
    data = TableCaptions(train=(photos.parent,), directory=photos.parent / "kept")
    assert [len(read_split(data, split).examples) for split in ("train", "validation", "test")] == [1, 1, 1]
    assert read_split(data, "test").examples[0].image.name.startswith(str(photos.parent / "test-00000.parquet"))


def shard(path, members, **options):
    with tarfile.open(path, "w", **options) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def samples(names, *, start=0):
    for number, name in enumerate(names, start):
        key = f"{number:09d}"
        yield f"{key}.png", png(name)
        yield f"{key}.txt", f"a {name}\n".encode()
        yield f"{key}.json", json.dumps({"key": key, "caption": f"a {name}", "status": "success"}).encode()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_shards_as_img2dataset_writes_them(photos, form):
    folder = photos.parent / "shards"
    folder.mkdir()
    names, long_name = list(COLOURS), "ö" * 70 + "/" + "x" * 90
    members = [*samples(names[7:], start=7), (f"{long_name}.png", png("0.png")), (f"{long_name}.txt", b"long")]
    paths = [shard(folder / "00000.tar", samples(names[:7]), format=form)]
    paths.append(shard(folder / "00001.tar", members[: None if form != tarfile.USTAR_FORMAT else -2], format=form))
    pq.write_table(pa.table({"url": ["x"], "caption": ["a 0.png"], "key": ["000000000"]}), folder / "00000.parquet")
    (folder / "00000_stats.json").write_text("{}")
    expected = []
    for path in paths:
        with tarfile.open(path) as archive:
            content = {member.name: archive.extractfile(member).read() for member in archive}
        for name in content:
            if name.endswith(".png"):
                text = content[name.replace(".png", ".txt")].decode().strip()
                expected.append((f"{path.name}/{name}", content[name], text))
    data = TableCaptions(train=(folder,), validation=(folder,), test=(folder,), directory=photos.parent / "kept")
    for _ in range(2):
        reading = read_split(data, "train")
        assert reading.bad_rows == ()
        examples = pickle.loads(pickle.dumps(reading.examples))
        assert [(e.image_id, read_image_file(e.image), e.texts[0].text) for e in examples] == expected
        indexes = {path: path.stat().st_mtime_ns for path in (photos.parent / "kept").rglob("*.jsonl")}
        dataset._read.cache_clear()
    assert len(indexes) == 2 and indexes == {path: path.stat().st_mtime_ns for path in indexes}
    assert decode_image(examples[1].image, max_pixels=100)[0, 0].tolist() == list(COLOURS["1.png"])
    assert len(expected) == (12 if form == tarfile.USTAR_FORMAT else 13)


def test_the_digest_of_a_stored_image_is_that_of_its_file(photos):
    path = shard(photos.parent / "a.tar", samples(COLOURS))
    data = TableCaptions(train=(path,), validation=(path,), test=(path,), directory=photos.parent / "kept")
    digests = image_digests(open_split(data, "train"), data)
    assert digests == [sha256(photos / name) for name in COLOURS]
    assert image_digests(open_split(data, "train"), data) == digests


def test_an_index_that_is_damaged_is_made_again(photos):
    path = shard(photos.parent / "a.tar", samples(COLOURS))
    expected = rows_in(captions_of(path))
    (index,) = (photos.parent / "kept" / "table_indexes").iterdir()
    (content,) = contents(photos.parent / "kept")
    assert (content.kind, content.size) == ("tables", index.stat().st_size)
    for damaged in (index.read_bytes()[:-90], index.read_bytes().replace(b"a 3.png", b"a 4.png"), b"", b"\xff\n[]"):
        index.write_bytes(damaged)
        dataset._read.cache_clear()
        assert rows_in(captions_of(path)) == expected
        assert index.read_bytes() != damaged


def test_a_folder_that_cannot_be_written_to(photos, capsys, monkeypatch):
    (photos.parent / "kept").write_text("a file")
    path = shard(photos.parent / "a.tar", samples(COLOURS))
    assert len(rows_in(captions_of(path))) == 12
    assert capsys.readouterr().err.count("cannot keep the index") == 1
    rows = pa.table({"image": [png("0.png")], "text": ["a"]})
    pq.write_table(rows, photos.parent / "rows.parquet")
    (example,) = captions_of(photos.parent / "rows.parquet").examples
    assert example.image == png("0.png")
    assert capsys.readouterr().err.count("cannot keep the index") == 1
    path = photos.parent / "rows.parquet"
    data = TableCaptions(train=(path,), validation=(path,), test=(path,), directory=photos.parent / "kept")
    assert len(open_split(data, "train")) == 1
    monkeypatch.setattr(stored_rows, "MOST_IN_MEMORY", 10)
    dataset._read.cache_clear()
    with pytest.raises(InputError, match=r"cannot write the images of .*rows\.parquet to data\.directory"):
        captions_of(path)


def test_flickr8k_with_its_lists_of_splits(photos):
    tokens = "".join(f"{name}#{n}\tA “{name}” , number {n} .\n" for name in COLOURS for n in range(2))
    place = photos.parent
    (place / "Flickr8k.token.txt").write_text(tokens, encoding="utf-8")
    names = list(COLOURS)
    lists = {"train": names[:8], "validation": names[8:10], "test": names[10:]}
    for split, listed in lists.items():
        (place / f"Flickr_8k.{split}Images.txt").write_text("\n".join(listed), encoding="utf-8")
    files = {split: (place / "Flickr8k.token.txt", place / f"Flickr_8k.{split}Images.txt") for split in lists}
    data = TableCaptions(images=photos, directory=place / "kept", **files)
    for split, listed in lists.items():
        rows = rows_in(read_split(data, split))
        assert rows == [(photos / name, f"A “{name}” , number {n} .") for name in listed for n in range(2)]
    (place / "Flickr_8k.testImages.txt").write_text("gone.jpg\n11.png\n", encoding="utf-8")
    (bad_row,) = read_split(data, "test").bad_rows
    assert bad_row.place == 1 and "gone.jpg" in bad_row.reason
    with pytest.raises(InputError, match="only lists images"):
        read_split(data.model_copy(update={"test": files["test"][1:]}), "test")


def test_captions_txt_and_bars_as_kaggle_has_them(photos):
    for name, text in (
        ("captions.txt", "image,caption\n0.png,a cat , red\n".replace("a cat , red", '"a cat , red"')),
        ("results.csv", "image_name| comment_number| comment\n0.png| 0| a cat , red\n"),
    ):
        (photos.parent / name).write_text(text, encoding="utf-8")
        columns = ("image=image_name", "caption=comment") if name == "results.csv" else ()
        assert rows_in(captions_of(photos.parent / name, images=photos, columns=columns)) == [
            (photos / "0.png", "a cat , red")
        ]


def test_a_line_that_names_the_separator_is_no_header(photos):
    (photos.parent / "rows.csv").write_text("sep=;\r\nimage;caption\r\n0.png;a, b\r\nx.png;c\r\n", encoding="utf-8")
    data = TableCaptions(images=photos, train=(photos.parent / "rows.csv",))
    reading = read_split(data.model_copy(update={"validation": data.train, "test": data.train}), "train")
    assert rows_in(reading) == [(photos / "0.png", "a, b")] and [row.place for row in reading.bad_rows] == [4]


def test_a_folder_with_a_table_of_another_name_is_no_folder_of_classes(photos):
    (photos.parent / "captions.csv").write_text("image,caption\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"give the file: .*captions\.csv"):
        captions_of(photos.parent)


def test_linked_folders_of_classes_are_named_or_read(photos):
    folder = photos.parent / "classes"
    folder.mkdir()
    photos.rename(folder / "cat")
    (folder / "again").symlink_to("cat")
    (folder / "cat" / "circle").symlink_to("..")
    (photos.parent / "outside").mkdir()
    (photos.parent / "outside" / "a.png").write_bytes(png("0.png"))
    (folder / "out").symlink_to(photos.parent / "outside")
    data = TableQuestions(train=(folder,), validation=(folder,), test=(folder,))
    reading = read_split(data, "train")
    assert len(reading.examples) == 12 and {len(e.texts) for e in reading.examples} == {1}
    assert [row.place for row in reading.bad_rows] == ["out/a.png"]


def test_columns_by_the_names_that_files_give_them(photos):
    (photos.parent / "a.csv").write_text("path of image,q,a\n0.png,what?,cat\n", encoding="utf-8")
    columns = ("image=path of image", "question=q", "answer=a")
    data = TableQuestions(images=photos, train=(photos.parent / "a.csv",), columns=columns)
    (example,) = read_split(data.model_copy(update={"validation": data.train, "test": data.train}), "train").examples
    assert (example.image_id, example.texts[0].text, example.texts[0].answers) == ("0.png", "what?", ("cat",))
    (photos.parent / "b.csv").write_text("image,question,a\n0.png,what?,cat\n", encoding="utf-8")
    other = data.model_copy(update={"train": (photos.parent / "b.csv",)})
    with pytest.raises(InputError, match=r"b\.csv has no column 'path of image'; it has 'image', 'question', 'a'"):
        read_split(other, "train")
    with pytest.raises(InputError, match=r"no column 'answers' or 'answer' or 'label'.*--data.columns answers=NAME"):
        read_split(other.model_copy(update={"columns": ()}), "train")
    for wrong in ("image", "=x", "imag=x", "image="):
        with pytest.raises(ValueError, match="choose one of: image, question"):
            TableQuestions(train=(photos,), columns=(wrong,))


def test_a_file_of_another_kind_is_named(photos):
    shapes = {
        "coco_captions": {"info": {}, "images": [{"id": 1}], "annotations": [{"image_id": 1, "caption": "a"}]},
        "karpathy": {"images": [{"sentences": [], "split": "train"}], "dataset": "coco"},
        "vqa_v2": {"info": {}, "questions": [{"question_id": 1, "image_id": 2, "question": "a"}]},
    }
    for kind, content in shapes.items():
        for indent in (None, 1):
            path = photos.parent / f"{kind}.json"
            path.write_text(json.dumps(content, indent=indent), encoding="utf-8")
            with pytest.raises(InputError, match=rf"{kind}.json is a file of {kind}.* --data.kind {kind} "):
                captions_of(path)


def test_a_folder_beside_those_of_splits(photos, tmp_path):
    """What macOS packs is none; another one may be a split, or a class, and is asked about."""
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            (photos / "1.png").replace(tmp_path / "pets" / split / name / "1.png")
            (photos / "1.png").write_bytes(png("1.png"))
    (tmp_path / "pets" / "__MACOSX").mkdir()
    data = TableQuestions(train=(tmp_path / "pets",), directory=tmp_path / "kept")
    answers = {text.answers for example in read_split(data, "validation").examples for text in example.texts}
    assert answers == {("cat",), ("dog",)}
    (tmp_path / "pets" / "annotations").mkdir()
    with pytest.raises(InputError, match="annotations"):
        read_split(data, "train")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_column_may_have_the_alias_of_another(photos, ending):
    path, names = photos / f"rows.{ending}", list(COLOURS)
    columns = {"image": names, "text": ["what?"] * 12, "answer": names, "mask": names[::-1]}
    if ending == "csv":
        lines = [",".join(columns), *(",".join(row) for row in zip(*columns.values(), strict=True))]
        path.write_text("\n".join(lines))
    else:
        images = [png(name) for name in names]
        pq.write_table(pa.table(columns | {"image": images, "mask": images[::-1]}), path)
    for image, first in (("image", "0.png"), ("mask", "11.png")):  # a file is read again under other names
        renamed = ("question=text", f"image={image}")
        data = TableQuestions(train=(path,), directory=photos.parent / "kept", columns=renamed)
        data = data.model_copy(update={"validation": (path,), "test": (path,)})
        reading = read_split(data, "train")
        assert reading.bad_rows == () and len(reading.examples) == 12
        pixels = decode_image(reading.examples[0].image, max_pixels=1000)
        assert tuple(pixels[0, 0]) == COLOURS[first]
