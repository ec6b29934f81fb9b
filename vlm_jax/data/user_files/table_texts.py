"""Whether a table of your own has questions or captions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from vlm_jax.data.user_files.columns import Columns
from vlm_jax.data.user_files.image_lists import is_image_list
from vlm_jax.data.user_files.rows import UnusableError
from vlm_jax.data.user_files.table_formats import Source, open_table, table_files


def texts_of_table(
    paths: Sequence[Path], renamed: tuple[tuple[str, str], ...], directory: Path
) -> Literal["questions", "captions"]:
    """`questions` where the first row that can be used has a question, else `captions`.

    `renamed` and `directory` are those of `Columns` and `Source`. What else is wrong with the files is an error where
    they are read; a file that is no table raises `InputError` here.
    """
    columns = Columns("either", renamed)
    try:
        files = table_files({"train": tuple(paths), "validation": (), "test": ()})["train"]
        tables = [file for file in files if file.is_dir() or not is_image_list(file)]
        for table in tables[:1]:
            rows = open_table(table, table.name, Source(columns, "", directory)).rows
            row = next((row for _, row in rows if not isinstance(row, UnusableError)), {})
            return "questions" if {*columns.names("question")} & row.keys() else "captions"
    except OSError:
        pass
    return "captions"
