"""Data sets that TFDS prepared: records equal what TFDS itself reads, missing splits are tenths of training."""

import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments.train import parse_train
from vlm_jax.data.datasets.builder import png
from vlm_jax.data.datasets.tfds import TfdsCaptions, TfdsQuestions
from vlm_jax.data.digests import digest_split, image_digests
from vlm_jax.data.images import decode_image
from vlm_jax.data.sources import open_split
from vlm_jax.errors import InputError

TEXT = tfds.features.Text()
FEATURES = {
    "labels": {"label": tfds.features.ClassLabel(names=["cat", "dog"])},
    "pairs": {"question_answer": tfds.features.Sequence({"question": TEXT, "answer": TEXT})},
    "captions": {"captions": tfds.features.Sequence({"text": TEXT, "id": tfds.features.Scalar(np.int64)})},
    "texts": {"words": TEXT, "score": tfds.features.Scalar(np.float32)},
}


def value_of(name, number):
    return {
        "labels": {"label": number % 2},
        "pairs": {"question_answer": [{"question": f"what {n}?", "answer": f"{number}"} for n in range(2)]},
        "captions": {"captions": [{"text": f"image {number} ö", "id": n} for n in range(2)]},
        "texts": {"words": f"image {number}", "score": 0.5},
    }[name]


class InventedSet(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, name, directory, splits):
        self.name, self._splits = name, splits
        super().__init__(data_dir=str(directory), file_format="array_record")

    def _info(self):
        features = {"photo": tfds.features.Image(shape=(4, 6, 3), encoding_format="png")} | FEATURES[self.name]
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {split: self._records(*numbers) for split, numbers in self._splits.items()}

    def _records(self, first, last):
        for number in range(first, last):
            yield number, {"photo": png(np.full((4, 6, 3), number, np.uint8))} | value_of(self.name, number)

    def _generate_examples(self):
        raise NotImplementedError


def prepared(folder, name, **splits):
    builder = InventedSet(name, folder, splits)
    tfds.disable_progress_bar()
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    return builder


@pytest.mark.parametrize("name", FEATURES)
def test_records_are_those_that_tfds_reads(tmp_path, name, capfd):
    builder = prepared(tmp_path, name, train=(0, 10), val=(10, 13), test=(13, 15))
    questions = name in ("labels", "pairs")
    columns = ("captions=words",) if name == "texts" else ()
    kind = TfdsQuestions if questions else TfdsCaptions
    data = kind(dataset=name, folder=tmp_path, directory=tmp_path / "kept", columns=columns)
    for split, own in (("train", "train"), ("validation", "val"), ("test", "test")):
        examples = pickle.loads(pickle.dumps(open_split(data, split)))
        records = list(builder.as_data_source(own, decoders={"photo": tfds.decode.SkipDecoding()}))
        assert len(examples) == len(records) == {"train": 10, "val": 3, "test": 2}[own]
        for example, record in zip(examples, records, strict=True):
            assert example.image == record["photo"]
            number = int(decode_image(example.image, max_pixels=100)[0, 0, 0])
            expected = {
                "labels": [("what is this?", (("cat", "dog")[number % 2],))],
                "pairs": [(f"what {n}?", (str(number),)) for n in range(2)],
                "captions": [(f"image {number} ö", ())] * 2,
                "texts": [(f"image {number}", ())],
            }[name]
            assert [(text.text, text.answers) for text in example.texts] == expected
    assert len({e.image_id for split in ("train", "validation", "test") for e in open_split(data, split)}) == 15


def test_splits_that_are_missing_are_parts_of_training(tmp_path):
    prepared(tmp_path, "labels", train=(0, 40), test=(40, 50))
    data = TfdsQuestions(dataset="labels:1.0.0", folder=tmp_path, directory=tmp_path / "kept")
    values = {
        split: {int(decode_image(e.image, max_pixels=100)[0, 0, 0]) for e in open_split(data, split)}
        for split in ("train", "validation", "test")
    }
    assert (len(values["train"]), len(values["validation"]), len(values["test"])) == (36, 4, 10)
    assert values["train"] | values["validation"] == {*range(40)} and values["test"] == {*range(40, 50)}
    parts = [image_digests(open_split(data, split), data) for split in ("train", "validation", "test", "validation")]
    assert parts[1] == parts[3] and not {*parts[1]} & {*parts[0], *parts[2]} and [*map(len, parts)] == [36, 4, 10, 4]
    digests = [digest_split(open_split(data, split), data, split) for split in ("train", "validation", "train")]
    assert digests[0] == digests[2] != digests[1] and digests[0].images == 36
    other = data.model_copy(update={"question": "which animal?"})
    assert digest_split(open_split(other, "train"), other, "train").sha256 != digests[0].sha256
    by_folder = data.model_copy(update={"dataset": str(tmp_path / "labels" / "1.0.0")})
    assert len(open_split(by_folder, "train")) == 36


def test_mistakes_are_one_line(tmp_path):
    prepared(tmp_path, "texts", train=(0, 10))
    data = TfdsCaptions(dataset="texts", folder=tmp_path, directory=tmp_path / "kept")
    for changes, message in (
        ({"dataset": "nothing"}, "no data set 'nothing'"),
        ({}, r"train/0 cannot be used: the key 'captions' is missing.*it has .*words"),
        ({"columns": ("captions=score",)}, "the key 'score' is missing"),
    ):
        with pytest.raises(InputError, match=message) as error:
            open_split(data.model_copy(update=changes), "train")[0]
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no split 'tests'"):
        open_split(data, "tests")


def test_the_short_name_of_a_data_set():
    data = parse_train(["vqa", "--data", "tfds:cifar10:3.0.2"])[0].data
    assert type(data) is TfdsQuestions and data.dataset == "cifar10:3.0.2"
    assert type(parse_train(["captioning", "--data", "tfds:coco_captions"])[0].data) is TfdsCaptions
