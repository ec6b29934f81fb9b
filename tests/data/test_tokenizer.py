"""Tokenizers: the same everywhere, of fixed length, equal to BERT's own, and never an empty one."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.data.wordpiece import bert_tokenizer
from vlm_jax.errors import InputError

QUESTIONS = ["What colour is the shape?", "Is there a red circle?", "is the naïve circle there", "does it contain red?"]
# Ties everywhere: many characters and pairs of equal counts, where an order left to chance would show.
TIES = [" ".join(a + b + c for b in "etaoinsh") + "?!" for a in "qwrtypsdfg" for c in "klzxcvbnm"]

BUILD = """
import hashlib, json, sys
from vlm_jax.data.tokenizer import Tokenizer
texts = json.load(sys.stdin)
print([hashlib.sha256(Tokenizer.build(texts, n)._inner.to_str().encode()).hexdigest() for n in (60, 100, 400)])
"""


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.build(QUESTIONS * 3, 200)


def test_special_tokens_come_first(tokenizer):
    assert [tokenizer._inner.id_to_token(i) for i in range(5)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer.pad_id == 0 and tokenizer.mask_id == 4


def test_every_process_builds_the_same_vocabulary():
    outputs = set()
    for hash_seed in ("0", "1", "random"):
        run = subprocess.run(
            [sys.executable, "-c", BUILD],
            input=json.dumps(TIES + QUESTIONS),
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(run.stdout)
    assert len(outputs) == 1, outputs
    here = [hashlib.sha256(Tokenizer.build(TIES + QUESTIONS, n)._inner.to_str().encode()).hexdigest() for n in (60,)]
    assert here[0] in outputs.pop()


def test_order_of_texts_does_not_matter():
    first, second = (Tokenizer.build(texts, 100) for texts in (TIES, TIES[::-1]))
    assert first._inner.to_str() == second._inner.to_str()


@pytest.mark.parametrize("size", [6, 20, 60, 1000])
def test_the_vocabulary_stays_within_its_size(size):
    tokenizer = Tokenizer.build([*TIES, "日本 😀"], size)
    assert tokenizer.vocab_size <= size
    assert sorted(tokenizer._inner.get_vocab().values()) == list(range(tokenizer.vocab_size))
    ids, _ = tokenizer.encode(TIES, 64)
    assert ids.max() < tokenizer.vocab_size


def test_impossible_builds_are_refused():
    with pytest.raises(InputError, match="vocab_size"):
        Tokenizer.build(QUESTIONS, 5)
    with pytest.raises(InputError, match="no word"):
        Tokenizer.build(["", " \0 "], 100)


def test_encoding_has_one_length_and_keeps_the_beginning(tokenizer):
    texts = [*QUESTIONS, "red " * 50, "", "a\0b", "😀 red", "\ud800", "\n\t"]
    ids, mask = tokenizer.encode(texts, 12)
    assert ids.shape == mask.shape == (len(texts), 12) and ids.dtype == np.int32 and mask.dtype == bool
    cls, sep, red = tokenizer.cls_id, tokenizer.sep_id, tokenizer._inner.token_to_id("red")
    assert (ids[:, 0] == cls).all() and (ids[~mask] == 0).all()
    assert (ids[np.arange(len(texts)), mask.sum(1) - 1] == sep).all()
    assert ((ids == sep).sum(1) == 1).all()
    np.testing.assert_array_equal(ids[4], [cls] + [red] * 10 + [sep])
    np.testing.assert_array_equal(ids[5], [cls, sep] + [0] * 10)
    np.testing.assert_array_equal(ids[7, :4], [cls, 1, red, sep])
    assert tokenizer.truncated(texts, 12) == 1
    assert tokenizer.truncated(["red"] * 3 + ["red red"], 3) == 1
    assert tokenizer.encode([], 12)[0].shape == (0, 12)
    np.testing.assert_array_equal(tokenizer.encode(["RED Circlé"], 12)[0], tokenizer.encode(["red circle"], 12)[0])
    assert tokenizer.decode(tokenizer.encode(["is there a red circle"], 12)[0][0]) == "is there a red circle"


def test_words_come_whole_in_pieces_or_unknown():
    tokenizer = Tokenizer.build(["what color is the shape? is it blue"], 64)
    words = dict(tokenizer.words("What colour is the 猫shape?"))
    assert list(words) == ["What", "colour", "is", "the", "猫", "shape", "?"]
    assert words["What"] == tokenizer.tokens(["what"])[0] and len(words["What"]) == 1
    assert words["colour"] == tokenizer.tokens(["colour"])[0]
    assert words["猫"] == [tokenizer.unknown_id]
    assert tokenizer.words("") == []


def test_save_and_load_switch_off_what_the_file_carries(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    expected = tokenizer.encode(QUESTIONS, 12)
    packed = json.loads((tmp_path / "tokenizer.json").read_text())
    packed["truncation"] = {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    packed["padding"] = {
        "strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": None,
        "pad_id": 1, "pad_type_id": 0, "pad_token": "[UNK]",
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(packed))
    for source in (tmp_path, tmp_path / "tokenizer.json", str(tmp_path)):
        loaded = Tokenizer.load(source)
        for first, second in zip(loaded.encode(QUESTIONS, 12), expected, strict=True):
            np.testing.assert_array_equal(first, second)


def write_vocabulary(folder, tokenizer, **settings):
    vocabulary = tokenizer._inner.get_vocab()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)) + "\n", encoding="utf-8")
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("settings", [{}, {"do_lower_case": True}, {"do_lower_case": False}])
def test_a_vocabulary_file_tokenizes_as_bert_does(tokenizer, tmp_path, settings):
    from transformers import BertTokenizer

    write_vocabulary(tmp_path, tokenizer, **settings)
    reference = BertTokenizer(vocab=str(tmp_path / "vocab.txt"), **settings)
    texts = [*QUESTIONS, "Is it RED?", "naïve, it's 日本 (red)...", "a [MASK] circle", "", "unaffable", "x" * 150]
    ids, mask = Tokenizer.load(tmp_path).encode(texts, 32)
    expected = reference(texts, padding="max_length", max_length=32, truncation=True)
    np.testing.assert_array_equal(ids, expected["input_ids"])
    np.testing.assert_array_equal(mask, expected["attention_mask"])
    alone = Tokenizer.load(tmp_path / "vocab.txt").encode(texts, 32)[0]
    np.testing.assert_array_equal(alone, ids)


def test_what_is_no_tokenizer_is_refused_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.json").write_text("{}")
    (tmp_path / "words.txt").write_text("hello\nworld\n")
    (tmp_path / "nothing.txt").write_text("")
    (tmp_path / "twice.txt").write_text("[UNK]\n[CLS]\n[PAD]\n[SEP]\nred\nred\n")
    (tmp_path / "no_pad.txt").write_text("[UNK]\n[CLS]\n[SEP]\nred\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\0")
    for name in ("empty", "bad.json", "words.txt", "nothing.txt", "twice.txt", "no_pad.txt", "binary.txt", "gone"):
        with pytest.raises(InputError, match=name.replace(".", r"\.")) as error:
            Tokenizer.load(tmp_path / name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nobody/none-such", "bert-none-such", "../up", "https://x.y/z"])
def test_an_unreachable_hub_id_is_one_clear_line_and_quick(name):
    import time

    began = time.monotonic()
    with pytest.raises(InputError, match="no tokenizer") as error:
        Tokenizer.load(name)
    assert "\n" not in str(error.value) and name in str(error.value) and time.monotonic() - began < 15


def test_a_table_that_is_too_small_is_refused_with_the_token_that_does_not_fit(tokenizer):
    size = tokenizer.vocab_size
    last = tokenizer.token(size - 1)
    tokenizer.check_fits(size, "")
    tokenizer.check_fits(size + 5, "")
    for rows in (size - 1, 5):
        with pytest.raises(InputError) as error:
            tokenizer.check_fits(rows, "do so and so")
        assert all(part in str(error.value) for part in (repr(last), str(size - 1), f"{rows} rows", "do so and so"))


def test_rows_of_no_token_are_named():
    """Rows behind the vocabulary, and holes in it."""
    holes = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 4, "red": 7}
    tokenizer = Tokenizer(bert_tokenizer(holes, lower_case=True), "holes")
    assert tokenizer.vocab_size == 8
    assert tokenizer.unused(10) == [3, 5, 6, 8, 9] and tokenizer.unused(8) == [3, 5, 6]


def test_no_transformers_on_this_path(tmp_path, tokenizer):
    tokenizer.save(tmp_path)
    code = (
        "import sys; from vlm_jax.data.tokenizer import Tokenizer; assert 'tokenizers' not in sys.modules\n"
        f"Tokenizer.load({str(tmp_path)!r}).encode(['red'], 8); Tokenizer.build(['red'], 50)\n"
        "assert not {'transformers', 'tensorflow', 'torch', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    """A byte-level BPE as RoBERTa's files hold it, learned from a few texts."""
    from tokenizers import ByteLevelBPETokenizer

    folder = tmp_path_factory.mktemp("roberta")
    tokenizer = ByteLevelBPETokenizer()
    texts = ["the quick brown fox, it's 4:21", "naïve café", "hello world 🙂"] * 20
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(texts, vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer.save_model(str(folder))
    return folder


def test_roberta_is_read_from_its_two_files(roberta, tmp_path):
    tokenizer = Tokenizer.load(roberta)
    assert (tokenizer.cls_id, tokenizer.pad_id, tokenizer.sep_id, tokenizer.mask_id) == (0, 1, 2, 4)
    ids, mask = tokenizer.encode(["hello world"], 8)
    assert ids[0, 0] == 0 and ids[0, mask[0].sum() - 1] == 2 and not (ids[0][mask[0]] == 1).any()
    assert tokenizer.decode(ids[0]) == "hello world"
    assert tokenizer.tokens(["hello world"]) == Tokenizer.load(roberta / "vocab.json").tokens(["hello world"])
    tokenizer.save(tmp_path)
    texts = ["the fox 🙂", "", "日本", "it's"]
    assert Tokenizer.load(tmp_path).tokens(texts) == tokenizer.tokens(texts)


def test_roberta_without_its_merges_is_refused(roberta, tmp_path):
    (tmp_path / "vocab.json").write_bytes((roberta / "vocab.json").read_bytes())
    with pytest.raises(InputError, match=r"merges.txt are no byte-level vocabulary"):
        Tokenizer.load(tmp_path)


@pytest.mark.parity
def test_roberta_cuts_as_transformers_does(roberta):
    pytest.importorskip("torch", reason="torch is the oracle's mark")
    from transformers import RobertaTokenizer

    reference = RobertaTokenizer(vocab=str(roberta / "vocab.json"), merges=str(roberta / "merges.txt"))
    for text in ("the quick fox", "it's 4:21 naïve", " two  spaces ", "日本 שלום 🙂", "UPPER", ""):
        assert Tokenizer.load(roberta).tokens([text])[0] == reference.encode(text, add_special_tokens=False), text


@pytest.mark.parametrize(
    "text", ["a man's well-dressed dog", "it can't be 1,000 or 3.5 at 4:21", "two cats - no dogs", "a 'quoted' word"]
)
def test_decoding_puts_words_together_again(text):
    tokenizer = Tokenizer.build([text] * 20, 400)
    (ids,) = tokenizer.tokens([text])
    expected = {
        "two cats - no dogs": "two cats-no dogs",
        "a 'quoted' word": "a ' quoted ' word",
    }  # a guess may be wrong
    assert tokenizer.decode(ids) == expected.get(text, text)
