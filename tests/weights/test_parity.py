"""Ports are exact, by PyTorch and transformers as they are installed: module by module, whole, and there and back."""

import json
import logging
from contextlib import contextmanager

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.weights import fixtures
from tests.weights.fixtures import BY_NAME, CASES, Fixture
from vlm_jax.settings.changes import with_changes
from vlm_jax.trees import flatten
from vlm_jax.weights import mobile_networks, resnet
from vlm_jax.weights.export import export
from vlm_jax.weights.import_folder import read, write_import
from vlm_jax.weights.source import INDEX, WEIGHTS
from vlm_jax.weights.verify import verify

torch = pytest.importorskip("torch", reason="torch is the oracle")
transformers = pytest.importorskip("transformers", reason="transformers is the oracle")
pytestmark = pytest.mark.parity

# The goldens have each case's other fixture, and the deeper ResNets as well.
FIXTURES = [
    pytest.param(case.fixtures[-1], marks=pytest.mark.slow if "resnet50" in case.name else ()) for case in CASES
]


@pytest.fixture(autouse=True)
def small_images(monkeypatch):
    """`verify` draws images of the size that a CNN was trained with; small ones say the same sooner."""
    for module in (resnet, mobile_networks):
        for name in {"TORCHVISION", "IMAGENET", "LITE"} & vars(module).keys():
            monkeypatch.setattr(module, name, with_changes(getattr(module, name), {"size": fixtures.IMAGE}))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The folder of a fixture, written once."""
    folders = {}

    def publish(fixture):
        if fixture not in folders:
            folders[fixture] = fixtures.publish(fixture, tmp_path_factory.mktemp("published") / str(fixture))
        return folders[fixture]

    return publish


Fixture.__hash__ = lambda self: hash(str(self))  # its config is a dict


@contextmanager
def nothing_said():
    """transformers logs what it does not like, in the log of its own."""
    records = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    assert not records, [record.getMessage() for record in records]


def load(folder, fixture, **more):
    """The folder in its transformers class, which must miss nothing and find nothing that it does not know."""
    kind = fixtures.transformers_class(fixture.case)
    if kind in ("BertModel", "RobertaModel", "VisualBertModel"):
        more["add_pooling_layer"] = "pooler" in fixture.case.parts
    with nothing_said():
        model, info = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True, **more)
    assert {name: keys for name, keys in info.items() if keys} == {}
    return model.eval()


def outputs(model, fixture):
    """Everything that a model says on the stored inputs."""
    inputs = fixtures.inputs(fixture.case, fixtures.goldens())
    names = {"text_mask": "attention_mask", "segments": "token_type_ids", "image": "visual_embeds"}
    names |= {"image_mask": "visual_attention_mask", "pixels": "pixel_values"}
    arguments = {names.get(name, name): torch.tensor(array) for name, array in inputs.items()}
    arguments = {name: x if x.is_floating_point() else x.long() for name, x in arguments.items()}
    if fixtures.is_cnn(fixture.case):
        arguments["pixel_values"] = arguments["pixel_values"].permute(0, 3, 1, 2)
    with torch.no_grad():
        output = model(**arguments, output_hidden_states=True, return_dict=True)
    return jax.tree.map(np.asarray, output.to_tuple())


def same_files(first_folder, second_folder):
    """Whether two files hold the same tensors, bit for bit, under the same names."""
    first, second = load_file(first_folder / WEIGHTS), load_file(second_folder / WEIGHTS)
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert (array.dtype, array.shape) == (second[name].dtype, second[name].shape), name
        assert array.tobytes() == second[name].tobytes(), name
    return True


def verified(folder, lacking=()):
    """The names of what was compared; all of it is equal, and nothing but `lacking` is left out."""
    checks = list(verify(str(folder)))
    assert [(check.name, check.status) for check in checks if check.status in ("FAIL", "not compared")] == [
        (name, "not compared") for name in lacking
    ]
    return [check.name for check in checks if check.status == "ok"]


@pytest.mark.parametrize("fixture", FIXTURES, ids=str)
def test_a_port_is_verified(fixture, published):
    """Everything that the published model says is compared, and the file comes back."""
    start = f"{fixture}/outputs/"
    expected = {name.removeprefix(start) for name in fixtures.goldens() if name.startswith(start)}
    expected |= {"KL of masked words"} if "words" in fixture.case.parts else set()
    expected |= {"pooled"} if "pooler" in fixture.case.parts else set()
    lacking = ("pooled",) if fixture.case.name == "bert_no_pooler" else ()
    assert set(verified(published(fixture), lacking)) == expected | {"exported again"}


@pytest.mark.parametrize("fixture", FIXTURES, ids=str)
def test_an_export_is_the_published_model(fixture, published, tmp_path):
    """The same file, loaded without a word by the class that it names, and the same outputs bit for bit."""
    folder = published(fixture)
    kind = export(read(str(folder)), tmp_path / "exported")
    assert kind == fixtures.transformers_class(fixture.case)
    assert same_files(folder, tmp_path / "exported")
    if kind:
        assert json.loads((tmp_path / "exported" / "config.json").read_text())["architectures"] == [kind]
        before, after = (outputs(load(place, fixture), fixture) for place in (folder, tmp_path / "exported"))
        assert len(jax.tree.leaves(before)) > 1
        assert jax.tree.all(jax.tree.map(np.array_equal, before, after))


@pytest.mark.parametrize("name", ["bert_pretraining_untied", "visual_bert_answers", "distilbert_masked", "resnet18"])
def test_the_folder_of_an_import_is_verified_as_its_source(name, published, tmp_path):
    """And exports the same file."""
    fixture = BY_NAME[name].fixtures[-1]
    write_import(read(str(published(fixture))), tmp_path / "imported")
    assert "exported again" in verified(tmp_path / "imported")
    export(read(str(tmp_path / "imported")), tmp_path / "exported")
    assert same_files(published(fixture), tmp_path / "exported")


# Files as they are found


def old_names(tensors):
    """TensorFlow's names of a layer norm's weight and bias."""
    turn = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def renamed(name):
        for new, old in turn.items():
            name = name.replace(new, old)
        return name

    return {renamed(name): array for name, array in tensors.items()}


def no_prefix(tensors):
    return {name.removeprefix("bert."): array for name, array in tensors.items()}


def other_bias(tensors):
    """The decoder's bias under its second name alone."""
    turn = {"cls.predictions.bias": "cls.predictions.decoder.bias", "lm_head.bias": "lm_head.decoder.bias"}
    return {turn.get(name, name): array for name, array in tensors.items()}


