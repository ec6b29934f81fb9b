"""A message that names a remedy is followed: what it says to set is set, until nothing is refused any more.

No setting may be told two values on the way, and the remedies have to be options that the command line takes.
"""

import re

import jax
import pytest

from experiments.train import parse_train
from tests.weights import fixtures, own
from tests.weights.own import config, fresh
from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.errors import InputError
from vlm_jax.settings.changes import to_json, with_changes
from vlm_jax.training.initialization import start
from vlm_jax.training.pretrained import check_tokenizer, tokenizer_source

OPTION = re.compile(r"--((?:model|image|init)[\w.-]+)((?: (?!or\b|--)[\w.+-]+)*)")
SENTENCE = re.compile(r"set ((?:model|image|init)[\w.]+) to (?:at least )?(\d+)")


def remedies(message, way):
    """Option and values of each remedy of a message; of several that are put to choice, the one by number."""
    _, _, advice = message.partition(";") if ";" in message else (message, "", message)
    choices = re.split(r",? or ", advice if OPTION.search(advice) or SENTENCE.search(advice) else message)
    chosen = choices[min(way, len(choices) - 1)]
    told = {name.replace("_", "-"): [value] for name, value in SENTENCE.findall(chosen)}
    return told | {name: values.split() for name, values in OPTION.findall(chosen)}


def refusal(settings):
    """What is said of a config before training, in the order in which training looks; None where nothing is."""
    try:
        source = tokenizer_source(settings)
        if source is not None:
            check_tokenizer(Tokenizer.load(source), settings)
        start(settings, jax.eval_shape(lambda: fresh(settings)), ())
    except InputError as error:
        return str(error)
    return None


def follow(settings, folder, *, way=0):
    """The messages on the way to a config that is taken, and that config."""
    folder.mkdir(exist_ok=True)
    messages, told = [], {}
    while (message := refusal(settings)) is not None:
        messages.append(message)
        remedy = remedies(message, way)
        assert remedy, f"no remedy in: {message}"
        for name, values in remedy.items():
            assert told.setdefault(name, values) == values, f"{name} was {told[name]} before: {messages}"
        assert len(messages) <= 3, messages
        (folder / "config.json").write_text(to_json(settings), encoding="utf-8")
        options = [part for name, values in remedy.items() for part in (f"--{name}", *values)]
        settings, _ = parse_train([str(folder / "config.json"), *options])
    return messages, settings


def spare(folder, rows, tokens):
    """The tiny BERT with a word table of so many rows, and a vocabulary of so many tokens."""
    weights = own.tensors()
    table = weights["embeddings.word_embeddings.weight"]
    weights["embeddings.word_embeddings.weight"] = table[[min(row, len(table) - 1) for row in range(rows)]]
    own.write(folder, weights, vocab_size=rows)
    words = [*own.WORDS, *(f"word{index}" for index in range(tokens - len(own.WORDS)))]
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    return folder


@pytest.mark.parametrize("rows", [8, 14, 20, 40, 48, 100])
def test_a_table_with_spare_rows_is_told_one_size(rows, tmp_path):
    """A table of 48 rows with a tokenizer of 40 tokens was told 48 first and then 40."""
    source = spare(tmp_path / "bert", rows=48, tokens=40)
    messages, settings = follow(config(source, {"model.text.vocab_size": rows}), tmp_path / "run")
    assert settings.model.text.vocab_size == 48 and len(messages) == (rows != 48)


@pytest.mark.parametrize("rows", [14, 40, 48])
def test_a_table_that_is_too_small_is_told_another_tokenizer(rows, tmp_path):
    source = spare(tmp_path / "bert", rows=14, tokens=40)
    settings = config(source, {"model.text.vocab_size": rows})
    message = refusal(settings)
    assert "'word25'" in message and "14 rows" in message and "model.text.tokenizer" in message
    assert "vocab_size" not in message  # no size would do
    other = own.write(tmp_path / "other")
    settings_with_tokenizer = with_changes(settings, {"model.text.tokenizer": str(other)})
    assert follow(settings_with_tokenizer, tmp_path / "run")[1].model.text.vocab_size == 14


@pytest.mark.parametrize("rows", [8, 13, 14, 50])
def test_a_tokenizer_setting_needs_at_least_its_rows(rows, tmp_path):
    source = own.write(tmp_path / "bert")
    settings = config(changes={"model.text.vocab_size": rows, "model.text.tokenizer": str(source)})
    messages, settings = follow(settings, tmp_path / "run")
    assert settings.model.text.vocab_size == max(rows, 14)
    assert ["'shape'" in message and f"{rows} rows" in message for message in messages] == [True] * (rows < 14)


def test_a_run_with_spare_rows_starts_another(tmp_path):
    """A vocabulary that was built may be smaller than its table."""
    own.save_run(tmp_path / "run", config(changes={"model.text.vocab_size": 30}))
    messages, settings = follow(config(tmp_path / "run", {"model.text.vocab_size": 14}), tmp_path / "next")
    assert settings.model.text.vocab_size == 30 and len(messages) == 1


