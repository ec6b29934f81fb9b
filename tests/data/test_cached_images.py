"""Decoded images are kept on disk: the same batches, and no image is decoded twice without need."""

import dataclasses
import errno
import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlm_jax.data import cached_images, caches, encoding, row_store
from vlm_jax.data.answers import AnswerVocabulary
from vlm_jax.data.cached_images import cache_images
from vlm_jax.data.digests import image_digests
from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.data.image_settings import AugmentedImages, CenterCrop, Pad, Stretch
from vlm_jax.data.loader import EvaluationBatches, ReadAhead, TrainLoader
from vlm_jax.data.row_store import INDEX, ROWS, SPECIFICATION
from vlm_jax.data.sources import open_split
from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.data.user_files.table import TableQuestions
from vlm_jax.integrity import read_manifest, write_manifest
from vlm_jax.settings.changes import with_changes

COUNT = 12
PLAIN = AugmentedImages(size=(8, 10), flip=True, shift=1)


def save_image(file, number, size=(23, 17)):
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)).save(file)


@pytest.fixture
def data(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    rows = []
    for number in range(COUNT):
        save_image(images / f"{number}.png", number)
        rows.append({"image": f"{number}.png", "question": f"what is {number}?", "answer": str(number)})
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return TableQuestions(
        images=images, train=(file,), validation=(file,), test=(file,), directory=tmp_path / "directory"
    )


@pytest.fixture
def decoded(monkeypatch):
    """Names of the images that were decoded."""
    names, real = [], encoding.decode_image

    def count(image, *, name, max_pixels):
        names.append(Path(name).name)
        return real(image, name=name, max_pixels=max_pixels)

    monkeypatch.setattr(encoding, "decode_image", count)
    return names


def encoder(examples, image=PLAIN):
    tokenizer = Tokenizer.build([text.text for example in examples for text in example.texts], 64)
    return ExampleEncoder(tokenizer, AnswerVocabulary.build(examples), image, max_length=8, texts_per_image=1)


def cached_encoder(data, image=PLAIN):
    """As a run makes one: everything is opened anew."""
    examples = open_split(data, "train")
    plain = encoder(examples, image)
    return examples, dataclasses.replace(plain, cached=cache_images([examples], plain, data))


def train_batches(examples, encode, count=7):
    loader = TrainLoader(examples, encode, seed=1, batch_images=5, read_ahead=ReadAhead(2, 4))
    batches = list(itertools.islice(loader, count))
    loader.close()
    return batches


def assert_equal(batches_a, batches_b):
    for a, b in zip(batches_a, batches_b, strict=True):
        assert a.text_ids == b.text_ids
        for name, value in a.batch._asdict().items():
            np.testing.assert_array_equal(value, getattr(b.batch, name), err_msg=name)


def told(capsys):
    """Lines about caches."""
    return [line for line in capsys.readouterr().err.splitlines() if "cach" in line]


def stores(data):
    return sorted((data.directory / "cache" / "images").glob("*"))


def test_batches_are_bit_equal_with_and_without_a_cache(data, decoded):
    examples, encode = cached_encoder(data)
    assert encode.cached.complete and sorted(decoded) == sorted(f"{number}.png" for number in range(COUNT))
    decoded.clear()
    cached = train_batches(examples, encode), list(EvaluationBatches(examples, encode, batch_images=5))
    assert decoded == [] and cached[0][0].batch.image.dtype == np.uint8
    plain = encoder(examples)
    assert_equal(cached[0], train_batches(examples, plain))
    assert_equal(cached[1], list(EvaluationBatches(examples, plain, batch_images=5)))
    assert len(decoded) >= COUNT


def test_another_run_decodes_nothing(data, decoded, capsys):
    cached_encoder(data)
    first, _ = told(capsys)
    assert f"{COUNT}" in first and "8 x 10" in first and "2.9 kB" in first and str(stores(data)[0]) in first
    decoded.clear()
    examples, encode = cached_encoder(with_changes(data, {"bad_rows": "skip", "threads": 1}))
    train_batches(examples, encode)
    assert decoded == [] and told(capsys) == []


def test_a_long_filling_tells_how_far_it_is(data, monkeypatch, capsys):
    monkeypatch.setattr(caches, "PROGRESS_SECONDS", 0)
    cached_encoder(data)
    lines = told(capsys)
    assert len(lines) == 1 + COUNT and f"cached 3 of {COUNT}" in lines[2]  # none of the first one
    assert lines[2].endswith(" s left") and lines[COUNT - 1].endswith(", 0 s left")


def test_a_changed_file_is_decoded_again_and_no_other(data, decoded):
    cached_encoder(data)
    decoded.clear()
    save_image(data.images / "3.png", 99)
    (data.images / "4.png").touch()
    examples, encode = cached_encoder(data)
    assert decoded == ["3.png"]
    assert_equal(train_batches(examples, encode), train_batches(examples, encoder(examples)))


@pytest.mark.parametrize(
    ("image", "count"),
    [
        (AugmentedImages(size=(8, 10)), 0),
        (AugmentedImages(size=(8, 10), mean=(0.1, 0.2, 0.3), std=(1, 1, 1)), 0),
        (AugmentedImages(size=(10, 8)), COUNT),
        (AugmentedImages(size=(8, 10), resize=Stretch()), COUNT),
        (AugmentedImages(size=(8, 10), resize=CenterCrop(short_side=12)), COUNT),
        (AugmentedImages(size=(8, 10), resize=Pad()), COUNT),
    ],
    ids=["augmentation", "normalisation", "size", "stretch", "center_crop", "pad"],
)
def test_a_setting_that_changes_pixels_decodes_all_again(data, decoded, image, count):
    cached_encoder(data)
    decoded.clear()
    examples, encode = cached_encoder(data, image)
    assert len(decoded) == count
    assert_equal(train_batches(examples, encode, 2), train_batches(examples, encoder(examples, image), 2))


def test_padding_depends_on_the_mean_colour(data, decoded):
    cached_encoder(data, AugmentedImages(size=(8, 10), resize=Pad()))
    decoded.clear()
    cached_encoder(data, AugmentedImages(size=(8, 10), resize=Pad(), mean=(0, 0, 0)))
    assert len(decoded) == COUNT


def test_another_pillow_decodes_all_again(data, decoded, monkeypatch):
    cached_encoder(data)
    monkeypatch.setattr(cached_images.PIL, "__version__", "0")
    cached_encoder(data)
    assert len(decoded) == 2 * COUNT and len(stores(data)) == 2


@pytest.mark.parametrize(("gigabytes", "notes"), [(0, 0), (1e-6, 1)])
def test_a_limit_is_kept(data, decoded, capsys, gigabytes, notes):
    data = with_changes(data, {"cache_gigabytes": gigabytes})
    examples, encode = cached_encoder(data)
    lines = told(capsys)
    assert len(lines) == notes and all("data.cache_gigabytes" in line for line in lines)
    assert stores(data) == [] and decoded == []
    assert_equal(train_batches(examples, encode), train_batches(examples, encoder(examples)))


def test_a_limit_counts_what_is_there(data, decoded, capsys):
    cached_encoder(with_changes(data, {"cache_gigabytes": 4e-6}))
    cached_encoder(with_changes(data, {"cache_gigabytes": 4e-6}), AugmentedImages(size=(7, 10)))
    assert "leaves 1.1 kB" in capsys.readouterr().err and len(stores(data)) == 1


def test_a_disk_with_too_little_room_is_left_alone(data, monkeypatch, capsys):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("vlm_jax.data.caches.shutil.disk_usage", lambda _: usage._replace(free=2000))
    cached_encoder(data)
    assert "2.0 kB" in capsys.readouterr().err and stores(data) == []


def fail(number):
    def write(*_, **__):
        raise OSError(number, os.strerror(number))

    return write


def test_a_read_only_directory_is_read_with_one_note(data, decoded, monkeypatch, capsys):
    cached_encoder(data)
    decoded.clear()
    save_image(data.images / "3.png", 99)
    capsys.readouterr()
    before = {file: file.read_bytes() for file in stores(data)[0].iterdir()}
    monkeypatch.setattr(Path, "mkdir", fail(errno.EROFS))
    monkeypatch.setattr("vlm_jax.data.file_cache.write_text", fail(errno.EROFS))
    examples, encode = cached_encoder(data)
    batches = train_batches(examples, encode)
    assert set(decoded) == {"3.png"} and not encode.cached.complete
    lines = told(capsys)
    assert len(lines) == 1 and os.strerror(errno.EROFS) in lines[0]
    assert {file: file.read_bytes() for file in stores(data)[0].iterdir()} == before
    assert_equal(batches, train_batches(examples, encoder(examples)))


def test_a_full_disk_in_the_middle_loses_nothing(data, decoded, monkeypatch, capsys):
    real, calls = os.write, []

    def full(number, content):
        calls.append(number)
        return real(number, content) if len(calls) <= 9 else fail(errno.ENOSPC)()

    monkeypatch.setattr(row_store.os, "write", full)
    examples, encode = cached_encoder(data)
    monkeypatch.undo()
    lines = told(capsys)
    assert len(lines) == 2 and os.strerror(errno.ENOSPC) in lines[1]
    assert len(encode.cached.store) == 4 and not encode.cached.complete
    assert_equal(train_batches(examples, encode), train_batches(examples, encoder(examples)))
    assert cached_encoder(data)[1].cached.complete


def test_another_version_is_left_alone_with_one_note(data, capsys):
    cached_encoder(data)
    specification = stores(data)[0] / SPECIFICATION
    write_manifest(specification, read_manifest(specification) | {"format": 99})
    capsys.readouterr()
    examples, encode = cached_encoder(data)
    lines = told(capsys)
    assert encode.cached is None and len(lines) == 1 and "99" in lines[0]
    assert read_manifest(specification)["format"] == 99
    assert_equal(train_batches(examples, encode), train_batches(examples, encoder(examples)))


def test_a_damaged_row_is_decoded_again(data, decoded):
    cached_encoder(data)
    decoded.clear()
    with (stores(data)[0] / ROWS).open("r+b") as rows:
        rows.seek(240 * 5 + 100)
        rows.write(b"damage")
    examples, encode = cached_encoder(data)
    batches = train_batches(examples, encode)
    assert len(set(decoded)) == 1
    assert_equal(batches, train_batches(examples, encoder(examples)))
    decoded.clear()
    assert train_batches(*cached_encoder(data))
    assert len(decoded) == 1, "the next run makes it again, once"


def test_images_of_one_content_are_one_row(data):
    (data.images / "5.png").write_bytes((data.images / "6.png").read_bytes())
    _, encode = cached_encoder(data)
    assert len(encode.cached.store) == COUNT - 1


def test_images_of_nobody_are_decoded(data, decoded, tmp_path):
    """A person asks about an image of no split, be it a file or bytes."""
    examples, encode = cached_encoder(data)
    save_image(tmp_path / "own.png", 77)
    for image in (tmp_path / "own.png", (tmp_path / "own.png").read_bytes()):
        np.testing.assert_array_equal(
            encode.load_image(examples[0]._replace(image=image)),
            encoder(examples).load_image(examples[0]._replace(image=image)),
        )
    content = (data.images / "1.png").read_bytes()
    decoded.clear()
    encode.load_image(examples[0]._replace(image=content))
    assert decoded == []


def test_prepared_records_are_not_read_to_find_their_rows(data_directory, monkeypatch):
    from vlm_jax.data.datasets.easy_vqa import EasyVQA
    from vlm_jax.data.sources import Examples

    data = EasyVQA(directory=data_directory, limit=50)
    examples = open_split(data, "validation")
    encode = encoder(list(examples))
    cached = cache_images([examples], encode, data)
    digests = image_digests(examples, data)
    reads, real = [], Examples.__getitem__
    monkeypatch.setattr(Examples, "__getitem__", lambda *place: (reads.append(place), real(*place))[1])
    assert image_digests(open_split(data, "validation"), data) == digests
    assert cache_images([open_split(data, "validation")], encode, data).complete
    assert len(reads) < 20, "more than a checker of types reads"
    monkeypatch.undo()
    encode = dataclasses.replace(encode, cached=cached)
    monkeypatch.setattr(encoding, "decode_image", lambda *_, **__: pytest.fail("decoded again"))
    assert list(EvaluationBatches(examples, encode, batch_images=4))


def test_the_pipeline_can_be_pickled(data):
    examples, encode = cached_encoder(data)
    loader = TrainLoader(examples, encode, seed=1, batch_images=5)
    list(itertools.islice(loader, 3))
    again = pickle.loads(pickle.dumps(loader))
    assert again.state() == loader.state()
    assert_equal(list(itertools.islice(again, 4)), list(itertools.islice(loader, 4)))
    again.close()
    loader.close()
    evaluation = EvaluationBatches(examples, encode, batch_images=5)
    assert_equal(list(pickle.loads(pickle.dumps(evaluation))), list(evaluation))


CHILD = """
import os
import sys
import time
from pathlib import Path
from tests.data import test_cached_images as test
from vlm_jax.data import encoding
from vlm_jax.data.user_files.table import TableQuestions
folder, slow = Path(sys.argv[1]), float(sys.argv[2])
real = encoding.decode_image
def tell(image, *, name, max_pixels):
    os.write(1, f"{Path(name).name}\\n".encode())  # one call: threads print at once
    time.sleep(slow)
    return real(image, name=name, max_pixels=max_pixels)
encoding.decode_image = tell
file = folder / "rows.jsonl"
files = {"train": (file,), "validation": (file,), "test": (file,)}
data = TableQuestions(images=folder / "images", directory=folder / "directory", **files)
_, encode = test.cached_encoder(data)
print("complete" if encode.cached.complete else "not complete", flush=True)
"""


def start_filling(folder, seconds):
    """Another process that fills the cache and prints each image that it decodes."""
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(folder), str(seconds)]
    root = Path(__file__).parent.parent.parent
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": "."},
    )


