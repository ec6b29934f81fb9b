"""easy-VQA (Victor Zhou, 2019, MIT): 5,000 images of one shape each, 48,248 questions, 13 answers.

The PyPI package `easy_vqa` carries the images and questions; nothing is downloaded.
"""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from vlm_jax.data.datasets.records import Record, RecordBuilder, image_with_questions, with_validation
from vlm_jax.errors import InputError


class EasyVqa(RecordBuilder):
    """One record an image with all its questions."""

    SETTINGS = ()

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(image_with_questions((64, 64))),
            description="easy-VQA: shapes and colours",
            homepage="https://github.com/vzhou842/easy-VQA",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Record]]:
        return {**with_validation(_records("train")), "test": _records("test")}


def _records(part: str) -> Iterator[Record]:
    folder = _package_folder() / "data" / part
    questions: dict[int, list[dict[str, str]]] = {}
    for number, (text, answer, image) in enumerate(json.loads((folder / "questions.json").read_text("utf-8"))):
        kind = "yes_no" if answer in ("yes", "no") else "open"
        question = {"question_id": f"{part}/{number}", "text": text, "answers": answer, "kind": kind}
        questions.setdefault(image, []).append(question)
    for image in sorted(questions):
        image_id = f"{part}/{image}"
        path = folder / "images" / f"{image}.png"
        yield image_id, {"image_id": image_id, "image": path, "questions": questions[image]}


def _package_folder() -> Path:
    spec = importlib.util.find_spec("easy_vqa")  # not imported: only its data is wanted
    if spec is None or spec.origin is None:
        raise InputError("the data set easy_vqa needs the package easy_vqa; run: pip install easy-vqa==1.0")
    return Path(spec.origin).parent


BUILDER = EasyVqa
