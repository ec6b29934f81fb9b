"""Tar shards as img2dataset and webdataset write them: `key.jpg` with `key.txt` or `key.json`, read by offset."""

import posixpath
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import BinaryIO

from vlm_jax.data.user_files.image_folder import IMAGE_ENDINGS
from vlm_jax.data.user_files.json_files import LONGEST_LINE, parsed_line
from vlm_jax.data.user_files.rows import Row, UnusableError, without_surrogates
from vlm_jax.data.user_files.stored_rows import stored_rows
from vlm_jax.data.user_files.tar_members import Member, tar_members
from vlm_jax.data.user_files.text_tables import TableRows
from vlm_jax.types import StoredImage


def tar_rows(path: Path, name: str, directory: Path) -> TableRows:
    """A row for each key: its image, the fields of its JSON, and its text as `caption`; ids begin with `name`."""
    for key, row in stored_rows(path, directory, _rows, copies=False):
        if isinstance(row, dict):
            image_id, image = row["image"]
            row["image"] = (f"{name}/{image_id}", image)
        yield key, row


def _rows(path: Path, copied: BufferedIOBase) -> TableRows:
    with path.open("rb") as file:
        for key, members in _samples(path):
            try:
                yield key, _row(path, file, members)
            except UnusableError as error:
                yield key, error


def _samples(path: Path) -> Iterator[tuple[str, dict[str, Member]]]:
    """The members of each key by their endings; those of a key lie together, as both programs write them."""
    key, members = "", {}
    for member in tar_members(path):
        folder, base = posixpath.split(member.name)
        stem, ending = posixpath.splitext(base)
        if not ending or base.startswith("."):
            continue  # a folder, or what a file system adds
        if (new := posixpath.join(folder, stem)) != key:
            if members:
                yield key, members
            key, members = new, {}
        members[ending.lower()] = member
    if members:
        yield key, members


def _row(path: Path, file: BinaryIO, members: dict[str, Member]) -> Row:
    for ending, member in members.items():
        if not member.regular:
            raise UnusableError(f"{ending} is no regular file in the archive, but a link or a device")
    images = [member for ending, member in members.items() if ending in IMAGE_ENDINGS]
    if len(images) != 1:
        raise UnusableError(f"{len(images)} images belong to it, {', '.join(members)}; expected one")
    row: Row = {}
    if ".json" in members:
        row |= parsed_line(_text(file, members[".json"]))
    if ".txt" in members and not {"caption", "captions"} & row.keys():
        row["caption"] = _text(file, members[".txt"]).strip()
    name = without_surrogates(images[0].name, "the name")
    row["image"] = (name, StoredImage(path, images[0].offset, images[0].size, f"{path}/{name}"))
    return row


def _text(file: BinaryIO, member: Member) -> str:
    if member.size > LONGEST_LINE:
        raise UnusableError(f"{member.name} is longer than {LONGEST_LINE:,} bytes")
    file.seek(member.offset)
    try:
        return file.read(member.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnusableError(f"{member.name} is not UTF-8: byte {error.start + 1}") from None
