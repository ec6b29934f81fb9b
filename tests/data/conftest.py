"""Data shared by the data tests: easy-VQA prepared once, and an encoder for it."""

import dataclasses

import pytest

from vlm_jax.data.answers import AnswerVocabulary
from vlm_jax.data.datasets.easy_vqa import EasyVQA
from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.data.image_settings import AugmentedImages
from vlm_jax.data.sources import open_split
from vlm_jax.data.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def data(data_directory):
    return EasyVQA(directory=data_directory)


@pytest.fixture(scope="session")
def splits(data):
    return {split: list(open_split(data, split)) for split in ("train", "validation", "test")}


@pytest.fixture(scope="session")
def encoder(splits):
    texts = [question.text for example in splits["train"] for question in example.texts]
    tokenizer, answers = Tokenizer.build(texts, 256), AnswerVocabulary.build(splits["train"])
    image = AugmentedImages(size=(32, 32), flip=True, shift=3)

    def make(**changes):
        default = ExampleEncoder(tokenizer, answers, image, max_length=16, texts_per_image=10)
        return dataclasses.replace(default, **changes)

    return make
