"""What lies beside a tokenizer's file decides its ids: those of transformers in every script, or refused by name."""

import itertools
import json

import pytest

from tests.data import scripts
from tests.data.scripts import TEXTS, settings
from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.data.tokenizer_settings import CLASSES, FIXED, IGNORED, read_settings
from vlm_jax.data.wordpiece import bert_tokenizer
from vlm_jax.errors import InputError


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory):
    return scripts.write_wordpiece(tmp_path_factory.mktemp("wordpiece"))


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    return scripts.write_byte_level(tmp_path_factory.mktemp("byte_level"))


def copied(source, folder):
    folder.mkdir(exist_ok=True)
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def assert_equal(ours, reference):
    """The same ids for every text, one by one, so that a failure names it."""
    for text, ids in zip(TEXTS, ours.tokens(TEXTS), strict=True):
        assert ids == reference.encode(text, add_special_tokens=False), repr(text)


def differing(first, second):
    return sum(a != b for a, b in zip(first.tokens(TEXTS), second.tokens(TEXTS), strict=True))


COMBINATIONS = list(itertools.product((True, False), (None, True, False), (True, False)))


@pytest.mark.parametrize(("lower", "strip", "chinese"), COMBINATIONS)
def test_every_combination_cuts_as_transformers_does(lower, strip, chinese, wordpiece, tmp_path):
    from transformers import BertTokenizer

    options = {"do_lower_case": lower, "strip_accents": strip, "tokenize_chinese_chars": chinese}
    ours = Tokenizer.load(settings(copied(wordpiece, tmp_path / "bert"), **options))
    reference = BertTokenizer(vocab=str(wordpiece / "vocab.txt"), **options)
    assert reference.vocab_size == ours.vocab_size
    assert_equal(ours, reference)
    if options != {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}:
        seen = sum(
            options[name] != value for name, value in (("do_lower_case", True), ("tokenize_chinese_chars", True))
        )
        assert (differing(ours, Tokenizer.load(wordpiece)) > 0) == (seen > 0 or strip is False), options


@pytest.mark.parametrize("options", [{"do_lower_case": False}, {"model_max_length": 9}, {"strip_accents": False}])
def test_a_key_that_is_left_out_has_its_default(options, wordpiece, tmp_path):
    from transformers import BertTokenizer

    ours = Tokenizer.load(settings(copied(wordpiece, tmp_path / "bert"), **options))
    assert_equal(ours, BertTokenizer(vocab=str(wordpiece / "vocab.txt"), **options))


@pytest.mark.parametrize(("lower", "strip", "chinese"), COMBINATIONS[::3])
def test_settings_count_beside_a_tokenizer_json_too(lower, strip, chinese, wordpiece, tmp_path):
    """transformers' class overrides the normaliser of the file, so the file alone would give other ids."""
    from transformers import BertTokenizer

    lines = (wordpiece / "vocab.txt").read_bytes().decode().split("\n")[:-1]
    bert_tokenizer({token: index for index, token in enumerate(lines)}, lower_case=not lower).save(
        str(tmp_path / "tokenizer.json")
    )
    alone = Tokenizer.load(tmp_path)
    options = {"do_lower_case": lower, "strip_accents": strip, "tokenize_chinese_chars": chinese}
    settings(tmp_path, tokenizer_class="BertTokenizer", **options)
    ours = Tokenizer.load(tmp_path)
    assert_equal(ours, BertTokenizer.from_pretrained(tmp_path))
    assert differing(ours, alone) > 0
    settings(tmp_path, tokenizer_class="BertTokenizerFast")  # the defaults of the class
    assert_equal(Tokenizer.load(tmp_path), BertTokenizer.from_pretrained(tmp_path))


