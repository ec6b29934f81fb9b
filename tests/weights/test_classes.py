"""Two biases of one decoder, sentence pairs alone, defaults of classes; and each check of `verify` can fail."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.weights import fixtures, own
from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.errors import InputError
from vlm_jax.trees import flatten, unflatten
from vlm_jax.weights import proof_subject
from vlm_jax.weights.checks import Check, verdict
from vlm_jax.weights.export import export
from vlm_jax.weights.families import FAMILIES
from vlm_jax.weights.family import PublishedFile
from vlm_jax.weights.import_folder import read, read_import, write_import
from vlm_jax.weights.source import Tensors, open_source
from vlm_jax.weights.verify import verify

BIASES = {"cls.predictions.bias": "cls.predictions.decoder.bias", "lm_head.bias": "lm_head.decoder.bias"}
UNTIED = ("bert_masked_untied", "bert_pretraining_untied", "roberta_masked_untied", "visual_bert_pretraining_untied")


def trained(converted, path, change):
    """The port with one parameter changed."""
    leaves = dict(flatten(converted.params))
    leaves[path] = change(leaves[path])
    return dataclasses.replace(converted, params=unflatten(leaves))


def statuses(source):
    """The status of each check but the notes."""
    return {check.name: check.status for check in verify(str(source)) if check.status != "note"}


# The two biases of an untied decoder


@pytest.fixture(params=UNTIED)
def two_biases(request, tmp_path):
    """As transformers 5 trains an untied decoder: `decoder.bias` moves, the other bias does not."""
    fixture = fixtures.BY_NAME[request.param].fixtures[-1]
    tensors = fixtures.tensors(fixture)
    (first,) = (name for name in BIASES if name in tensors)
    tensors[BIASES[first]] = tensors[first] + np.linspace(-3, 3, fixtures.WORDS, dtype=np.float32)
    return fixtures.write(tmp_path / "published", tensors, fixtures.config(fixture.case)), tensors, first


def test_the_used_bias_is_converted_and_both_are_exported(two_biases, tmp_path):
    folder, tensors, first = two_biases
    converted = read(str(folder))
    assert np.array_equal(converted.params["head"]["words"]["bias"], tensors[BIASES[first]])
    write_import(converted, tmp_path / "port")
    for name, port in (("direct", converted), ("again", read_import(tmp_path / "port"))):
        export(port, tmp_path / name)
        back = load_file(tmp_path / name / "model.safetensors")
        assert back.keys() == tensors.keys()
        assert all(back[key].tobytes() == tensors[key].tobytes() for key in tensors)
    export(trained(converted, "head/words/bias", lambda x: x + 1), tmp_path / "trained")
    back = load_file(tmp_path / "trained" / "model.safetensors")
    assert np.array_equal(back[BIASES[first]], tensors[BIASES[first]] + 1)
    assert np.array_equal(back[first], tensors[first])


@pytest.mark.parity
def test_the_bias_that_counts_is_transformers(two_biases):
    pytest.importorskip("torch", reason="torch is the oracle")
    folder, _, _ = two_biases
    results = statuses(folder)
    assert results["masked words"] == results["exported again"] == "ok" and set(results.values()) == {"ok"}


def test_two_biases_of_a_tied_decoder_are_refused(tmp_path):
    """There transformers 4 and 5 disagree."""
    fixture = fixtures.BY_NAME["bert_masked"].fixtures[-1]
    tensors = fixtures.tensors(fixture)
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"] + 1
    folder = fixtures.write(tmp_path / "published", tensors, fixtures.config(fixture.case))
    with pytest.raises(InputError, match=r"'cls.predictions.*' and 'cls.predictions.*' are two names of one tensor"):
        read(str(folder))


def test_an_untied_decoder_that_equals_the_words_stays_one(tmp_path):
    """As before its first step: tied, it would train as another model."""
    fixture = fixtures.BY_NAME["bert_masked_untied"].fixtures[-1]
    tensors = fixtures.tensors(fixture)
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"]
    converted = read(str(fixtures.write(tmp_path / "published", tensors, fixtures.config(fixture.case))))
    assert converted.architecture.parts == ("words", "decoder")
    export(trained(converted, "text/word/embedding", lambda x: x + 1), tmp_path / "out")
    back = load_file(tmp_path / "out" / "model.safetensors")
    assert np.array_equal(back["cls.predictions.decoder.weight"], tensors["cls.predictions.decoder.weight"])
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False


# BertForNextSentencePrediction


def sentence_pairs(folder, **settings):
    """Its file: BertForPreTraining's without masked words."""
    fixture = fixtures.BY_NAME["bert_pretraining"].fixtures[-1]
    tensors = {name: x for name, x in fixtures.tensors(fixture).items() if "cls.predictions" not in name}
    config = fixtures.config(fixture.case) | {"architectures": ["BertForNextSentencePrediction"]} | settings
    return fixtures.write(folder, tensors, config), tensors


