"""JSON from strangers: a file of lines, one in memory at a time, or a file that is one value."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from vlm_jax.data.user_files.rows import UnusableError
from vlm_jax.errors import InputError, shown
from vlm_jax.types import Json

LONGEST_LINE = 10_000_000  # bytes
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
ObjectHook = Callable[[list[tuple[str, Json]]], Json]


def plain_object(pairs: list[tuple[str, Json]]) -> dict[str, Json] | None:
    """A JSON object; None where a key stands in it twice, so that this spoils one entry of a file and not the file."""
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else None


def _unique_keys(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise UnusableError(f"the key {shown(twice)} stands in it twice")
    return fields


def _no_constant(name: str) -> None:
    raise UnusableError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_no_constant)


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


def parsed_line(line: str) -> dict[str, Json]:
    """The object on a line; `UnusableError` where there is none."""
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
    return row


def load_json(path: Path, *, expected: str, object_hook: ObjectHook = plain_object) -> Json:
    """The value that a file holds; `object_hook` makes an object of its keys and values.

    `InputError` where the file is no JSON, with what was `expected`, such as "a file of VQA v2".
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"), object_pairs_hook=object_hook)
    except RecursionError:
        raise InputError(f"{path} is nested too deeply; expected {expected}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: byte {error.start + 1}") from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from None


def load_lists(path: Path, *names: str, object_hook: ObjectHook = plain_object) -> dict[str, list[Json]]:
    """The lists of these names in the object that a file holds."""
    expected = f"an object with lists {' and '.join(map(repr, names))}"
    content = load_json(path, expected=expected, object_hook=object_hook)
    lists = {name: content.get(name) for name in names} if isinstance(content, dict) else {}
    if not lists or not all(isinstance(entries, list) for entries in lists.values()):
        raise InputError(f"{path}: expected {expected}")
    return lists
