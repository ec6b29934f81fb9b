"""Parquet tables, with the paths of images or with the images themselves, as Hugging Face writes them."""

import hashlib
import json
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_jax.data.user_files.columns import Columns
from vlm_jax.data.user_files.rows import Row, UnusableError
from vlm_jax.data.user_files.stored_rows import stored_rows
from vlm_jax.data.user_files.text_tables import TableRows
from vlm_jax.errors import InputError, shown
from vlm_jax.text_lines import first_line
from vlm_jax.types import Json, StoredImage

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH, BATCH_IMAGES = 1024, 16  # rows in memory at a time
MOST_ROWS, MOST_BYTES = 10, 1_000  # for each byte of the file, and 1 GiB; more is a file made to fill the memory
DIGITS = 32  # of the digest that is the id of an image


def parquet_rows(path: Path, columns: Columns, directory: Path) -> TableRows:
    """The rows of a file with their numbers; images in it are copied once below `directory`.

    The id of an image in the file is the digest of its bytes, so that rows with the same image are about one image.
    """
    file = _opened(path)
    schema = file.schema_arrow
    columns.check_header(path, tuple(schema.names))
    name = columns.sources(tuple(schema.names))["image"]
    lists = columns.lists

    readable = [field.name for field in schema if _readable(field.type)]
    if not _holds_images(schema.field(name).type):
        return _rows(path, file, readable, lists, BATCH)

    def rows(path: Path, copied: BufferedIOBase) -> TableRows:
        return _with_stored_images(_rows(path, file, [*readable, name], lists, BATCH_IMAGES), path, name, copied)

    return stored_rows(path, directory, rows, copies=True, read_as=f"{name} {sorted(lists)}")


def _opened(path: Path) -> "pq.ParquetFile":
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(f"{path} is a parquet file: install pyarrow to read it") from None
    try:
        file = pq.ParquetFile(path)
        metadata, size = file.metadata, path.stat().st_size
        groups = [metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)]
    except OSError as error:
        if error.errno:
            raise
        raise InputError(f"{path} is no whole parquet file: {first_line(error)}") from None
    except Exception as error:  # pyarrow answers a damaged file with nearly any exception
        raise InputError(f"{path} is no whole parquet file: {first_line(error)}") from None
    if metadata.num_rows > MOST_ROWS * size or sum(groups) > max(MOST_BYTES * size, 2**30):
        raise InputError(f"{path} has {size:,} bytes and declares {metadata.num_rows:,} rows of {sum(groups):,} bytes")
    return file


def _holds_images(kind: "pa.DataType") -> bool:
    """Whether a column holds the bytes of images: bare, or in Hugging Face's struct of `bytes` and `path`."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        fields = {field.name: field.type for field in kind}
        path_kind = fields.get("path", pa.string())
        is_path = pa.types.is_string(path_kind) or pa.types.is_large_string(path_kind) or pa.types.is_null(path_kind)
        return is_path and "bytes" in fields and _is_binary(fields["bytes"])
    return _is_binary(kind)


def _is_binary(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _rows(path: Path, file: "pq.ParquetFile", names: list[str], lists: set[str], size: int) -> TableRows:
    labels = {name: values for name, values in _class_names(file.schema_arrow).items() if name in names}
    number = 0
    for batch in _batches(path, file, names, size):
        for row in batch:
            number += 1
            fields = {name: value for name, value in row.items() if value is not None}
            try:
                for name in labels.keys() & fields.keys():
                    fields[name] = _class_name(labels[name], fields[name])
            except UnusableError as error:
                yield f"row {number:,}", error
                continue
            for name in lists & fields.keys():
                if isinstance(fields[name], str):
                    fields[name] = [fields[name]]
            yield f"row {number:,}", fields


def _batches(path: Path, file: "pq.ParquetFile", names: list[str], size: int) -> Iterator[list[dict[str, Json]]]:
    """Rows as Python values, `size` of them at a time."""
    try:
        for batch in file.iter_batches(batch_size=size, columns=names, use_threads=False):
            yield batch.to_pylist()
    except Exception as error:  # as above; also a text that is not UTF-8
        raise InputError(f"{path} is a damaged parquet file: {first_line(error)}") from None


def _readable(kind: "pa.DataType") -> bool:
    """Whether a column holds texts or whole numbers; others, such as embeddings, are left alone."""
    import pyarrow as pa

    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    value = kind.value_type if is_list or pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_integer(value)


def _class_names(schema: "pa.Schema") -> dict[str, list[str]]:
    """The names of the classes of each column that Hugging Face's datasets calls a ClassLabel."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature["names"] for name, feature in features.items() if feature.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _class_name(names: list[str], value: Json) -> Json:
    if not isinstance(value, int) or not 0 <= value < len(names):
        raise UnusableError(f"the label is {shown(value)}; expected 0 to {len(names) - 1}")
    return names[value]


def _with_stored_images(rows: TableRows, path: Path, name: str, copied: BufferedIOBase) -> TableRows:
    """The rows with the bytes of images written to `copied`, equal ones once, and with their places instead."""
    places: dict[bytes, int] = {}
    for place, row in rows:
        if isinstance(row, UnusableError):
            yield place, row
            continue
        value = row.get(name)
        data, image_path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        plain: Row = {key: entry for key, entry in row.items() if key != name}
        if data:
            content = hashlib.sha256(data)
            if content.digest() not in places:
                places[content.digest()] = copied.tell()
                copied.write(data)
            image = StoredImage(path, places[content.digest()], len(data), f"{path}, {place}")
            plain[name] = (content.hexdigest()[:DIGITS], image)
        elif image_path is not None:
            plain[name] = image_path
        yield place, plain