@pytest.mark.parametrize("settings", [{}, {"architectures": None}])
def test_sentence_pairs_alone_are_exported_as_themselves(settings, tmp_path):
    folder, tensors = sentence_pairs(tmp_path / "published", **settings)
    assert export(read(str(folder)), tmp_path / "exported") == "BertForNextSentencePrediction"
    back = load_file(tmp_path / "exported" / "model.safetensors")
    assert back.keys() == tensors.keys() and all(np.array_equal(back[name], tensors[name]) for name in tensors)
    config = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert config["architectures"] == ["BertForNextSentencePrediction"]


@pytest.mark.parity
def test_sentence_pairs_alone_are_verified(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is the oracle")
    pytest.importorskip("torch", reason="torch is the oracle")
    folder, _ = sentence_pairs(tmp_path / "published")
    results = statuses(folder)
    assert results["sentence pairs"] == results["pooled"] == "ok" and set(results.values()) == {"ok"}
    export(read(str(folder)), tmp_path / "exported")
    _, info = transformers.BertForNextSentencePrediction.from_pretrained(
        tmp_path / "exported", output_loading_info=True
    )
    assert {name: keys for name, keys in info.items() if keys} == {}


# What a config.json leaves out is the class's default


LEFT_OUT = {
    "bert": ("layer_norm_eps", "hidden_act", "type_vocab_size"),
    "roberta": ("layer_norm_eps", "hidden_act", "type_vocab_size", "pad_token_id"),
    "distilbert": ("activation",),
    "visual_bert": ("layer_norm_eps", "hidden_act", "type_vocab_size", "visual_embedding_dim"),
}


@pytest.mark.parametrize("family", LEFT_OUT)
def test_what_a_config_leaves_out_is_the_default_of_its_class(family):
    transformers = pytest.importorskip("transformers", reason="transformers has the defaults")
    case = fixtures.BY_NAME[family]
    kind = getattr(transformers, fixtures.transformers_class(case)).config_class
    config = {name: x for name, x in fixtures.config(case).items() if name not in LEFT_OUT[family]}
    assert config.keys() < fixtures.config(case).keys()
    model = FAMILIES[family].settings(PublishedFile(config, {}, Tensors([]), "")).model
    default = kind()
    settings = {
        "layer_norm_eps": model.layer_norm_eps,
        "hidden_act": model.hidden_act,
        "activation": model.hidden_act,
        "type_vocab_size": model.type_vocab_size,
        "pad_token_id": model.first_position - 1,
        "visual_embedding_dim": model.image.feature_size,
    }
    for name in LEFT_OUT[family]:
        assert settings[name] == getattr(default, name), name


@pytest.mark.parity
def test_roberta_without_its_epsilon_is_verified(tmp_path):
    """Weights of deviation 0.02 show the difference between 1e-12 and 1e-5."""
    pytest.importorskip("torch", reason="torch is the oracle")
    fixture = fixtures.BY_NAME["roberta"].fixtures[0]
    config = {name: x for name, x in fixtures.config(fixture.case).items() if name != "layer_norm_eps"}
    results = statuses(fixtures.write(tmp_path / "published", fixtures.tensors(fixture), config))
    assert set(results.values()) == {"ok"}


# Trained weights of a file of halves


@pytest.mark.parametrize("kind", [np.float16, "bfloat16"])
def test_trained_weights_of_a_file_of_halves_are_not_rounded(kind, tmp_path):
    """A tensor that its old type cannot hold goes back as float32; all others in their type."""
    import ml_dtypes

    dtype = np.dtype(ml_dtypes.bfloat16) if kind == "bfloat16" else np.dtype(kind)
    halves = {name: x.astype(dtype) for name, x in own.tensors().items()}
    converted = read(str(own.write(tmp_path / "bert", halves)))
    path, name = "trunk/layer_1/output/bias", "encoder.layer.1.output.dense.bias"
    step = np.float32(4.9e-4) * np.linspace(-1, 1, 16, dtype=np.float32)
    converted = trained(converted, path, lambda x: x + step)
    export(converted, tmp_path / "out")
    back = load_file(tmp_path / "out" / "model.safetensors")
    assert back[name].dtype == np.float32 and np.array_equal(back[name], halves[name].astype(np.float32) + step)
    assert {key for key, x in back.items() if x.dtype != dtype} == {name}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"
    write_import(converted, tmp_path / "port")
    export(read_import(tmp_path / "port"), tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert all(again[key].tobytes() == back[key].tobytes() for key in back)


# Each check of `verify` can fail

PLANTED = [
    ("bert_pretraining", "text/segment/embedding", {"embeddings", "layer 1", "exported again"}),
    ("bert_pretraining", "head/words/bias", {"masked words", "KL of masked words", "exported again"}),
    ("bert_pretraining", "head/pairs/bias", {"sentence pairs", "exported again"}),
    ("bert", "head/pooler/bias", {"pooled", "exported again"}),
    ("visual_bert_answers", "head/answers/classifier/kernel", {"answers", "exported again"}),
    ("visual_bert_answers", "embed/image_segment", {"embeddings", "layer 2", "answers"}),
    ("resnet18", "image/stage_4_block_1/norm_2/bias", {"features", "logits"}),
    ("resnet18", "head/classifier/bias", {"logits"}),
    ("torchvision_resnet18", "image/stem_norm/bias", {"features", "logits"}),
    ("mobilenet_v2", "head/classifier/bias", {"logits"}),
]


@pytest.mark.parity
@pytest.mark.parametrize(("case", "path", "failing"), PLANTED)
def test_each_comparison_can_fail(case, path, failing, tmp_path, monkeypatch):
    """One entry of one parameter is off by 0.05: what depends on it fails, nothing before it does."""
    pytest.importorskip("torch", reason="torch is the oracle")
    fixture = fixtures.BY_NAME[case].fixtures[-1]
    folder = fixtures.publish(fixture, tmp_path / "published")
    convert = proof_subject.convert

    def off(x):
        changed = x.copy()
        changed.flat[-1] += 0.05  # of the second token type, which the input must hold
        return changed

    monkeypatch.setattr(
        proof_subject, "convert", lambda source, **options: trained(convert(source, **options), path, off)
    )
    checks = list(verify(str(folder)))
    failed = {check.name for check in checks if check.status == "FAIL"}
    assert failing <= failed and verdict(checks) == ("FAIL", 1)
    spared = {"head/pairs/bias": "masked words", "head/words/bias": "sentence pairs", "head/pooler/bias": "layer 2"}
    assert spared.get(path) not in failed
    if path.startswith("head/classifier"):
        assert "features" not in failed


@pytest.mark.parity
def test_the_comparison_of_tokenizers_can_fail(tmp_path, monkeypatch):
    """Two words of the vocabulary are exchanged on our side."""
    pytest.importorskip("torch", reason="torch is the oracle")
    folder = own.write(tmp_path / "published")
    other = own.write(tmp_path / "other")
    lines = (other / "vocab.txt").read_text().split("\n")
    a, circle = lines.index("a"), lines.index("circle")
    lines[a], lines[circle] = lines[circle], lines[a]
    (other / "vocab.txt").write_text("\n".join(lines))
    assert statuses(folder)["tokenizer"] == "ok"
    convert = proof_subject.convert

    def mistaken(source, **options):
        return dataclasses.replace(convert(source, **options), tokenizer=(other / "vocab.txt",))

    monkeypatch.setattr(proof_subject, "convert", mistaken)
    checks = list(verify(str(folder)))
    assert [check.name for check in checks if check.status == "FAIL"] == ["tokenizer"]
    assert verdict(checks) == ("FAIL", 1)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("case", "without"),
    [("bert", "encoder.layer.1.output.dense.bias"), ("resnet18", "resnet.embedder.embedder.normalization.weight")],
)
def test_tensors_that_the_oracle_misses_are_a_fail(case, without, tmp_path, monkeypatch):
    """It would draw them at random. Tensors that it does not know are one too."""
    pytest.importorskip("torch", reason="torch is the oracle")
    fixture = fixtures.BY_NAME[case].fixtures[-1]
    tensors, config = fixtures.tensors(fixture), fixtures.config(fixture.case)
    converted = read(str(fixtures.write(tmp_path / "whole", tensors, config)))
    less = {name: x for name, x in tensors.items() if name != without}
    more = tensors | {without.replace("bias", "extra").replace("weight", "extra"): np.ones(3, np.float32)}
    monkeypatch.setattr(proof_subject, "convert", lambda source, **options: converted)
    for folder, content in (("less", less), ("more", more)):
        checks = list(verify(str(fixtures.write(tmp_path / folder, content, config))))
        (check,) = (check for check in checks if check.name == "tensors")
        changed = (set(tensors) ^ set(content)).pop().removeprefix("resnet.")
        assert check.status == "FAIL" and changed in check.value
        assert verdict(checks) == ("FAIL", 1)


def test_a_failure_counts_more_than_what_was_not_compared():
    ok, left, fail = (Check(status, "", status) for status in ("ok", "not compared", "FAIL"))
    assert verdict([ok]) == ("PASS", 0) and verdict([ok, left]) == ("NOT COMPARED: not compared", 3)
    assert verdict([left, fail, ok]) == ("FAIL", 1)


def test_missing_tensors_are_not_sampled(tmp_path):
    """The port of a file without its head has no head."""
    fixture = fixtures.BY_NAME["bert_masked"].fixtures[-1]
    tensors = {name: x for name, x in fixtures.tensors(fixture).items() if not name.startswith("cls.")}
    folder = fixtures.write(tmp_path / "published", tensors, fixtures.config(fixture.case))
    converted = read(str(folder))
    assert converted.published.missing == (
        "cls.predictions.bias", "cls.predictions.transform.LayerNorm.bias",
        "cls.predictions.transform.LayerNorm.weight", "cls.predictions.transform.dense.bias",
        "cls.predictions.transform.dense.weight",
    )  # fmt: skip
    assert converted.architecture.parts == () and "words" not in converted.params.get("head", {})
    assert open_source(str(folder)).sha256 == converted.origin.sha256
    write_import(converted, tmp_path / "port")
    assert read_import(tmp_path / "port").published == converted.published
    report = (tmp_path / "port" / "port_report.md").read_text()
    assert f"missing tensors of BertForMaskedLM: {', '.join(converted.published.missing)}" in report


@pytest.mark.parity
@pytest.mark.parametrize("name", ["cls_id", "sep_id", "pad_id"])
def test_another_frame_or_padding_of_texts_shows(name, tmp_path, monkeypatch):
    """The words alone would be equal."""
    pytest.importorskip("torch", reason="torch is the oracle")
    folder, load = own.write(tmp_path / "bert"), Tokenizer.load

    def changed(place):
        tokenizer = load(place)
        setattr(tokenizer, name, tokenizer.mask_id)
        return tokenizer

    monkeypatch.setattr(Tokenizer, "load", changed)
    assert statuses(folder)["tokenizer"] == "FAIL"
