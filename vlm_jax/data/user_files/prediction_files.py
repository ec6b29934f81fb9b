"""Somebody's predictions and the references that they are scored by, matched by id.

Predictions are the official formats of results, `[{"image_id": 1, "caption": "a cat"}]` of COCO and
`[{"question_id": 1, "answer": "yes"}]` of VQA, a table with these columns, or `predictions.jsonl` of a run. References
are the official files of annotations, or tables with `captions` of an image, or `answers` of a question.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from vlm_jax.data.user_files.columns import ALIASES
from vlm_jax.data.user_files.json_files import load_json
from vlm_jax.data.user_files.rows import (
    Row,
    UnusableError,
    checked_id,
    checked_kind,
    checked_list,
    checked_object,
    checked_texts,
    without_surrogates,
)
from vlm_jax.data.user_files.text_tables import TableRows, is_json_lines, json_lines, json_list, separated
from vlm_jax.errors import InputError, counted, shown
from vlm_jax.metrics.captions import score_captions
from vlm_jax.metrics.vqa import ACCURACIES, accuracy_by_kind
from vlm_jax.metrics.vqa_accuracy import lenient_vqa_accuracy
from vlm_jax.types import Json

IDS = {"captions": ("image_id", "image", *ALIASES["image"]), "answers": ("question_id",)}
PREDICTIONS = {"captions": ("captions", *ALIASES["captions"]), "answers": ("prediction", "answer")}
REFERENCES = {name: (name, *ALIASES[name]) for name in IDS}
Texts = Literal["captions", "answers"]


class Reference(NamedTuple):
    """What people wrote."""

    texts: tuple[str, ...]
    kind: str
    """Of a question, such as `yes/no`; empty where the file has none."""


class Matched(NamedTuple):
    """Predictions with their references, in the order of the references."""

    texts: Texts
    predictions: list[str]
    references: list[Reference]
    missing: int
    """References that have no prediction; they are not scored."""

    def scores(self, accuracy: str) -> dict[str, float]:
        """The official scores of captions, or of answers by the rule of this name in `metrics.vqa.ACCURACIES`.

        Raises `InputError` where the official accuracy is 0 whatever is predicted, because one person answered.
        """
        if self.texts == "captions":
            return score_captions(self.predictions, [reference.texts for reference in self.references])
        if accuracy == "vqa" and max(len(reference.texts) for reference in self.references) < 2:
            raise InputError("no question has two answers, where the official accuracy is 0; give --accuracy soft")
        pairs = list(zip(self.predictions, [reference.texts for reference in self.references], strict=True))
        right = np.array([ACCURACIES[accuracy](*pair) for pair in pairs])
        kinds = [reference.kind for reference in self.references]
        scores = accuracy_by_kind(right, kinds) if all(kinds) else {"accuracy": float(right.mean())}
        if accuracy == "vqa":
            scores["accuracy_lenient"] = float(np.mean([lenient_vqa_accuracy(*pair) for pair in pairs]))
        return scores


def match(predictions_file: Path, reference_files: Sequence[Path]) -> Matched:
    """The predictions of a file beside what the other files say; what they are, their columns decide.

    Raises `InputError` for a row that cannot be used, an id that stands twice, and a prediction without reference.
    """
    texts, predictions = _predictions(predictions_file)
    references: dict[str, Reference] = {}
    for file in reference_files:
        for name, reference in _references(file, texts):
            earlier = references.get(name)
            if earlier is not None and texts == "answers":
                raise InputError(f"{file}: the question {shown(name)} stands twice")
            references[name] = Reference(
                (*earlier.texts, *reference.texts) if earlier else reference.texts, reference.kind
            )
    unknown = [name for name in predictions if name not in references]
    if unknown:
        what = "image_id" if texts == "captions" else "question_id"
        raise InputError(
            f"{predictions_file}: {counted(len(unknown), 'prediction')} without reference, the first of the {what} "
            f"{shown(unknown[0])}; expected ids of {', '.join(map(str, reference_files))}"
        )
    scored = [name for name in references if name in predictions]
    if not scored:
        raise InputError(f"{predictions_file} has no prediction")
    rows = [predictions[name] for name in scored], [references[name] for name in scored]
    return Matched(texts, *rows, len(references) - len(scored))


def _predictions(file: Path) -> tuple[Texts, dict[str, str]]:
    texts: Texts | None = None
    predictions: dict[str, str] = {}
    for place, row in _rows(file):
        with _named(file, place):
            if texts is None:
                texts = _texts_of(row)
            name = checked_id(_value(row, IDS[texts]), IDS[texts][0])
            if name in predictions:
                raise UnusableError(f"an earlier prediction has the {IDS[texts][0]} {shown(name)}")
            predictions[name] = _predicted(_value(row, PREDICTIONS[texts]), texts)
    if texts is None:
        raise InputError(f"{file} has no prediction")
    return texts, predictions


def _texts_of(row: Row) -> Texts:
    """Whether a row predicts an answer or a caption: an answer belongs to a question."""
    texts: Texts = "answers" if "question_id" in row else "captions"
    if not any(name in row for name in PREDICTIONS[texts]) or not any(name in row for name in IDS[texts]):
        raise UnusableError("expected image_id and caption, or question_id and answer")
    return texts


def _predicted(value: Json, texts: Texts) -> str:
    """The text; of several captions the first, which a run's own file has as an object."""
    if isinstance(value, list):
        value = checked_list(value, texts)[0]
    if isinstance(value, dict):
        value = value.get("caption")
    if not isinstance(value, str):
        raise UnusableError(f"the {texts.removesuffix('s')} must be a text, not {shown(value)}")
    return without_surrogates(value, texts)  # it may be empty: a model may say nothing


