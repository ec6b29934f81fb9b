"""Texts of published image-text models: ids of transformers' tokenizers, their frames, lengths and prompts."""

import json

import numpy as np
import pytest

from tests.data import scripts
from tests.data.scripts import TEXTS, settings
from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.errors import InputError
from vlm_jax.weights.text_processor import PROMPTS, Prompts, TextProcessor

BERT_LIKE = ("git", "blip", "align", "chinese_clip")
MORE = ("<|startoftext|> a <|endoftext|>", "IT'S They'LL 2024", "a photo of a cat. " * 40, "ΟΔΥΣΣΕΥΣ\u2003x")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """vocab.json and merges.txt, learned from the texts."""
    from tokenizers import Tokenizer as Inner
    from tokenizers import models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp("clip")
    tokenizer = Inner(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_ = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, end_of_word_suffix="</w>", show_progress=False)
    tokenizer.train_from_iterator([text.lower() for text in TEXTS if text] * 3, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    alphabet = sorted(bytes_) + [f"{byte}</w>" for byte in sorted(bytes_)]
    tokens = dict.fromkeys([*alphabet, *model["vocab"], *("".join(pair) for pair in merges)])
    tokens = [*(token for token in tokens if token), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8")
    return folder


def assert_equal(ours, reference):
    for text in (*TEXTS, *MORE):
        assert ours.tokens([text])[0] == reference.encode(text, add_special_tokens=False), repr(text)
    ids, mask = ours.encode(list(MORE), 77)
    for row, shown, text in zip(ids, mask, MORE, strict=True):
        assert row[shown].tolist() == reference.encode(text, truncation=True, max_length=77)
        assert (row[~shown] == reference.pad_token_id).all()


@pytest.mark.parametrize("saved", [True, False])
def test_clip_reads_texts_as_its_class(saved, clip, tmp_path):
    from transformers import CLIPTokenizer

    reference = CLIPTokenizer(vocab=str(clip / "vocab.json"), merges=str(clip / "merges.txt"))
    if saved:
        reference.save_pretrained(tmp_path)
        packed = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
        packed["normalizer"] = None  # the class builds its own
        (tmp_path / "tokenizer.json").write_text(json.dumps(packed), encoding="utf-8")
    ours = Tokenizer.load(tmp_path if saved else clip)
    assert_equal(ours, reference)
    assert (ours.cls_id, ours.sep_id, ours.mask_id) == (reference.bos_token_id, reference.eos_token_id, None)
    ours.save(tmp_path / "again")
    settings(tmp_path / "again", **ours.settings())
    assert_equal(Tokenizer.load(tmp_path / "again"), CLIPTokenizer.from_pretrained(tmp_path / "again"))


def test_settings_of_clip_are_obeyed_or_refused(clip, tmp_path):
    CLIP = {"tokenizer_class": "CLIPTokenizer", "do_lower_case": True, "add_prefix_space": False, "pad_token": "!"}
    for file in clip.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings(tmp_path, **CLIP)
    assert Tokenizer.load(tmp_path).tokens(TEXTS) == Tokenizer.load(clip).tokens(TEXTS)
    for wrong in (
        {"do_lower_case": False},
        {"bos_token": None, "cls_token": "!"},
        {"tokenizer_class": "BertTokenizer"},
    ):
        settings(tmp_path, **CLIP | wrong)
        with pytest.raises(InputError, match=list(wrong)[-1]):
            Tokenizer.load(tmp_path)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return scripts.write_wordpiece(tmp_path_factory.mktemp("bert"))


@pytest.mark.parametrize("family", BERT_LIKE)
def test_a_bert_vocabulary_is_that_of_the_class(family, bert):
    from transformers import BertTokenizer

    reference = BertTokenizer(vocab=str(bert / "vocab.txt"))
    processor = TextProcessor.load(bert, family, {}, positions=60)
    texts = ["a car", "naïve the 日本語 車"]
    ids, mask = processor(texts)
    expected = reference(texts, padding=True, return_tensors="np")
    assert np.array_equal(ids, expected["input_ids"]) and np.array_equal(mask, expected["attention_mask"])
    assert processor(texts, max_length=30)[0].shape == (2, 30)


@pytest.mark.parametrize(
    ("family", "longest"),
    [("git", 512), ("blip", 512), ("align", 64), ("clip", 77), ("siglip", 64), ("chinese_clip", 52)],
)
def test_texts_have_the_lengths_of_each_family(family, longest, bert):
    assert TextProcessor.load(bert, family, {}, positions=512).longest == longest
    assert TextProcessor.load(bert, family, {}, positions=40).longest == 40


def test_a_text_that_is_too_long_is_refused_or_cut(bert, tmp_path):
    processor = TextProcessor.load(bert, "chinese_clip", {}, positions=512)
    with pytest.raises(InputError, match=r"62 tokens .* 52"):
        processor(["a " * 60])
    ids, mask = processor(["a " * 60], truncate=True)
    assert ids.shape == (1, 52) and mask.all() and ids[0, -1] == processor.tokenizer.sep_id
    (tmp_path / "vocab.txt").write_bytes((bert / "vocab.txt").read_bytes())
    settings(tmp_path, tokenizer_class="BertTokenizer", model_max_length=20)
    assert TextProcessor.load(tmp_path, "chinese_clip", {}, positions=512).longest == 20


def test_blip_generates_from_dec(bert):
    text = {"vocab_size": 700, "bos_token_id": 698, "sep_token_id": 3, "eos_token_id": 2}
    processor = TextProcessor.load(bert, "blip", {"text_config": text}, positions=64)
    assert processor.prompts == Prompts(698, 3, 0)
    assert processor(["a car"])[0][0, 0] == processor.tokenizer.cls_id


def test_prompts_have_the_defaults_of_transformers(bert):
    from transformers import BlipTextConfig, GitConfig

    git, blip = GitConfig(), BlipTextConfig()
    assert PROMPTS["git"]({}) == (git.bos_token_id, git.eos_token_id, git.pad_token_id)
    assert PROMPTS["blip"]({}) == (blip.bos_token_id, blip.sep_token_id, blip.pad_token_id)
    assert PROMPTS["blip"]({"text_config": {"vocab_size": 70}}).begin_id == 68
    with pytest.raises(InputError, match="sep_token_id"):
        PROMPTS["blip"]({"text_config": {"sep_token_id": [1, 2]}})
    with pytest.raises(InputError, match="git, blip"):
        _ = TextProcessor.load(bert, "align", {}, positions=64).prompts