WIDE, LAYOUT = {"model.hidden_size": 32, "model.layout.text_feature_size": 16}, "model.layout."
ROWS = f"{LAYOUT}max_position_embeddings"
CHANGES = [
    (WIDE, 0), (WIDE, 1), ({"model.num_attention_heads": 4}, 0), ({f"{LAYOUT}hidden_act": "relu"}, 0),
    (WIDE | {"model.num_attention_heads": 4, "model.num_layers": 1, "model.intermediate_size": 32,
             f"{LAYOUT}layer_norm_eps": 1e-5}, 0),
    ({f"{LAYOUT}text_feature_size": 32}, 0),
    ({f"{LAYOUT}type_vocab_size": 1, f"{LAYOUT}first_position": 2, "model.text.vocab_size": 20}, 0),
    *(({ROWS: 12}, way) for way in range(3)),
    *(({ROWS: 30, "init.positions": how}, way) for how in ("exact", "cut") for way in range(2)),
    ({ROWS: 30, "model.text.max_length": 24}, 0),
    ({ROWS: 30, "model.text.max_length": 24, "init.positions": "cut"}, 0),
    ({"model.num_layers": 1, f"{LAYOUT}type_vocab_size": 1, ROWS: 12}, 0),
]  # fmt: skip


def image_from(source):
    return {"init.kind": "parts", "init.image": str(source)}


def model_from(source):
    return {"init.kind": "model", "init.model": str(source)}


@pytest.mark.parametrize(("changes", "way"), CHANGES, ids=str)
def test_settings_that_do_not_fit_a_text_side_can_be_followed(changes, way, bert, tmp_path):
    messages, _ = follow(config(bert, changes), tmp_path / "run", way=way)
    assert messages


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return own.write(tmp_path_factory.mktemp("published") / "bert")


@pytest.mark.parametrize("name", ["roberta", "distilbert"])
def test_other_families_name_what_they_need(name, bert, tmp_path):
    source = fixtures.publish(fixtures.BY_NAME[name].fixtures[0], tmp_path / name)
    messages, settings = follow(
        config(source, {"model.text.tokenizer": str(bert), "model.text.max_length": 9}), tmp_path / "run"
    )
    assert settings.model.hidden_size == fixtures.WIDTH and messages
    assert settings.architecture.first_position == {"roberta": 2, "distilbert": 0}[name]


def test_a_missing_tokenizer_can_be_set(bert, tmp_path):
    source = own.write(tmp_path / "mute")
    (source / "vocab.txt").unlink()
    (source / "tokenizer_config.json").write_text("{}", encoding="utf-8")  # settings are no tokenizer
    assert refusal(config(source)).endswith("give model.text.tokenizer")
    assert refusal(config(source, {"model.text.tokenizer": str(bert)})) is None


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    fixture = fixtures.BY_NAME["torchvision_resnet18"].fixtures[0]
    return str(fixtures.publish(fixture, tmp_path_factory.mktemp("cnn") / "resnet"))


def test_weights_in_the_wrong_place_are_sent_to_the_right_one(resnet, bert):
    right = {"image.mean": (0.485, 0.456, 0.406), "image.std": (0.229, 0.224, 0.225), "image.size": (32, 32)}
    right |= {"model.image.kind": "resnet", "model.image.depth": 18, "model.image.norm": "frozen"}
    message = refusal(config(resnet, right))
    assert "init.image" in message and "tokenizer" not in message
    assert refusal(config(changes=right | image_from(resnet))) is None
    assert "init.text" in refusal(config(changes=image_from(bert)))
    assert refusal(config(bert)) is None
    assert "init.text or init.image" in refusal(config(changes=model_from(bert)))


def test_a_cnn_names_what_it_needs(resnet, tmp_path):
    settings = config(changes={**image_from(resnet), "image.size": (32, 32)})
    messages, settings = follow(settings, tmp_path / "run")
    assert len(messages) == 3 and settings.image.std == (0.229, 0.224, 0.225)


def test_a_whole_model_names_what_it_needs(tmp_path):
    own.save_run(tmp_path / "run", config())
    changes = {"model.num_layers": 1, "model.image.positions": "grid", "model.layout.type_vocab_size": 1}
    other = config(changes=changes | model_from(tmp_path / "run"))
    messages, settings = follow(other, tmp_path / "next")
    assert messages and settings.model.num_layers == 2 and settings.architecture.type_vocab_size == 2


def test_a_vocabulary_of_special_tokens_alone_is_told_to_be_larger():
    with pytest.raises(InputError, match="5 special tokens need more"):
        Tokenizer.build(["red"], 5)
    assert Tokenizer.build(["red"], 6).vocab_size == 6
