"""Statistics of a data set as text for a terminal."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from vlm_jax.data.statistics import CaptionStatistics, QuestionStatistics, SplitStatistics, histogram, shared
from vlm_jax.errors import counted, shown

COMMON = 15  # answers or captions listed
LACKING = 5  # answers or words listed that training lacks
BAR = 24  # characters of the longest bar
LABEL = 34
COLUMN = 12


def report(
    splits: Mapping[str, SplitStatistics],
    ids: Mapping[str, Iterable[str]],
    files: Mapping[str, Iterable[str]],
    groups: Mapping[str, Counter[str]] | None = None,
) -> str:
    """Everything about the splits, `train` first; `ids` and `files` (hashes) tell which images splits share.

    `groups` counts the images of each group; it is left out where no row has a group.
    """
    columns, texts = list(splits.values()), {name: split.texts for name, split in splits.items()}
    captions = isinstance(columns[0], CaptionStatistics)
    what = "caption" if captions else "question"
    rows = _caption_rows(columns) if captions else _question_rows(columns)
    parts = [_counts(what, splits, rows), _shared(shared(ids), shared(files)), _known({what: texts}, groups)]
    words = _lengths(f"words of a {what}", [split.text_words for split in columns])
    if captions:
        common = _common("word", {name: split.words for name, split in splits.items()})
        train = next(iter(texts.values()))
        most = [caption for caption, count in train.most_common(COMMON) if count > 1]  # photographs seldom share one
        repeated = _counted(most, texts) or ["  none is given twice"]
        parts += ["\n".join([_header("most common captions", texts), *repeated]), common, words]
        parts += [_lengths("captions of an image", [split.texts_per_image for split in columns])]
    else:
        parts += [_common("answer", {name: split.answers for name, split in splits.items()}), words]
        parts += [_lengths("words of an answer", [split.answer_words for split in columns])]
    return "\n\n".join(parts)


def listing(title: str, entries: Sequence[object], most: int | None) -> str:
    """A title with a count, and the entries, one a line; only the first `most` of them."""
    lines = [f"{title}: {len(entries):,}", *(f"  {_harmless(str(entry))}" for entry in entries[:most])]
    if most is not None and len(entries) > most:
        lines.append(f"  and {len(entries) - most:,} more (--all lists them)")
    return "\n".join(lines)


def _counts(what: str, splits: Mapping[str, SplitStatistics], rows: Sequence[str]) -> str:
    columns = list(splits.values())
    kinds = [kind for kind, _ in sum((split.kinds for split in columns), Counter()).most_common(COMMON)]
    means = (f"{split.kinds.total() / max(1, split.images):.1f}" for split in columns)
    return "\n".join(
        [
            _header("", splits),
            _row("images", (f"{split.images:,}" for split in columns)),
            _row(f"{what}s", (f"{split.kinds.total():,}" for split in columns)),
            *(_row(f"  {plain(kind)}", (f"{split.kinds[kind]:,}" for split in columns)) for kind in kinds),
            _row(f"{what}s of an image, mean", means),
            *rows,
        ]
    )


def _question_rows(columns: Sequence[QuestionStatistics]) -> list[str]:
    return [
        _row("  the most", (f"{max(split.texts_per_image, default=0):,}" for split in columns)),
        _row("distinct answers", (f"{len(split.answers):,}" for split in columns)),
        _row("an answer unseen in training", (_share(s.some_answer_unseen, s.kinds.total()) for s in columns)),
        _row("every answer unseen", (_share(s.every_answer_unseen, s.kinds.total()) for s in columns)),
    ]


def _caption_rows(columns: Sequence[CaptionStatistics]) -> list[str]:
    return [
        _row("distinct captions", (f"{len(split.texts):,}" for split in columns)),
        _row("words", (f"{split.words.total():,}" for split in columns)),
        _row("distinct words", (f"{len(split.words):,}" for split in columns)),
        _row("words unseen in training", (_share(split.unseen, split.words.total()) for split in columns)),
    ]


def _shared(ids: Mapping[tuple[str, str], Sequence[str]], files: Mapping[tuple[str, str], Sequence[str]]) -> str:
    rows = (_row("  " + " and ".join(pair), (f"{len(ids[pair]):,}", f"{len(files[pair]):,}")) for pair in ids)
    return "\n".join([_row("images in two splits", ("same id", "same file")), *rows])


def _known(texts: Mapping[str, Mapping[str, Counter[str]]], groups: Mapping[str, Counter[str]] | None) -> str:
    """Of each other split the questions or captions, and the groups, that training has too: counts and examples."""
    lines = []
    for what, splits in (*texts.items(), *([("group", groups)] if groups else [])):
        train, *others = splits.items()
        for name, split in others:
            known = [(value, count) for value, count in split.most_common() if value in train[1]]
            share = f"different {what}s of {name} that {train[0]} has too: {len(known):,} of {len(split):,}"
            first = ", ".join(f"{plain(value)} ({count:,})" for value, count in known[:LACKING])
            lines.append(f"{share}, such as {first}" if known else share)
    return "\n".join(lines)


def _common(what: str, splits: Mapping[str, Counter[str]]) -> str:
    """What training has most of, and what it lacks."""
    train = next(iter(splits.values()))
    common = [value for value, _ in train.most_common(COMMON)]
    lines = [_header(f"most common {what}s", splits), *_counted(common, splits)]
    for name, split in list(splits.items())[1:]:
        unseen = [(value, count) for value, count in split.most_common() if value not in train]
        if unseen:
            first = ", ".join(f"{plain(value)} ({count:,})" for value, count in unseen[:LACKING])
            lines.append(f"{counted(len(unseen), what)} of {name} that training lacks: {first}")
    return "\n".join(lines)


def _counted(values: Sequence[str], splits: Mapping[str, Counter[str]]) -> list[str]:
    return _barred([plain(value) for value in values], [[s[value] for s in splits.values()] for value in values])


def _lengths(title: str, counts: Sequence[Mapping[int, int]]) -> str:
    table = histogram(counts)
    return "\n".join([title, *_barred([label for label, _ in table], [row for _, row in table])])


def _barred(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> list[str]:
    """Rows with a bar for the first count."""
    most = max((row[0] for row in counts), default=0) or 1
    return [
        f"{_row('  ' + label, (f'{count:,}' for count in row))}  {'#' * -(-row[0] * BAR // most)}".rstrip()
        for label, row in zip(labels, counts, strict=True)
    ]


def _header(label: str, splits: Iterable[str]) -> str:
    """The names of the splits above their columns, a long one on two lines."""
    begin = [name[: name.rfind("_") + 1] if len(name) >= COLUMN else "" for name in splits]
    last = _row(label, (name.removeprefix(first) for name, first in zip(splits, begin, strict=True)))
    return f"{_row('', begin)}\n{last}" if any(begin) else last


def _row(label: str, values: Iterable[str]) -> str:
    return f"{label:{LABEL}s}" + "".join(f"{value:>{COLUMN}s}" for value in values)


def _share(part: int, total: int) -> str:
    return f"{part / max(1, total):.1%}"


def plain(text: str) -> str:
    """A text from a file, short and harmless to a terminal; in quotes where it would not be seen as it is."""
    as_it_is = text.isprintable() and text == text.strip() and text
    return text[: LABEL - 4] + "…" * (len(text) > LABEL - 4) if as_it_is else shown(text[: LABEL - 4])


def _harmless(line: str) -> str:
    return "".join(character if character.isprintable() else "�" for character in line)