@pytest.mark.parametrize("prefix", [None, False, True])
def test_roberta_obeys_its_prefix_space(prefix, byte_level, tmp_path):
    from tokenizers import AddedToken
    from transformers import RobertaTokenizer

    options = {} if prefix is None else {"add_prefix_space": prefix}
    ours = Tokenizer.load(settings(copied(byte_level, tmp_path / "roberta"), **options))
    mask = AddedToken("<mask>", lstrip=True, special=True)  # as RoBERTa was trained
    files = {"vocab": str(byte_level / "vocab.json"), "merges": str(byte_level / "merges.txt")}
    assert_equal(ours, RobertaTokenizer(**files, mask_token=mask, **options))
    assert (differing(ours, Tokenizer.load(byte_level)) > 0) == bool(prefix)
    ours.save(tmp_path / "json")  # beside a tokenizer.json, too
    settings(tmp_path / "json", tokenizer_class="RobertaTokenizer", add_prefix_space=not prefix)
    reference = RobertaTokenizer.from_pretrained(tmp_path / "json", mask_token=mask)
    assert_equal(Tokenizer.load(tmp_path / "json"), reference)


ADDED = {"content": "[CAR]", "lstrip": False, "rstrip": False, "single_word": False, "normalized": False}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tokenizer_config.json", {"additional_special_tokens": ["[CAR]"]}),
        ("special_tokens_map.json", {"eos_token": {**ADDED, "lstrip": True}}),
        ("special_tokens_map.json", {"mask_token": {**ADDED, "content": "[MASK]", "lstrip": True}}),
        ("tokenizer_config.json", {"bos_token": "[CAR]"}),
        ("added_tokens.json", {"[CAR]": "next"}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"next": {**ADDED, "special": True, "single_word": True}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"4": {**ADDED, "content": "[MASK]", "lstrip": True}}}),
    ],
)
def test_added_tokens_are_found_in_a_text(name, values, wordpiece, tmp_path):
    from transformers import BertTokenizer

    size = Tokenizer.load(wordpiece).vocab_size
    text = json.dumps(values).replace('"next"', str(size) if name == "added_tokens.json" else f'"{size}"')
    settings(copied(wordpiece, tmp_path), name, **json.loads(text))
    ours, reference = Tokenizer.load(tmp_path), BertTokenizer.from_pretrained(tmp_path)
    for text in ("a [CAR] b", "a[CAR]b", "a [MASK] b", "a  [car]"):
        assert ours.tokens([text])[0] == reference.encode(text, add_special_tokens=False), text
    if "[MASK]" not in str(values):
        assert size in ours.tokens(["a [CAR] b"])[0] and ours.vocab_size == size + 1


DECODER = {"added_tokens_decoder": {"4": {**ADDED, "content": "[MASK]", "special": True}}}


@pytest.mark.parametrize(
    ("config", "others"),
    [
        (DECODER, {"special_tokens_map.json": {"additional_special_tokens": ["[CAR]"]}}),
        (DECODER, {"special_tokens_map.json": {"mask_token": {**ADDED, "content": "[MASK]", "lstrip": True}}}),
        ({"added_tokens_decoder": {}}, {"added_tokens.json": {"[CAR]": "next"}}),
        (DECODER, {"special_tokens_map.json": {"novelty": "[CAR]"}}),
    ],
)
def test_files_that_transformers_no_longer_reads_count_for_nothing(config, others, wordpiece, tmp_path):
    """Where tokenizer_config.json has `added_tokens_decoder`, it has all of them."""
    from transformers import BertTokenizer

    settings(copied(wordpiece, tmp_path), **config)
    size = Tokenizer.load(wordpiece).vocab_size
    for name, values in others.items():
        settings(tmp_path, name, **{key: size if value == "next" else value for key, value in values.items()})
    ours, reference = Tokenizer.load(tmp_path), BertTokenizer.from_pretrained(tmp_path)
    for text in ("a [CAR] b", "a [MASK] b"):
        assert ours.tokens([text])[0] == reference.encode(text, add_special_tokens=False), text
    assert ours.vocab_size == size


