"""JSON from strangers: a file of lines, one in memory at a time, or a file that is one value."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vlm_jax.data.user_files.rows import UnusableError, unique_keys
from vlm_jax.errors import InputError, nearest, shown

LONGEST_LINE = 10_000_000  # bytes
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def _no_constant(name: str) -> None:
    raise UnusableError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=unique_keys, parse_constant=_no_constant)


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


def parsed_line(line: str, keys: Sequence[str]) -> dict[str, Any]:
    """The object on a line, which holds all of `keys`; `UnusableError` otherwise."""
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
    for key in keys:
        if key in row:
            continue
        one = key.removesuffix("s")
        if one != key and one in row:
            raise UnusableError(f"{key} must be a list: write {key!r}: [...] instead of {one!r}")
        raise UnusableError(f"the key {key!r} is missing; {_hint(key, keys, row)}")
    return row


def _hint(missing: str, keys: Sequence[str], row: dict[str, Any]) -> str:
    """The key of the row that may have been meant."""
    if "question" in keys and "captions" in row:
        return "captions are read with data.texts captions"
    names = [name for name in row if name not in keys and name.isprintable()]
    hint = nearest(missing, names)
    expected = f"{', '.join(map(repr, keys[:-1]))} and {keys[-1]!r}"
    return hint if hint.startswith("did") else f"expected {expected}"


def load_json(path: Path, *, expected: str, object_hook: Callable[[list[tuple[str, Any]]], Any]) -> Any:
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