def test_two_processes_fill_one_cache_together(data, tmp_path):
    with start_filling(tmp_path, 0.02) as first, start_filling(tmp_path, 0.02) as second:
        lines = [first.stdout.read().split("\n"), second.stdout.read().split("\n")]
    assert [told[-2] for told in lines] == ["complete"] * 2
    names = [name for told in lines for name in told[:-2]]
    assert sorted(names) == sorted(f"{number}.png" for number in range(COUNT))
    assert (stores(data)[0] / INDEX).read_bytes().count(b"\n") == COUNT


@pytest.mark.slow
def test_kills_decode_at_most_the_images_in_work_again(data, tmp_path):
    for number in range(COUNT, 60):
        save_image(data.images / f"{number}.png", number)
        with data.train[0].open("a") as rows:
            rows.write("\n" + json.dumps({"image": f"{number}.png", "question": "what?", "answer": "it"}))
    names = []
    for _ in range(10):
        with start_filling(tmp_path, 0.01) as process:
            told = [process.stdout.readline() for _ in range(4)]
            process.kill()
            names += [*told, *process.stdout.readlines()]
    with start_filling(tmp_path, 0) as process:
        *told, last = process.stdout.readlines()
    names += told
    assert last == "complete\n" and len(set(names)) == 60
    assert len(names) <= 60 + 10 * data.threads
    assert (stores(data)[0] / INDEX).read_bytes().count(b"\n") == 60
