"""Two texts a row have the ids, mask and token types of transformers, cut where it cuts."""

import numpy as np
import pytest

from tests.data.scripts import TEXTS, settings, write_byte_level, write_wordpiece
from vlm_jax.data.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers", reason="transformers is the oracle")
FIRST = [text for text in TEXTS if text.strip()][:12]
SECOND = FIRST[5:] + FIRST[:5]
MPNET = ("<pad>", "[UNK]", "<s>", "</s>", "<mask>")


def write(kind, folder):
    if kind == "roberta":
        return settings(write_byte_level(folder), "config.json", model_type="roberta")
    write_wordpiece(folder)
    if kind == "mpnet":
        words = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")[5:]
        (folder / "vocab.txt").write_text("\n".join([*MPNET, *words]), encoding="utf-8")
    return settings(folder, "config.json", model_type=kind)


@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet"])
def test_pairs_are_those_of_transformers(kind, tmp_path):
    folder = write(kind, tmp_path)
    tokenizer, reference = Tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder)
    for length in (8, 9, 24, 600):  # odd and even room, one text cut, none cut
        options = {"padding": "max_length", "truncation": True, "max_length": length, "return_token_type_ids": True}
        told = reference(FIRST, SECOND, **options)
        ids, mask, segments = tokenizer.encode_pairs(FIRST, SECOND, length)
        assert ids.tolist() == told["input_ids"], length
        assert mask.astype(int).tolist() == told["attention_mask"]
        if kind == "bert":
            assert segments.tolist() == told["token_type_ids"]


def test_an_empty_second_text_is_a_text(tmp_path):
    tokenizer = Tokenizer.load(write_wordpiece(tmp_path))
    ids, mask, segments = tokenizer.encode_pairs(["a"], [""], 6)
    assert ids[0, 2:4].tolist() == [tokenizer.sep_id] * 2 and mask.sum() == 4
    np.testing.assert_array_equal(segments, [[0, 0, 0, 1, 0, 0]])
