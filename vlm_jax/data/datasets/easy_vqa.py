"""easy-VQA (Victor Zhou, 2019, MIT): 5,000 images of one shape each, 48,248 questions, 13 answers.

The PyPI package `easy_vqa` carries the images and questions; nothing is downloaded.
"""

import importlib.util
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Literal

from vlm_jax.data.settings import Prepared, Record
from vlm_jax.data.splits import with_validation
from vlm_jax.errors import InputError


class EasyVQA(Prepared):
    """48,248 questions about one coloured shape."""

    kind: Literal["easy_vqa"] = "easy_vqa"
    image_size: ClassVar[tuple[int, int]] = (64, 64)

    def records(self) -> dict[str, Iterable[Record]]:
        """One record an image with all its questions."""
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


SETTINGS = {"questions": EasyVQA, "images": EasyVQA}
