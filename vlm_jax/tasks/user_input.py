"""Texts and images that a user gives a trained model: what is not read of a text, and the cards of a contact sheet."""

import sys
from collections.abc import Sequence
from pathlib import Path

from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.data.images import decode_image
from vlm_jax.figures import Card, thumbnail
from vlm_jax.tasks.base import Prediction
from vlm_jax.types import Example

AT_ONCE = 64  # images, candidates too
SHOWN = 200  # characters of a text or of words that a note shows
READ_CHARACTERS = 10_000  # characters whose words a note can be about; all of them would take all memory


def notes_on(texts: Sequence[str], encode: ExampleEncoder, *, own_vocabulary: bool) -> dict[str, list[str]]:
    """By text, notes on the words that the model does not read or did not learn; they are printed to stderr too."""
    notes = {text: _notes(text, encode, own_vocabulary) for text in dict.fromkeys(texts)}
    for lines in notes.values():
        for line in lines:
            print(f"note: {line}", file=sys.stderr)
    return notes


def _notes(text: str, encode: ExampleEncoder, own_vocabulary: bool) -> list[str]:
    words, notes = encode.tokenizer.words(text.strip()[:READ_CHARACTERS]), []
    if not words:
        notes.append(f"no word is in {text[:SHOWN]!r}: the model reads an empty text")
    unknown = [word for word, ids in words if encode.tokenizer.unknown_id in ids]
    if unknown:
        notes.append(f"the model cannot read {_listed(unknown)}")
    # A vocabulary built from the training texts holds their words whole.
    new = [word for word, ids in words if len(ids) > 1] if own_vocabulary else []
    if new:
        notes.append(f"not a word of the training texts: {_listed(new)}")
    if encode.tokenizer.truncated([text], encode.max_length):
        notes.append(f"only the first {encode.max_length - 2} tokens are read of {text[:SHOWN]!r}")
    return notes


def _listed(words: Sequence[str]) -> str:
    """Each word once, as many as fit a line."""
    text = ", ".join(map(repr, dict.fromkeys(words)))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def cards(
    predictions: Sequence[Prediction], examples: Sequence[Example], output: Path | None, *, max_pixels: int
) -> list[Card]:
    """The images with their predictions; none without an output file."""
    if output is None:
        return []
    small = {
        example.image_id: thumbnail(decode_image(example.image, name=example.image_id, max_pixels=max_pixels))
        for example in examples
    }
    return [prediction.card(small[prediction.image_id]) for prediction in predictions]
