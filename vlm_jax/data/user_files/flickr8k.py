"""Flickr8k's captions: `1000268201_693b08cb0e.jpg#0`, a tab and a caption a line; Flickr30k's are alike."""

import re
from pathlib import Path

from vlm_jax.data.user_files.json_files import lines
from vlm_jax.data.user_files.rows import UnusableError
from vlm_jax.data.user_files.text_tables import TableRows

_LINE = re.compile(r"([^\t]+)#\d+\t(.*)", re.DOTALL)


def is_token_file(head: bytes) -> bool:
    """Whether a file begins with a line of captions."""
    return re.match(rb"(\xef\xbb\xbf)?[^\t\r\n]+#\d+\t", head) is not None


def token_rows(path: Path) -> TableRows:
    """A caption a line."""
    for number, line in lines(path):
        if isinstance(line, UnusableError):
            yield number, line
        elif match := _LINE.fullmatch(line.rstrip("\r\n")):
            yield number, {"image": match[1], "captions": [match[2]]}
        else:
            yield number, UnusableError("the line is not IMAGE#NUMBER, a tab and a caption")