@pytest.mark.parametrize("key", ["extra_special_tokens", "model_specific_special_tokens"])
def test_tokens_by_name_are_read_as_transformers_saves_them(key, wordpiece, tmp_path):
    from transformers import BertTokenizer

    options = {key: {"car_token": "[CAR]"}, "tokenizer_class": "BertTokenizer"}
    reference = BertTokenizer.from_pretrained(settings(copied(wordpiece, tmp_path / "bert"), **options))
    reference.save_pretrained(tmp_path / "saved")  # with `car_token` beside the list
    for folder in ("bert", "saved"):
        ids = Tokenizer.load(tmp_path / folder).tokens(["a [CAR] b"])[0]
        assert ids == reference.encode("a [CAR] b", add_special_tokens=False) and len(ids) == 3, folder


@pytest.mark.parametrize(
    ("config", "special"),
    [
        ({"additional_special_tokens": ["[CAR]"]}, {"additional_special_tokens": ["[BUS]"]}),
        ({"additional_special_tokens": ["[CAR]"], "extra_special_tokens": ["[CAR]", "[BUS]"]}, {}),
    ],
)
def test_lists_that_differ_are_refused_until_one_is_left(config, special, wordpiece, tmp_path):
    """transformers 4 and 5 read different ones of them."""
    settings(settings(copied(wordpiece, tmp_path), **config), "special_tokens_map.json", **special)
    with pytest.raises(InputError, match=r"additional_special_tokens of .* and .*leave one of them"):
        Tokenizer.load(tmp_path)
    settings(settings(tmp_path, additional_special_tokens=["[CAR]"]), "special_tokens_map.json")
    assert len(Tokenizer.load(tmp_path).tokens(["a [CAR] b"])[0]) == 3


def test_a_tokenizer_that_was_configured_stays_so_when_it_is_saved(wordpiece, tmp_path):
    options = {"strip_accents": False, "tokenize_chinese_chars": False, "additional_special_tokens": ["[CAR]"]}
    ours = Tokenizer.load(settings(copied(wordpiece, tmp_path / "bert"), **options))
    ours.save(tmp_path / "run")
    again = Tokenizer.load(tmp_path / "run")
    assert differing(again, ours) == 0 and again.tokens(["a [CAR]"]) == ours.tokens(["a [CAR]"])
    assert differing(again, Tokenizer.load(wordpiece)) > 0


REFUSED = [
    ("tokenizer_config.json", "do_lower_case", "false"),
    ("tokenizer_config.json", "strip_accents", 1),
    ("tokenizer_config.json", "tokenizer_class", "BertJapaneseTokenizer"),
    ("tokenizer_config.json", "tokenizer_class", "RobertaTokenizer"),
    ("tokenizer_config.json", "tokenizer_class", 3),
    ("tokenizer_config.json", "add_prefix_space", True),
    ("tokenizer_config.json", "cls_token", "<s>"),
    ("tokenizer_config.json", "unk_token", "[OTHER]"),
    ("tokenizer_config.json", "mask_token", 7),
    ("special_tokens_map.json", "pad_token", {"content": "[NIL]"}),
    ("tokenizer_config.json", "never_split", ["red"]),
    ("tokenizer_config.json", "model_max_length", -1),
    ("tokenizer_config.json", "word_tokenizer_type", "mecab"),
    ("tokenizer_config.json", "image_token", "<image>"),
    ("tokenizer_config.json", "auto_map", {"AutoTokenizer": ["x.Y", None]}),
    ("tokenizer_config.json", "added_tokens_decoder", {"3": {"content": "[NEW]"}}),
    ("tokenizer_config.json", "added_tokens_decoder", {"a": {"content": "[NEW]"}}),
    ("tokenizer_config.json", "extra_special_tokens", "[NEW]"),
    *(("tokenizer_config.json", key, not FIXED[key][0]) for key in sorted(FIXED)),
]


