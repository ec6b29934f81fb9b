"""Lines as files have them: they end in \\n or \\r\\n, and nothing else ends one.

`str.splitlines` ends a line at nine more characters, such as U+2028, which texts, tokens and JSON hold. Text mode takes
a lone \\r for an end, too.
"""

from pathlib import Path


def split_lines(text: str) -> list[str]:
    """The lines of a text without their ends; what follows the last end is a line unless it is empty."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_lines(file: Path, *, errors: str = "strict") -> list[str]:
    """The lines of a file in UTF-8. `OSError` or `UnicodeDecodeError` where it cannot be read, unless `errors` say."""
    return split_lines(file.read_bytes().decode("utf-8", errors))


def first_line(error: BaseException) -> str:
    """What an error says first; its type where it says nothing."""
    return str(error).strip().partition("\n")[0].rstrip() or type(error).__name__
