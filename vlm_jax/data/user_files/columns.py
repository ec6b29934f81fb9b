"""The columns of your own tables, and the names that files give them."""

from functools import lru_cache
from typing import NamedTuple

from vlm_jax.data.user_files.rows import Row, UnusableError
from vlm_jax.errors import InputError, nearest, one_of, shown

# Other names of a column, most of them Hugging Face's. Under the singular stands one text instead of a list.
ALIASES = {
    "image": ("file_name", "filename", "image_path", "img", "path"),
    "answers": ("answer", "label"),
    "captions": ("caption", "text"),
}
WANTED = {"questions": ("image", "question", "answers"), "captions": ("image", "captions"), "either": ("image",)}
OPTIONAL = ("group", "question_id", "answer_type")
LISTS = ("answers", "captions")


class Columns(NamedTuple):
    """The columns that a task reads, and those that the user has named."""

    texts: str
    """`questions`, `captions`, or `either` where that is to be found out."""
    renamed: tuple[tuple[str, str], ...] = ()
    """A column and its name in the files."""
    needs_answers: bool = True

    def names(self, column: str) -> tuple[str, ...]:
        """The names under which a column is looked for, in order."""
        name = dict(self.renamed).get(column)
        return (column, *ALIASES.get(column, ())) if name is None else (name,)

    def fields(self, row: Row) -> Row:
        """The columns of a row; a text stands for a list of one. `UnusableError` names a column that is missing."""
        fields = {column: row[name] for column, name in self.sources(tuple(row)).items()}
        for column in LISTS:
            if column in fields and column not in row and not isinstance(fields[column], list):
                fields[column] = [str(value) if type(value := fields[column]) is int else value]
        return fields

    @lru_cache(maxsize=256)  # noqa: B019 (a named tuple: equal ones share their entries)
    def sources(self, keys: tuple[str, ...]) -> dict[str, str]:
        """The name of each column that is among the keys of a row."""
        sources = {}
        for column in (*WANTED[self.texts], *OPTIONAL):
            if (name := next((name for name in self.names(column) if name in keys), None)) is not None:
                sources[column] = name
            elif column in self.required:
                raise UnusableError(f"the key {self.names(column)[0]!r} is missing; {self._hint(column, keys)}")
        return sources

    @property
    def lists(self) -> set[str]:
        """The names of columns that hold lists of texts."""
        other = {name for column, name in self.renamed if column not in LISTS}
        return {name for column in LISTS for name in self.names(column)} - other

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that each row must have."""
        return tuple(column for column in WANTED[self.texts] if column != "answers" or self.needs_answers)

    def check_header(self, path: object, names: tuple[str, ...]) -> None:
        """Raise `InputError` where a table that names its columns once has a column twice, or lacks one."""
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{path} has the column {shown(twice)} twice")
        known = {name for column in (*WANTED["questions"], "captions", *OPTIONAL) for name in self.names(column)}
        if not known & {*names}:
            raise InputError(
                f"{path} has no header: its first line names none of the columns; {one_of(sorted(known))}; "
                "or name them, such as --data.columns image=NAME"
            )
        for column in (*self.required, *dict(self.renamed)):
            if not {*self.names(column)} & {*names}:
                expected = " or ".join(map(repr, self.names(column)))
                has = ", ".join(map(shown, names[:20]))
                more = "" if column in dict(self.renamed) else f", or give --data.columns {column}=NAME"
                more += "; questions without answers are for --data.test" if column == "answers" else ""
                raise InputError(f"{path} has no column {expected}; it has {has}; {self._hint(column, names)}{more}")

    def _hint(self, missing: str, keys: tuple[str, ...]) -> str:
        """The key of the row that may have been meant."""
        if missing == "question" and {*self.names("captions")} & {*keys}:
            return "rows with captions are for the task captioning, or for --data.rows captions"
        names = [name for name in keys if name not in self.required and name.isprintable()]
        hint = nearest(self.names(missing)[0], names)
        *others, last = [repr(self.names(column)[0]) for column in self.required]
        return hint if hint.startswith("did") else f"expected {', '.join(others)} and {last}"


def renamed_columns(texts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """`image=path` and the like as pairs; `ValueError` where one is not so, or names no column."""
    columns = (*WANTED["questions"], "captions", *OPTIONAL)
    plural = {name.removesuffix("s"): name for name in LISTS}
    pairs = []
    for text in texts:
        column, sign, name = text.partition("=")
        column = plural.get(column, column)
        if not sign or not name or column not in columns:
            raise ValueError(f"{text!r} is not like image=NAME; {one_of(columns)}")
        pairs.append((column, name))
    return tuple(pairs)
