"""Unigram tokenizers, as XLM-R, CamemBERT and ALBERT have them: read from tokenizer.json, with the rules of a class.

The classes of transformers 5 take vocabulary and character map from the file, and build the rest by rules of their own
(tokenization_xlm_roberta.py, tokenization_camembert.py, tokenization_albert.py).
"""

from collections.abc import Mapping
from pathlib import Path

from vlm_jax.errors import InputError
from vlm_jax.types import Json

UNIGRAM_SWITCHES = {"unigram": {"add_prefix_space"}, "albert": {"add_prefix_space", "do_lower_case", "keep_accents"}}
"""Settings that change ids, by the kind of class."""
MODELS = ("spiece.model", "sentencepiece.bpe.model")


def refuse_model_alone(folder: Path) -> None:
    """`InputError` where a folder has a SentencePiece model and nothing that is read, with the line that makes it."""
    models = [name for name in MODELS if (folder / name).is_file()]
    if models and not (folder / "tokenizer.json").is_file():
        line = f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
        raise InputError(
            f"{folder} has {models[0]} and no tokenizer.json; make one in transformers: "
            f'python -c "from transformers import AutoTokenizer; {line}"'
        )


def unigram_rules(kind: str, packed: Mapping[str, Json], switches: Mapping[str, bool | None]) -> dict[str, Json]:
    """Normaliser and splitter of a tokenizer.json by the rules of a class."""
    steps = _character_map(packed.get("normalizer"))
    if kind == "albert":
        quotes = [{"type": "Replace", "pattern": {"String": mark}, "content": '"'} for mark in ("``", "''")]
        accents = [] if switches.get("keep_accents") else [{"type": "NFKD"}, {"type": "StripAccents"}]
        lower = [{"type": "Lowercase"}] if switches.get("do_lower_case", True) else []
        steps = [*quotes, *accents, *lower, *steps]
    scheme = "always" if switches.get("add_prefix_space", True) else "never"
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": True}
    splitter = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, space]}
    normalizer = {"type": "Sequence", "normalizers": steps} if steps else None
    return {"normalizer": normalizer, "pre_tokenizer": splitter}


def _character_map(normalizer: Json) -> list[Json]:
    """The first map of characters that SentencePiece compiled, where the file has one."""
    steps = normalizer.get("normalizers", [normalizer]) if isinstance(normalizer, dict) else []
    return [step for step in steps if step.get("type") == "Precompiled"][:1]