def _references(file: Path, texts: Texts) -> Iterator[tuple[str, Reference]]:
    for place, row in _annotations(file) or _rows(file):
        with _named(file, place):
            name = checked_id(_value(row, IDS[texts]), IDS[texts][0])
            value = _value(row, REFERENCES[texts])
            values = value if isinstance(value, list) else [value]
            written = [entry.get("answer") if isinstance(entry, dict) else entry for entry in values]
            kind = row.get("answer_type")
            yield (
                name,
                Reference(
                    checked_texts(written, "captions") if texts == "captions" else _answers(written),
                    "" if kind is None else checked_kind(kind, "answer_type"),
                ),
            )


def _answers(values: list[Json]) -> tuple[str, ...]:
    """Answers as people gave them: of ten, one may be empty."""
    for number, value in enumerate(checked_list(values, "answers"), 1):
        if not isinstance(value, str):
            raise UnusableError(f"answer {number} must be a text, not {shown(value)}")
        without_surrogates(value, f"answer {number}")
    return tuple(values)


def _annotations(file: Path) -> list[tuple[str, Row]] | None:
    """The annotations of an official file, those of COCO in the order of its images; None for a table.

    The official scores of captions depend on that order.
    """
    if file.suffix.lower() != ".json":
        return None
    try:
        content = load_json(file, expected="annotations")
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    except InputError:  # JSON Lines, perhaps
        return None
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(annotations, list):
        return None
    rows = [(f"annotation {number}", row) for number, row in enumerate(annotations, 1) if isinstance(row, dict)]
    images = content.get("images")
    if isinstance(images, list):
        order = {shown(image.get("id")): place for place, image in enumerate(images) if isinstance(image, dict)}
        rows.sort(key=lambda row: order.get(shown(row[1].get("image_id")), len(order)))
    return rows


def _rows(file: Path) -> Iterator[tuple[int | str, Row]]:
    try:
        for place, row in _table(file):
            with _named(file, place):
                if isinstance(row, UnusableError):
                    raise row
                yield place, checked_object(row)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None


def _table(file: Path) -> TableRows:
    match file.suffix.lower():
        case ".csv" | ".tsv":
            return separated(file, _check_header, (), keep_empty=True)
        case ".json" if not is_json_lines(file):
            return json_list(file)
        case _:
            return json_lines(file)


def _check_header(file: Path, names: tuple[str, ...]) -> None:
    """Raise `InputError` where the columns are no predictions and no references."""
    if not any({*IDS[texts]} & {*names} and {*PREDICTIONS[texts], *REFERENCES[texts]} & {*names} for texts in IDS):
        raise InputError(
            f"{file} has the columns {', '.join(map(shown, names[:20]))}; expected image_id and caption, or "
            "question_id and answer"
        )


@contextmanager
def _named(file: Path, place: int | str) -> Iterator[None]:
    """A row that cannot be used ends the command: a score of the others would be one of another set."""
    try:
        yield
    except UnusableError as error:
        raise InputError(f"{file}, {place if isinstance(place, str) else f'line {place}'}: {error}") from None


def _value(row: Row, names: Sequence[str]) -> Json:
    """The value under the first of the names that the row has."""
    name = next((name for name in names if name in row), None)
    if name is None:
        raise UnusableError(f"the key {names[0]!r} is missing")
    return row[name]
