"""What a caption says.

    CAPTION   = [OPENING] CLAUSE {SEPARATOR [OPENING] CLAUSE} ["."]
    SEPARATOR = "," | "." | "and" | "with", or several of them
    CLAUSE    = COUNT | PHRASE [[["that"] "is"] RELATION PHRASE {"and" RELATION PHRASE}]
    COUNT     = ("no" | "one" | ... | "six") [SIZE] [COLOUR] NOUN
    PHRASE    = ("a" | "an" | "the") [SIZE] [COLOUR] NOUN [["that"] "is" ADJECTIVE ["and" ADJECTIVE]]
    ADJECTIVE = SIZE | COLOUR

A relation is one between the phrases on its two sides, and a further one after "and" is again about the first phrase.
"the" says no more than "a", and letter case does not matter. The words are those of `language.py`.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from vlm_jax.scenes.language import (
    ANY_SHAPE,
    NUMBERS,
    OPENINGS,
    OPENINGS_OF_SEVERAL,
    RELATION_WORDS,
    SIZE_WORDS,
    Mention,
    plural_of,
)
from vlm_jax.scenes.scene import COLOURS, SHAPES


class Relation(NamedTuple):
    """Where one object stands as seen from another; both are positions in `Statements.mentions`."""

    subject: int
    name: str
    object: int


class Statements(NamedTuple):
    """What a caption says, in the order of its words."""

    mentions: tuple[Mention, ...] = ()
    relations: tuple[Relation, ...] = ()
    unknown: tuple[str, ...] = ()
    """The clauses that do not fit the grammar; nothing else is kept of them."""

    @property
    def counts(self) -> tuple[Mention, ...]:
        """The mentions that state a number."""
        return tuple(mention for mention in self.mentions if mention.number is not None)


def _any(words: Iterable[str]) -> str:
    return "|".join(words)


_SIZES = {word: size for size, words in SIZE_WORDS.items() for word in words}
_SINGULAR = {noun: noun if noun in SHAPES else None for noun in (*SHAPES, *ANY_SHAPE)}
_PLURAL = {plural_of(noun): shape for noun, shape in _SINGULAR.items()}
_RELATIONS = {word: name for name, words in RELATION_WORDS.items() for word in words}

_TOKEN = re.compile(r"\w+|[^\w\s]")
_SEPARATOR = re.compile(r"(?: (?:[,.]|and|with)(?= |$))+ ?|$")
_OPENING = re.compile(rf"(?:(?:{_any(dict.fromkeys(OPENINGS + OPENINGS_OF_SEVERAL))}) )?")
_ADJECTIVES = rf"(?:(?P<size>{_any(_SIZES)}) )?(?:(?P<color>{_any(COLOURS)}) )?"
_BEHIND = rf"(?:{_any([*_SIZES, *COLOURS])})(?= |$)"
_COUNT = re.compile(rf"(?P<number>{_any(NUMBERS)}) {_ADJECTIVES}(?P<noun>{_any([*_PLURAL, *_SINGULAR])})(?= |$)")
_PHRASE = re.compile(
    rf"(?:an?|the) {_ADJECTIVES}(?P<noun>{_any(_SINGULAR)})(?= |$)"
    rf"(?: (?:that )?is (?P<behind>{_BEHIND}(?: and {_BEHIND})?))?"
)
_FIRST_RELATION = re.compile(rf" (?:(?:that )?is )?(?P<name>{_any(_RELATIONS)}) ")
_NEXT_RELATION = re.compile(rf" and (?P<name>{_any(_RELATIONS)}) ")


class _Clause(NamedTuple):
    mentions: list[Mention]
    relations: list[Relation]
    end: int


def parse_caption(text: str) -> Statements:
    """What a text says; `unknown` tells the parts that are not understood, and is empty where all is."""
    text = " ".join(_TOKEN.findall(text.lower()))
    mentions: list[Mention] = []
    relations: list[Relation] = []
    unknown: list[str] = []
    position = 0
    while position < len(text):
        clause = _clause(text, _OPENING.match(text, position).end(), first=len(mentions))
        separator = _SEPARATOR.match(text, clause.end) if clause else None
        if clause is None or separator is None:
            separator = _SEPARATOR.search(text, position)
            unknown.append(text[position : separator.start()])
        else:
            mentions += clause.mentions
            relations += clause.relations
        position = separator.end()
    if text.endswith((" and", " with", " ,")):  # broken off
        unknown.append(text.split()[-1])
    return Statements(tuple(mentions), tuple(relations), tuple(unknown))


def _clause(text: str, start: int, *, first: int) -> _Clause | None:
    """The clause that begins at `start`, whose first phrase is the mention at `first`; None if there is none."""
    if match := _COUNT.match(text, start):
        number = NUMBERS.index(match["number"])
        nouns = {0: _SINGULAR | _PLURAL, 1: _SINGULAR}.get(number, _PLURAL)
        mention = _mention(match, nouns=nouns, number=number)
        return _Clause([mention], [], match.end()) if mention else None
    mentions: list[Mention] = []
    relations: list[Relation] = []
    relation = None
    while True:
        match = _PHRASE.match(text, start)
        mention = _mention(match) if match else None
        if match is None or mention is None:
            return None
        if relation:
            relations.append(Relation(first, _RELATIONS[relation["name"]], first + len(mentions)))
        mentions.append(mention)
        relation = (_NEXT_RELATION if relations else _FIRST_RELATION).match(text, match.end())
        if relation is None:
            return _Clause(mentions, relations, match.end())
        start = relation.end()


def _mention(
    match: re.Match[str], *, nouns: dict[str, str | None] = _SINGULAR, number: int | None = None
) -> Mention | None:
    """What a phrase says; None where it says an attribute twice or its noun does not go with the number."""
    words = [match["size"], match["color"], *(match.groupdict().get("behind") or "").split(" and ")]
    sizes, colors = [_SIZES[word] for word in words if word in _SIZES], [word for word in words if word in COLOURS]
    if len(sizes) > 1 or len(colors) > 1 or match["noun"] not in nouns:
        return None
    return Mention(*sizes or [None], *colors or [None], nouns[match["noun"]], number)
