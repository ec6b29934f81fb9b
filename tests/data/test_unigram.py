"""Unigram and MPNet tokenizers cut texts of every script as transformers' classes do."""

import json
import re
import struct

import numpy as np
import pytest
from safetensors.numpy import save

from tests.data import scripts
from tests.data.scripts import TEXTS, settings
from vlm_jax.data.special_tokens import ALBERT_TOKENS, MPNET_TOKENS, ROBERTA_TOKENS
from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.errors import InputError
from vlm_jax.weights.source import open_source

LONG = ("Nguyễn 🙂 日本語 naïve " * 2_000, "x" * 20_000, "\x00" * 5_000 + "end")
FRAMES = {
    "XLMRobertaTokenizer": ["<s>", "<pad>", "</s>", "<unk>"],
    "CamembertTokenizer": ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>"],
    "AlbertTokenizer": ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"],
}
OPTIONS = [
    ("XLMRobertaTokenizer", {}),
    ("XLMRobertaTokenizer", {"add_prefix_space": False}),
    ("CamembertTokenizer", {}),
    ("AlbertTokenizer", {}),
    ("AlbertTokenizer", {"do_lower_case": False, "keep_accents": True}),
    ("AlbertTokenizer", {"keep_accents": True}),
]


def character_map():
    """What SentencePiece compiles: a double array of darts-clone, and the texts it leads to. Here alone Z becomes s."""
    units = [0] * 1024
    units[0] = 256 << 10  # the root's children stand at 256 ^ byte
    node = 256 ^ ord("Z")
    units[node] = 512 << 10 | 1 << 8 | ord("Z")
    units[node ^ 512] = 1 << 31  # the first text
    array = struct.pack(f"<{len(units)}I", *units)
    return struct.pack("<I", len(array)) + array + b"s\0"


@pytest.fixture(scope="module")
def pieces():
    """Pieces with their scores, learned from the texts."""
    from tokenizers import Tokenizer as Inner
    from tokenizers import models, pre_tokenizers, trainers

    tokenizer = Inner(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=700, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator([text for text in TEXTS if text] * 2, trainer)
    return [tuple(piece) for piece in json.loads(tokenizer.to_str())["model"]["vocab"] if piece[0] != "<unk>"]


def publish(kind, pieces, folder, **options):
    """A tokenizer.json as transformers' class saves it, and the class."""
    import transformers

    special = FRAMES[kind]
    vocabulary = [*((token, 0.0) for token in special), *(p for p in pieces if p[0] not in special)]
    vocabulary += [] if "[MASK]" in special else [("<mask>", 0.0)]
    made = getattr(transformers, kind)
    made(vocab=vocabulary, _spm_precompiled_charsmap=character_map(), **options).save_pretrained(folder)
    return made


def assert_equal(ours, reference, texts=(*TEXTS, *LONG, "Zebra ``quoted'' <mask> a [MASK] b")):
    for text in texts:
        assert ours.tokens([text])[0] == reference.encode(text, add_special_tokens=False), repr(text[:60])
    roles = ("pad", "unk", "cls", "sep", "mask")
    own = (ours.pad_id, ours.unknown_id, ours.cls_id, ours.sep_id, ours.mask_id)
    assert own == tuple(getattr(reference, f"{role}_token_id") for role in roles)
    ids, mask = ours.encode(["naïve 🙂"], 40)
    assert ids[0][mask[0]].tolist() == reference.encode("naïve 🙂")
    assert ours.encode([LONG[0]], 512)[0][0].tolist() == reference.encode(LONG[0], truncation=True, max_length=512)


@pytest.mark.parametrize(("kind", "options"), OPTIONS)
def test_a_unigram_tokenizer_cuts_as_its_class(kind, options, pieces, tmp_path):
    made = publish(kind, pieces, tmp_path, **options)
    ours = Tokenizer.load(tmp_path)
    assert_equal(ours, made.from_pretrained(tmp_path))
    lowered = kind == "AlbertTokenizer" and options.get("do_lower_case", True)  # before the map of characters
    assert (ours.tokens(["Z"]) == ours.tokens(["s"])) == (not lowered)


def test_the_rules_of_a_class_come_before_those_of_the_file(pieces, tmp_path):
    """A file of older versions keeps every space; transformers 5 does not, and neither do we beside its class."""
    made = publish("XLMRobertaTokenizer", pieces, tmp_path)
    packed = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    packed["pre_tokenizer"] = packed["pre_tokenizer"]["pretokenizers"][1]
    (tmp_path / "tokenizer.json").write_text(json.dumps(packed), encoding="utf-8")
    assert_equal(Tokenizer.load(tmp_path), made.from_pretrained(tmp_path))
    spaces = "  two  spaces "
    by_class = Tokenizer.load(tmp_path).tokens([spaces])
    (tmp_path / "tokenizer_config.json").unlink()
    assert Tokenizer.load(tmp_path).tokens([spaces]) != by_class


def test_what_is_saved_is_read_again_by_both(pieces, tmp_path):
    from transformers import PreTrainedTokenizerFast

    publish("AlbertTokenizer", pieces, tmp_path / "published", keep_accents=True)
    ours = Tokenizer.load(tmp_path / "published")
    ours.save(tmp_path / "run")
    settings(tmp_path / "run", **ours.settings())
    assert_equal(Tokenizer.load(tmp_path / "run"), PreTrainedTokenizerFast.from_pretrained(tmp_path / "run"))


@pytest.mark.parametrize("saved", [True, False])
def test_mpnet_frames_a_text_with_its_own_tokens(saved, tmp_path):
    """Its vocabulary has all of BERT's special tokens as well."""
    from transformers import MPNetTokenizer

    lines = (scripts.write_wordpiece(tmp_path / "bert") / "vocab.txt").read_bytes().decode().split("\n")[:-1]
    folder = tmp_path / "mpnet"
    vocabulary = {token: index for index, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *lines, "<mask>"])}
    if saved:
        MPNetTokenizer(vocab=vocabulary).save_pretrained(folder)
    else:
        folder.mkdir()
        (folder / "vocab.txt").write_bytes("".join(f"{token}\n" for token in vocabulary).encode())
        settings(folder, tokenizer_class="MPNetTokenizer")
    ours = Tokenizer.load(folder)
    assert_equal(ours, MPNetTokenizer.from_pretrained(folder))
    ours.save(tmp_path / "run")
    settings(tmp_path / "run", **ours.settings())
    assert_equal(Tokenizer.load(tmp_path / "run"), MPNetTokenizer.from_pretrained(tmp_path / "run"))
    assert ours.mask_token == MPNET_TOKENS[-1]


