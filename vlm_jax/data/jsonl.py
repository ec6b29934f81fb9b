"""JSON Lines: a question a line, `{"image": "cat.png", "question": "what colour?", "answers": ["black"]}`.

Two keys are optional: `question_id` (by default FILE NAME:LINE) and `answer_type` (by default `yes_no` or `open`, as
the answers are). Other keys are left alone.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vlm_jax.data.picture_folder import PictureFolder
from vlm_jax.data.rows import Reading, Rows, UnusableError, checked_id, checked_kind, checked_text, shown, unique_keys
from vlm_jax.errors import nearest
from vlm_jax.metrics.vqa import canonical
from vlm_jax.types import Question

LONGEST_LINE = 10_000_000  # bytes
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def _no_constant(name: str) -> None:
    raise UnusableError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=unique_keys, parse_constant=_no_constant)


def read_jsonl(paths: Sequence[Path], pictures: PictureFolder) -> Reading:
    """The questions by picture, and the lines that cannot be used; a picture's id is its normalised relative path."""
    rows = Rows()
    for path in paths:
        alone = sum(other.name == path.name for other in paths) == 1
        for number, line in lines(path):
            try:
                if isinstance(line, UnusableError):
                    raise line
                row = _parsed(line)
                question = _question(row, default_id=f"{path.name if alone else path}:{number}")
                name = checked_text(row["image"], "the picture path")
                found = pictures.find(name)
                if found is None:
                    raise UnusableError(f"no picture {shown(name)}")
                rows.add(*found, question)
            except UnusableError as error:
                rows.refuse(path, number, error)
    return rows.reading()


def lines(path: Path) -> Iterator[tuple[int, str | UnusableError]]:
    """The lines of a file that are not blank, with their numbers from 1, one in memory at a time.

    A line that is too long or no UTF-8 comes as the error that says so.
    """
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            line = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
            if len(line) > LONGEST_LINE and not line.endswith(b"\n"):
                while line and not line.endswith(b"\n"):
                    line = file.readline(LONGEST_LINE)
                yield number, UnusableError(f"the line is longer than {LONGEST_LINE:,} bytes")
            elif line.strip():
                try:
                    yield number, line.decode()
                except UnicodeDecodeError as error:
                    yield number, UnusableError(f"the line is not UTF-8: byte {line[error.start]:#04x}")


def _parsed(line: str) -> dict[str, Any]:
    try:
        row = _DECODER.decode(line)
    except json.JSONDecodeError as error:
        raise UnusableError(f"the line is not JSON: {error.msg}, character {error.pos + 1}") from None
    except ValueError:  # Python converts no more digits than sys.get_int_max_str_digits()
        raise UnusableError("a number in it has too many digits") from None
    except RecursionError:
        raise UnusableError("the line is nested too deeply") from None
    if not isinstance(row, dict):
        raise UnusableError(f"the line is {shown(row)}; expected one object a line")
    for key in ("image", "question", "answers"):
        if key in row:
            continue
        if key == "answers" and "answer" in row:
            raise UnusableError("answers must be a list: write 'answers': [...] instead of 'answer'")
        raise UnusableError(f"the key {key!r} is missing; {_hint(key, row)}")
    return row


def _hint(key: str, row: dict[str, Any]) -> str:
    """The key of the row that may have been meant."""
    names = [name for name in row if name not in ("image", "question", "answers") and name.isprintable()]
    hint = nearest(key, names)
    return hint if hint.startswith("did") else "expected 'image', 'question' and 'answers'"


def _question(row: dict[str, Any], *, default_id: str) -> Question:
    text = checked_text(row["question"], "the question")
    answers = row["answers"]
    if not isinstance(answers, list):
        raise UnusableError(f"answers must be a list, not {shown(answers)}")
    if not answers:
        raise UnusableError("answers is empty; give at least one answer")
    answers = tuple(checked_text(answer, f"answer {number}") for number, answer in enumerate(answers, 1))
    question_id, kind = row.get("question_id"), row.get("answer_type")
    yes_no = all(canonical(answer) in ("yes", "no") for answer in answers)
    return Question(
        question_id=default_id if question_id is None else checked_id(question_id, "question_id"),
        text=text,
        answers=answers,
        kind=("yes_no" if yes_no else "open") if kind is None else checked_kind(kind, "answer_type"),
    )