@pytest.mark.parametrize(("name", "key", "value"), REFUSED, ids=[f"{key}={value}" for _, key, value in REFUSED])
def test_what_cannot_be_obeyed_is_refused_by_name(name, key, value, wordpiece, tmp_path):
    settings(copied(wordpiece, tmp_path), name, **{key: value})
    with pytest.raises(InputError) as error:
        Tokenizer.load(tmp_path)
    shown = "[NEW]" if key == "added_tokens_decoder" and "3" in value else key if value != {} else name
    assert (shown in str(error.value) or "lists no tokens" in str(error.value)) and "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_settings_that_are_no_json_are_not_passed_over(text, wordpiece, tmp_path):
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        folder = copied(wordpiece, tmp_path / name)
        (folder / name).write_bytes(text.encode("latin-1"))
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            Tokenizer.load(folder)


def test_an_unknown_key_can_be_taken_out(wordpiece, tmp_path):
    settings(copied(wordpiece, tmp_path), do_lower_case=False, novelty=1)
    with pytest.raises(InputError, match=r"novelty = 1.*take it out of the file"):
        Tokenizer.load(tmp_path)
    settings(tmp_path, do_lower_case=False)
    assert differing(Tokenizer.load(tmp_path), Tokenizer.load(wordpiece)) > 0


def test_keys_that_change_no_id_are_ignored(wordpiece, tmp_path):
    settings(copied(wordpiece, tmp_path), **dict.fromkeys(IGNORED, "anything"), **dict.fromkeys(FIXED))
    assert differing(Tokenizer.load(tmp_path), Tokenizer.load(wordpiece)) == 0
    settings(tmp_path, never_split=["[MASK]"], mask_token="[MASK]", **{key: right for key, (right,) in FIXED.items()})
    assert differing(Tokenizer.load(tmp_path), Tokenizer.load(wordpiece)) == 0


def test_a_file_of_no_class_of_its_own_counts_alone(wordpiece, tmp_path):
    lines = (wordpiece / "vocab.txt").read_bytes().decode().split("\n")[:-1]
    bert_tokenizer({token: index for index, token in enumerate(lines)}, lower_case=False).save(
        str(tmp_path / "tokenizer.json")
    )
    alone = Tokenizer.load(tmp_path)
    settings(tmp_path, tokenizer_class="PreTrainedTokenizerFast")
    assert differing(Tokenizer.load(tmp_path), alone) == 0
    settings(tmp_path, tokenizer_class="PreTrainedTokenizerFast", do_lower_case=True)
    with pytest.raises(InputError, match="do_lower_case"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(("value", "longest"), [(128, 128), (10**30, None), (1e30, None), (None, None)])
def test_the_longest_text_is_read(value, longest, tmp_path):
    assert read_settings(settings(tmp_path, model_max_length=value)).longest == longest


def test_the_classes_that_are_told_to_be_alike_are():
    """Each BERT-like name is transformers' BertTokenizer."""
    import transformers

    for name, kind in CLASSES.items():
        if kind == "bert":
            made = getattr(transformers, name)
            assert issubclass(made, transformers.BertTokenizer), name


@pytest.mark.parametrize("options", [{"do_lower_case": False}, {"do_lower_case": False, "strip_accents": True}, {}])
def test_transformers_reads_what_was_saved_with_its_settings(options, wordpiece, byte_level, tmp_path):
    """tokenizer.json alone was lower-cased by transformers, whatever it says itself."""
    from transformers import BertTokenizer, RobertaTokenizer

    for source, kind, more in ((wordpiece, BertTokenizer, options), (byte_level, RobertaTokenizer, {})):
        more = {"add_prefix_space": "do_lower_case" in options} if kind is RobertaTokenizer else more
        ours = Tokenizer.load(settings(copied(source, tmp_path / f"{kind.__name__} published"), **more))
        ours.save(tmp_path / kind.__name__)
        settings(tmp_path / kind.__name__, **ours.settings())
        assert_equal(ours, kind.from_pretrained(tmp_path / kind.__name__))
        assert differing(Tokenizer.load(tmp_path / kind.__name__), ours) == 0