def test_the_frame_decides_which_names_count(pieces, tmp_path):
    publish("CamembertTokenizer", pieces, tmp_path / "camembert")
    publish("AlbertTokenizer", pieces, tmp_path / "albert")
    for name, names in (("camembert", ROBERTA_TOKENS), ("albert", ALBERT_TOKENS)):
        assert Tokenizer.load(tmp_path / name).mask_token == names[-1]


@pytest.mark.parametrize("name", ["spiece.model", "sentencepiece.bpe.model"])
def test_a_sentencepiece_model_alone_is_refused_with_a_line_that_runs(name, tmp_path):
    (tmp_path / name).write_bytes(b"\x0a\x00")
    with pytest.raises(InputError) as error:
        Tokenizer.load(tmp_path)
    message = str(error.value)
    (tmp_path / "model.safetensors").write_bytes(save({"a": np.zeros(1, np.float32)}))
    with pytest.raises(InputError, match=re.escape(message)):
        open_source(str(tmp_path)).tokenizer_files()
    assert name in message and str(tmp_path) in message and "\n" not in message
    compile(message.partition('python -c "')[2].removesuffix('"'), "line", "exec")


def test_settings_that_a_class_does_not_have_are_refused(pieces, tmp_path):
    publish("XLMRobertaTokenizer", pieces, tmp_path)
    settings(tmp_path, tokenizer_class="XLMRobertaTokenizer", do_lower_case=True)
    with pytest.raises(InputError, match="do_lower_case"):
        Tokenizer.load(tmp_path)
    settings(tmp_path, tokenizer_class="BertTokenizer")
    with pytest.raises(InputError, match="tokenizer_class"):
        Tokenizer.load(tmp_path)


def test_a_model_implies_the_class_that_no_file_names(pieces, tmp_path):
    """As versions of before wrote it: `do_lower_case` and a limit, and no class."""
    made = publish("AlbertTokenizer", pieces, tmp_path)
    settings(tmp_path, model_max_length=512, do_lower_case=True)
    settings(tmp_path, "config.json", model_type="albert")
    assert_equal(Tokenizer.load(tmp_path), made.from_pretrained(tmp_path))


def test_a_vocabulary_of_mpnet_without_settings(tmp_path):
    from transformers import AutoTokenizer

    vocabulary = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "hello",
        "world",
        "<mask>",
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    settings(tmp_path, "config.json", model_type="mpnet")
    ids, mask = Tokenizer.load(tmp_path).encode(["hello world"], 8)
    assert ids[0][mask[0]].tolist() == AutoTokenizer.from_pretrained(tmp_path).encode("hello world")
