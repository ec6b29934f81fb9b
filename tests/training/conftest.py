"""A small data set of images, and runs on it whose image encoder is frozen."""

import itertools
import json

import pytest

from tests.training.feature_data import COMMON, COUNT, TRUNK, save_image
from vlm_jax.config.vqa import VQA, Model
from vlm_jax.data.user_files.table import TableQuestions
from vlm_jax.run_claim import claim
from vlm_jax.training import stored_features
from vlm_jax.training.loop import Trainer


@pytest.fixture
def feature_files(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    settings = {"images": images, "directory": tmp_path / "directory", "stored_views": 1}
    for place, split in enumerate(("train", "validation", "test")):
        rows = []
        for number in range(place * COUNT, (place + 1) * COUNT):
            save_image(images / f"{number}.png", number)
            rows.append({"image": f"{number}.png", "question": "what?", "answer": str(number % 2), "caption": "a dot"})
        file = tmp_path / f"{split}.jsonl"
        file.write_text("\n".join(map(json.dumps, rows)))
        settings[split] = (file,)
    return settings


@pytest.fixture
def feature_config(feature_files):
    return VQA(data=TableQuestions(**feature_files), model=Model(**TRUNK), **COMMON)


@pytest.fixture
def start_run(tmp_path):
    """A run that is set up."""
    numbers, trainers = itertools.count(), []

    def make(config, name=None):
        with claim(tmp_path / "runs" / (name or str(next(numbers))), config) as folder:
            trainers.append(Trainer(config, folder, write_line=lambda _: None))
            return trainers[-1]

    yield make
    for trainer in trainers:
        trainer.loader.close()


@pytest.fixture
def computed_views(monkeypatch):
    """Keys of the views that were computed."""
    keys, real = [], stored_features._pixels
    monkeypatch.setattr(stored_features, "_pixels", lambda key, *rest: (keys.append(key), real(key, *rest))[1])
    return keys
