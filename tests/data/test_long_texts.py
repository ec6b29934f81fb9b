"""Of a text of any length no more is read than the model sees, and the model sees the same."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_jax.data import tokenizer as module
from vlm_jax.data.tokenizer import Tokenizer

TEXTS = ["What colour is the shape?", "is there a red circle", "naïve [MASK] <mask> 猫 e\u0301 don't 12,5"]
# White space of every kind, control signs that vanish, signs that combine, added tokens, words too long to be read.
PIECES = st.sampled_from(
    [*TEXTS, " ", "  ", "\t", "\n", "\x0b", "\x1c", "\u00a0", "\u200b", "\u2028", "\u0301", "猫", "[MASK]", "<mask>",
     "[MA", "SK]", "<", "s>", "x" * 120, "'", "-", "\ud800", "한", "\u1112\u1161", "ﬃ"]
)  # fmt: skip


def byte_level():
    from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Inner

    inner = Inner(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<pad>", "<unk>", "<s>", "</s>", AddedToken("<mask>", special=True, lstrip=True)]
    inner.train_from_iterator(
        TEXTS * 5, trainers.BpeTrainer(vocab_size=350, special_tokens=special, show_progress=False)
    )
    return Tokenizer(inner, "byte level")


@pytest.fixture(scope="module", params=["wordpiece", "byte level"])
def tokenizer(request):
    return Tokenizer.build(TEXTS * 3, 200) if request.param == "wordpiece" else byte_level()


@settings(max_examples=150, deadline=None)
@given(
    pieces=st.lists(PIECES, max_size=60), repeat=st.integers(1, 30), most=st.integers(3, 60), size=st.integers(5, 300)
)
def test_a_cut_text_has_the_ids_of_the_whole(tokenizer, pieces, repeat, most, size):
    text = "".join(pieces) * repeat
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LONG_TEXT", size)
        cut_ids, cut_mask = tokenizer.encode([text, "short", text], most)
        cut = tokenizer.truncated([text], most)
        patch.setattr(module, "LONG_TEXT", 10**9)
        ids, mask = tokenizer.encode([text, "short", text], most)
        expected = tokenizer.truncated([text], most)
    np.testing.assert_array_equal(cut_ids, ids)
    np.testing.assert_array_equal(cut_mask, mask)
    assert cut == expected


def test_a_hundred_million_characters_fit(tmp_path):
    """In a process that may have half a gigabyte beyond what it has begun with."""
    tokenizer = Tokenizer.build(TEXTS * 3, 200)
    tokenizer.save(tmp_path)
    code = (
        "import resource, sys; from vlm_jax.data.tokenizer import Tokenizer\n"
        f"tokenizer = Tokenizer.load({str(tmp_path)!r}); tokenizer.encode(['a'], 8)\n"
        "now = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize() + 2**29\n"
        "resource.setrlimit(resource.RLIMIT_AS, (now, now))\n"
        "print(tokenizer.encode(['is there a red circle ' * 4_500_000], 8)[0].tolist())\n"
    )
    root = Path(__file__).parent.parent.parent
    answer = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert answer.stdout.strip() == str(tokenizer.encode(["is there a red circle " * 3], 8)[0].tolist()), answer.stderr
