"""Texts that a user gives a trained model: what is not read of them."""

from vlm_jax.data.encoding import ExampleEncoder

SHOWN = 200  # characters of a text or of words that a warning shows
READ_CHARACTERS = 10_000  # characters whose words a warning can be about; all of them would take all memory


def text_warnings(text: str, encode: ExampleEncoder, *, own_vocabulary: bool) -> tuple[str, ...]:
    """What the model does not read of a text, or did not learn of it."""
    words, warnings = encode.tokenizer.words(text.strip()[:READ_CHARACTERS]), []
    if not words:
        warnings.append(f"no word is in {text[:SHOWN]!r}: the model reads an empty text")
    unknown = [word for word, ids in words if encode.tokenizer.unknown_id in ids]
    if unknown:
        warnings.append(f"the model cannot read {_listed(unknown)}")
    # A vocabulary built from the training texts holds their words whole.
    new = [word for word, ids in words if len(ids) > 1] if own_vocabulary else []
    if new:
        warnings.append(f"not a word of the training texts: {_listed(new)}")
    if encode.tokenizer.truncated([text], encode.max_length):
        warnings.append(f"only the first {encode.max_length - 2} tokens are read of {text[:SHOWN]!r}")
    return tuple(warnings)


def _listed(words: list[str]) -> str:
    """Each word once, as many as fit a line."""
    text = ", ".join(map(repr, dict.fromkeys(words)))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