def both_biases(tensors):
    return tensors | other_bias(tensors)


def one_bias(tensors):
    """The decoder's bias under its first name alone."""
    return {name: array for name, array in tensors.items() if not name.endswith("decoder.bias")}


def tied_twice(tensors):
    """A tied decoder, written out."""
    (words,) = (name for name in tensors if name.endswith("word_embeddings.weight"))
    decoders = {"bert": "cls.predictions.decoder", "roberta": "lm_head.decoder", "distilbert": "vocab_projector"}
    return tensors | {f"{decoders[words.split('.')[0]]}.weight": tensors[words]}


def position_ids(tensors):
    """A buffer that files before transformers 4.31 hold."""
    (name,) = (name for name in tensors if name.endswith("position_embeddings.weight"))
    buffer = np.arange(len(tensors[name]))[None]
    return tensors | {name.replace("position_embeddings.weight", "position_ids"): buffer}


VARIANTS = [
    ("bert", old_names), ("bert_pretraining", old_names), ("bert_pretraining", no_prefix),
    ("bert_masked", other_bias), ("bert_masked", both_biases), ("roberta_masked", other_bias),
    ("roberta_masked", both_biases), ("bert_masked_untied", other_bias), ("bert_masked_untied", one_bias),
    ("roberta_masked_untied", one_bias), ("bert_masked", tied_twice), ("roberta_masked", tied_twice),
    ("distilbert_masked", tied_twice), ("bert_masked", position_ids), ("roberta", position_ids),
    ("distilbert", position_ids),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change"), VARIANTS, ids=lambda part: getattr(part, "__name__", part))
def test_a_file_with_other_names_is_the_same_model(name, change, published, tmp_path):
    """The same parameters, verified, and an export under today's names."""
    fixture = BY_NAME[name].fixtures[-1]
    changed = change(fixtures.tensors(fixture))
    assert changed.keys() != fixtures.tensors(fixture).keys()
    folder = fixtures.write(tmp_path / "changed", changed, fixtures.config(fixture.case))
    plain, converted = read(str(published(fixture))), read(str(folder))
    assert jax.tree.all(jax.tree.map(np.array_equal, plain.params, converted.params))
    verified(folder)
    export(converted, tmp_path / "exported")
    assert same_files(published(fixture), tmp_path / "exported")


def test_two_names_of_one_tensor_that_differ_are_refused(tmp_path):
    fixture = BY_NAME["bert_masked"].fixtures[0]
    tensors = both_biases(fixtures.tensors(fixture))
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.decoder.bias"] + 1
    folder = fixtures.write(tmp_path / "changed", tensors, fixtures.config(fixture.case))
    with pytest.raises(Exception, match=r"'cls.predictions.decoder.bias' .*are two names of one tensor, and differ"):
        read(str(folder))


HALVES = {"float16": np.dtype("float16"), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize("name", ["bert_pretraining", "bert_masked_untied", "distilbert_masked", "resnet18"])
def test_a_half_precision_file_comes_back_in_its_type(name, kind, tmp_path):
    fixture = BY_NAME[name].fixtures[-1]
    tensors = {
        name: array.astype(HALVES[kind]) if array.dtype == np.float32 else array
        for name, array in fixtures.tensors(fixture).items()
    }
    folder = fixtures.write(tmp_path / kind, tensors, fixtures.config(fixture.case))
    converted = read(str(folder))
    assert {leaf.dtype for leaf in flatten(converted.params).values()} == {np.dtype("float32")}
    assert "exported again" in verified(folder)
    export(converted, tmp_path / "exported")
    assert same_files(folder, tmp_path / "exported")
    assert load(tmp_path / "exported", fixture).dtype == getattr(torch, kind)  # `dtype` of its config.json
    write_import(converted, tmp_path / "imported")
    export(read(str(tmp_path / "imported")), tmp_path / "again")
    assert same_files(folder, tmp_path / "again")


@pytest.mark.parametrize("name", ["bert_pretraining", "resnet18"])
def test_a_sharded_file_is_the_same_model(name, published, tmp_path):
    fixture = BY_NAME[name].fixtures[-1]
    tensors = fixtures.tensors(fixture)
    folder = fixtures.write(tmp_path / "sharded", tensors, fixtures.config(fixture.case))
    (folder / WEIGHTS).unlink()
    names, places = sorted(tensors), {}
    for index in range(3):
        file = f"model-{index + 1:05}-of-00003.safetensors"
        save_file({name: tensors[name] for name in names[index::3]}, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(names[index::3], file)
    size = sum(array.nbytes for array in tensors.values())
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": places}))
    verified(folder)
    export(read(str(folder)), tmp_path / "exported")
    assert same_files(published(fixture), tmp_path / "exported")
