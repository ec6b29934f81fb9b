"""Dropout stands where the published class has it: with the same masks both compute the same in training."""

import json

import jax
import numpy as np
import pytest

from vlm_jax.errors import InputError
from vlm_jax.models import attention, bert, heads, pretrained, text_trunk
from vlm_jax.weights.checks import BOUND, score
from vlm_jax.weights.import_folder import ABOUT, read, write_import

torch = pytest.importorskip("torch", reason="torch is the oracle")
transformers = pytest.importorskip("transformers", reason="transformers is the oracle")
pytestmark = pytest.mark.parity

from tests.weights import text_models  # noqa: E402  needs torch

HIDDEN, ATTENTION, HEAD = 0.3, 0.2, 0.4
TRUNK = {"hidden_dropout_prob": HIDDEN, "attention_probs_dropout_prob": ATTENTION}
CLASSIFIER = TRUNK | {"classifier_dropout": HEAD}
DISTILBERT = {"dropout": HIDDEN, "attention_dropout": ATTENTION, "seq_classif_dropout": HEAD, "qa_dropout": 0.25}
ALBERT = TRUNK | {"classifier_dropout_prob": HEAD}
CROSS = TRUNK | {"is_decoder": True, "add_cross_attention": True}
FAST = {"BertForSequenceClassification", "RobertaForSequenceClassification", "DistilBertForQuestionAnswering",
        "DistilBertForSequenceClassification", "AlbertForPreTraining", "MPNetForTokenClassification"}  # fmt: skip
CASES = [
    ("bert", "BertForSequenceClassification", CLASSIFIER),
    ("bert", "BertForTokenClassification", CLASSIFIER),
    ("bert", "BertForPreTraining", TRUNK),
    ("bert", "BertForQuestionAnswering", CLASSIFIER),
    ("bert", "BertLMHeadModel", CROSS),
    ("roberta", "RobertaForSequenceClassification", CLASSIFIER),
    ("roberta", "RobertaForTokenClassification", TRUNK),
    ("distilbert", "DistilBertForSequenceClassification", DISTILBERT),
    ("distilbert", "DistilBertForQuestionAnswering", DISTILBERT),
    ("distilbert", "DistilBertForTokenClassification", DISTILBERT),
    ("albert", "AlbertForPreTraining", ALBERT),
    ("albert", "AlbertForSequenceClassification", ALBERT),
    ("albert", "AlbertForTokenClassification", ALBERT),
    ("electra", "ElectraForSequenceClassification", CLASSIFIER),
    ("electra", "ElectraForTokenClassification", CLASSIFIER),
    ("electra", "ElectraForMaskedLM", TRUNK),
    ("mpnet", "MPNetForSequenceClassification", CLASSIFIER),
    ("mpnet", "MPNetForTokenClassification", CLASSIFIER),
]
CASES = [pytest.param(*case, id=case[1], marks=() if case[1] in FAST else pytest.mark.slow) for case in CASES]
OUTPUTS = ("logits", "prediction_logits", "start_logits", "end_logits", "seq_relationship_logits")


@pytest.fixture
def masks(monkeypatch):
    """The rates and masks of our dropout in the order of its calls, which torch's then takes one after the other."""
    taken, dropout = [], attention.dropout

    def ours(x, rate, keys, site):
        result = dropout(x, rate, keys, site)
        if keys is not None and rate > 0:
            # An entry that is 0 stays 0 whatever its mask is.
            taken.append((rate, np.asarray(result != 0)))
        return result

    def theirs(x, p=0.5, training=True, inplace=False):
        if not training or p == 0:
            return x
        rate, keep = taken.pop(0)
        assert rate == pytest.approx(p)
        return x * torch.tensor(keep.reshape(x.shape)) / (1 - p)

    for module in (attention, bert, heads, pretrained, text_trunk):
        monkeypatch.setattr(module, "dropout", ours)
    monkeypatch.setattr(torch.nn.functional, "dropout", theirs)
    return taken


@pytest.mark.parametrize(("family", "kind", "settings"), CASES)
def test_training_with_the_same_masks_computes_the_same(family, kind, settings, masks, tmp_path):
    folder = text_models.publish(family, kind, tmp_path / "model", **settings)
    converted, random = read(str(folder)), np.random.default_rng(0)
    ids = random.integers(5, text_models.WORDS, (2, 9)).astype(np.int32)
    given = {"image": random.normal(size=(2, 4, text_models.WIDTH)).astype(np.float32)} if settings is CROSS else {}
    module, keys = converted.module, jax.random.key(0)
    output = module.apply(
        {"params": converted.params}, jax.numpy.asarray(ids), keys=keys, **jax.tree.map(jax.numpy.asarray, given)
    )
    assert len(masks) > 6
    options = {"dtype": torch.float64, "attn_implementation": "eager"}
    model = getattr(transformers, kind).from_pretrained(folder, **options).train()
    told = {"encoder_hidden_states": torch.tensor(given["image"]).double()} if given else {}
    with torch.no_grad():
        reference = model(torch.tensor(ids).long(), attention_mask=torch.ones(2, 9).long(), **told)
    assert masks == []
    compared = [name for name in OUTPUTS if getattr(reference, name, None) is not None]
    for name in compared:
        assert score(np.asarray(getattr(output, name)), getattr(reference, name).numpy()) <= BOUND, name
    assert compared


def test_rates_that_config_json_leaves_out_are_those_of_the_class(tmp_path):
    rates = {}
    for family, kind in (("bert", "BertForSequenceClassification"), ("albert", "AlbertForSequenceClassification"),
                         ("distilbert", "DistilBertForSequenceClassification")):  # fmt: skip
        folder = text_models.publish(family, kind, tmp_path / family)
        (folder / "config.json").write_text(without_rates((folder / "config.json").read_text(encoding="utf-8")))
        settings = read(str(folder)).architecture
        rates[family] = (settings.model.hidden_dropout_prob, *settings.head_dropout)
    assert rates == {"bert": (0.1, 0.0, 0.1), "albert": (0.0, 0.0, 0.1), "distilbert": (0.1, 0.0, 0.2)}


def without_rates(config):
    return "\n".join(line for line in config.split("\n") if "dropout" not in line)


def test_an_import_keeps_its_rates_and_one_without_them_is_made_again(tmp_path):
    folder = text_models.publish("roberta", "RobertaForSequenceClassification", tmp_path / "model", **CLASSIFIER)
    converted = read(str(folder))
    write_import(converted, tmp_path / "port")
    assert read(str(tmp_path / "port")).architecture == converted.architecture
    assert converted.architecture.head_dropout == (HEAD, HEAD)
    assert "head_dropout" in (tmp_path / "port" / ABOUT).read_text(encoding="utf-8")


@pytest.mark.parametrize("value", [1, -0.1, "0.1", True])
def test_a_rate_that_is_no_share_is_refused(value, tmp_path):
    folder = text_models.publish("bert", "BertModel", tmp_path / "model")
    config = (folder / "config.json").read_text(encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(json.loads(config) | {"hidden_dropout_prob": value}))
    with pytest.raises(InputError, match="hidden_dropout_prob"):
        read(str(folder))
