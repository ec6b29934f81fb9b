"""Training starts from pretrained weights: what fits is taken bit for bit, the rest is named."""

import json
import shutil
import signal

import jax
import numpy as np
import pytest

from experiments.train import main
from tests.weights import own
from tests.weights.own import config, fresh
from vlm_jax.config import captioning
from vlm_jax.errors import InputError
from vlm_jax.settings.changes import with_changes
from vlm_jax.training.initialization import describe, start
from vlm_jax.trees import flatten
from vlm_jax.weights.import_folder import read

FITS = (
    "--model.hidden-size", "16", "--model.num-attention-heads", "2", "--model.num-layers", "2",
    "--model.intermediate-size", "24",
    "--model.text.vocab-size", str(len(own.WORDS)), "--model.layout.kind", "custom",
    "--model.layout.max-position-embeddings", "20",
)  # fmt: skip
SHORT = ("--data.limit", "4", "--training.steps", "2", "--training.batch-images", "2", "--training.evaluate-every", "1")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return own.write(tmp_path_factory.mktemp("published") / "bert")


def _positions(length, way):
    return {"model.layout.max_position_embeddings": length, "init.positions": way}


def image_from(source):
    return {"init.kind": "parts", "init.image": str(source)}


def model_from(source):
    return {"init.kind": "model", "init.model": str(source)}


def started(settings, answers=("a", "b", "c")):
    params, record = start(settings, fresh(settings), answers)
    return {path: np.asarray(leaf) for path, leaf in flatten(params).items()}, record


@pytest.mark.parametrize("fusion", ["concat", "cross", "late", "co_attention"])
def test_text_weights_land_in_every_fusion(fusion, bert):
    settings = config(bert, {"model.fusion.kind": fusion})
    params, record = started(settings)
    source_leaves, layers = own.tensors(), own.text_layers(settings.architecture)
    assert np.array_equal(params["text/word/embedding"], source_leaves["embeddings.word_embeddings.weight"])
    assert np.array_equal(params["embed/norm/scale"], source_leaves["embeddings.LayerNorm.weight"])
    for index, place in enumerate(layers):
        query = source_leaves[f"encoder.layer.{index}.attention.self.query.weight"]
        assert np.array_equal(params[f"{place}/attention/query/kernel"], query.T)
        norm = source_leaves[f"encoder.layer.{index}.output.LayerNorm.bias"]
        assert np.array_equal(params[f"{place}/output_norm/bias"], norm)
    if fusion != "late":
        assert np.array_equal(params["head/pooler/kernel"], source_leaves["pooler.dense.weight"].T)
        assert record["sources"][0]["left_behind"] == []
    else:
        assert record["sources"][0]["left_behind"] == ["head/pooler"]
    assert {"image", "embed/image_fc"} <= set(record["fresh"])
    assert not {"text/word", "embed/norm"} & set(record["fresh"])


def test_the_record_names_its_source(bert):
    _, record = started(config(bert))
    (source,) = record["sources"]
    assert source["setting"] == "init.text" and source["source"] == str(bert)
    assert source["family"] == "bert" and source["sha256"] == read(str(bert)).origin.sha256
    lines = "\n".join(describe(record))
    assert "trunk/layer_*" in lines and "freshly initialised" in lines and "head/classifier" in lines


def test_nothing_pretrained_changes_nothing():
    settings = config()
    params = fresh(settings)
    after, record = start(settings, params, ())
    assert after is params and record is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"model.hidden_size": 32, "model.layout.text_feature_size": 16},
            ["--model.hidden-size 16", "--init.trunk false"],
        ),
        ({"model.num_attention_heads": 4}, ["--model.num-attention-heads 2"]),
        ({"model.num_layers": 1}, ["--model.num-layers 2"]),
        ({"model.layout.hidden_act": "relu"}, ["--model.layout.hidden-act gelu"]),
        ({"model.layout.layer_norm_eps": 1e-5}, ["--model.layout.layer-norm-eps 1e-12"]),
        ({"model.text.vocab_size": 20}, ["--model.text.vocab-size 14"]),
        ({"model.layout.type_vocab_size": 1}, ["--model.layout.type-vocab-size 2"]),
        ({"model.layout.max_position_embeddings": 12}, ["20 rows", "--init.positions cut"]),
    ],
)
def test_settings_that_do_not_fit_are_refused_with_those_that_do(changes, words, bert):
    settings = config(bert, changes)
    with pytest.raises(InputError) as caught:
        start(settings, fresh(settings), ())
    assert all(word in str(caught.value) for word in words), caught.value


def test_embeddings_alone_fit_a_trunk_of_another_width(bert):
    params, record = started(
        config(bert, {"model.hidden_size": 32, "model.layout.text_feature_size": 16, "init.trunk": False})
    )
    assert np.array_equal(params["text/position/embedding"], own.tensors()["embeddings.position_embeddings.weight"])
    assert "embed/text_fc" in record["fresh"] and "trunk/layer_*" in record["sources"][0]["left_behind"]


@pytest.mark.parametrize("length", [12, 17, 30])
def test_positions_are_interpolated_on_request(length, bert):
    params, record = started(config(bert, _positions(length, "interpolate")))
    table, source_leaves = params["text/position/embedding"], own.tensors()["embeddings.position_embeddings.weight"]
    assert len(table) == length
    np.testing.assert_allclose(table[[0, -1]], source_leaves[[0, -1]], rtol=1e-6)
    assert record["sources"][0]["changed"] == [f"positions interpolated from 20 to {length}"]


def test_a_causal_source_of_a_bidirectional_trunk_is_noted(bert, tmp_path):
    decoder = shutil.copytree(bert, tmp_path / "decoder")
    (decoder / "config.json").write_text(json.dumps(own.SETTINGS | {"is_decoder": True}))
    for folder, note in ((bert, []), (decoder, ["its attention was causal, the model's is bidirectional"])):
        settings = config(folder, {"model.fusion.attention_pattern": "bidirectional"})
        assert started(settings)[1]["sources"][0]["changed"] == note


def test_positions_are_cut_on_request(bert):
    params, record = started(config(bert, _positions(15, "cut")))
    source_leaves = own.tensors()["embeddings.position_embeddings.weight"]
    assert np.array_equal(params["text/position/embedding"], source_leaves[:15])
    assert record["sources"][0]["changed"] == ["positions cut from 20 to 15"]
    longer = config(bert, _positions(30, "cut"))
    with pytest.raises(InputError, match="cannot be cut"):
        start(longer, fresh(longer), ())


def test_a_text_encoder_is_no_cnn(bert):
    settings = config(changes=image_from(bert))
    with pytest.raises(InputError, match=r"has no image encoder"):
        start(settings, fresh(settings), ())


def test_a_cnn_brings_its_preprocessing(tmp_path):
    """Mean and deviation that the weights were trained with are demanded."""
    from tests.weights import fixtures

    fixture = fixtures.BY_NAME["torchvision_resnet18"].fixtures[0]
    source = str(fixtures.publish(fixture, tmp_path / "resnet"))
    image = {"model.image.kind": "resnet", "model.image.depth": 18, "model.image.norm": "frozen", **image_from(source)}
    size = {"image.size": (32, 32)}
    right = {"image.mean": (0.485, 0.456, 0.406), "image.std": (0.229, 0.224, 0.225), **size}
    params, record = started(config(changes=image | right))
    source_leaves = flatten(read(source).params)
    assert all(np.array_equal(params[p], x) for p, x in source_leaves.items() if p.startswith("image/"))
    assert record["sources"][0]["left_behind"] == ["head/classifier"]
    for changes, words in (
        (image | size, "--image.mean 0.485 0.456 0.406"),
        (image | right | {"model.image.norm": "group"}, "--model.image.norm frozen"),
        (image | right | {"model.image.depth": 34}, "--model.image.depth 18"),
    ):
        settings = config(changes=changes)
        with pytest.raises(InputError, match=words):
            start(settings, jax.eval_shape(lambda s=settings: fresh(s)), ())
    text = config(source)
    with pytest.raises(InputError, match=r"is an image encoder; give it as init.image"):
        start(text, fresh(text), ())


def train(folder, data_directory, *options):
    return main(
        ["configs/tiny.py", "--workdir", str(folder), "--data.directory", str(data_directory), *SHORT, *options]
    )


@pytest.fixture(scope="module")
def run(bert, data_directory, tmp_path_factory):
    """A finished run that started from the tiny BERT."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train(folder, data_directory, *FITS, "--init.kind", "parts", "--init.text", str(bert)) == 0
    return folder


def test_a_run_records_its_sources_and_takes_the_tokenizer(run, bert):
    from vlm_jax.data.tokenizer import Tokenizer

    record = json.loads((run / "weights.json").read_text())
    assert record == json.loads((run / "result.json").read_text())["weights"]
    assert record["sources"][0]["sha256"] == read(str(bert)).origin.sha256
    texts = ["is there a circle?", "what colour is it"]
    assert Tokenizer.load(run).tokens(texts) == Tokenizer.load(bert).tokens(texts)


@pytest.mark.slow
def test_a_run_is_a_source(run, data_directory, tmp_path, capsys):
    """Its CNN, its text side, or all of it; another vocabulary of answers leaves the classifier."""
    assert train(tmp_path / "whole", data_directory, *FITS, "--init.kind", "model", "--init.model", str(run)) == 0
    assert "freshly initialised: nothing" in capsys.readouterr().out
    assert train(tmp_path / "image", data_directory, "--init.kind", "parts", "--init.image", str(run)) == 0
    assert json.loads((tmp_path / "image" / "weights.json").read_text())["sources"][0]["taken"] == ["image"]
    _, record = started(config(run))
    assert record["sources"][0]["family"] == "run" and "image" in record["sources"][0]["left_behind"]
    weights = json.loads((tmp_path / "whole" / "weights.json").read_text())
    assert weights["sources"][0]["taken"].count("head/classifier") == 1


def test_another_vocabulary_of_answers_leaves_the_classifier(run, data_directory):
    from vlm_jax.run_folder import RunFolder

    settings = RunFolder(run).config()
    settings = with_changes(settings, model_from(run))
    _, record = start(settings, fresh(settings, classes=3), ("other", "answers", "here"))
    assert "head/classifier" in record["fresh"] and "head/classifier" in record["sources"][0]["left_behind"]


@pytest.mark.slow
def test_a_resumed_run_needs_its_source_no_more(bert, data_directory, tmp_path):
    """Two steps, the source gone, two more: as four at once."""
    source = shutil.copytree(bert, tmp_path / "source")
    options = (*FITS, "--init.kind", "parts", "--init.text", str(source), "--training.steps", "4")

    def parameters(folder):
        from vlm_jax.run_folder import RunFolder
        from vlm_jax.training.checkpoint import Checkpoints

        with Checkpoints(RunFolder(folder).checkpoints) as checkpoints:
            return flatten(checkpoints.restore_params(None, which="latest", ema=False)[0])

    assert train(tmp_path / "once", data_directory, *options) == 0
    with pytest.MonkeyPatch.context() as patch:
        from vlm_jax.training import loop

        stop = lambda: stop.calls.append(0) or (len(stop.calls) >= 2) * signal.SIGTERM  # noqa: E731
        stop.calls = []
        requests = loop.stop_requests
        from contextlib import contextmanager

        @contextmanager
        def stop_requests():
            with requests():
                yield stop

        patch.setattr(loop, "stop_requests", stop_requests)
        assert train(tmp_path / "twice", data_directory, *options) == 143
    shutil.rmtree(source)
    assert train(tmp_path / "twice", data_directory, *options) == 0
    once, twice = parameters(tmp_path / "once"), parameters(tmp_path / "twice")
    assert all(np.array_equal(once[path], twice[path]) for path in once)


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_starts_from_the_source_again(run, bert, data_directory, tmp_path):
    """`weights.json` alone is no proof that anything was saved."""
    folder = tmp_path / "killed"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "answers.json", "weights.json"):
        shutil.copyfile(run / name, folder / name)
    assert train(folder, data_directory, *FITS, "--init.kind", "parts", "--init.text", str(bert)) == 0

    def losses(place):
        lines = map(json.loads, (place / "metrics.jsonl").read_text().splitlines())
        return [line["loss"] for line in lines if "loss" in line]

    assert losses(folder) == losses(run) != []


@pytest.mark.parametrize(
    "fusion",
    ["concat", "co_attention", *(pytest.param(fusion, marks=pytest.mark.slow) for fusion in ("cross", "late"))],
)
def test_a_run_of_every_fusion_is_a_source(fusion, tmp_path):
    """Its text layers for another fusion; for its own, every parameter, the image's layers too."""
    settings = config(changes={"model.fusion.kind": fusion})
    saved = own.save_run(tmp_path / "run", settings)
    params, record = started(config(tmp_path / "run"))
    for index, place in enumerate(own.text_layers(settings.architecture)):
        inside = [path for path in params if path.startswith(f"trunk/layer_{index}/")]
        assert len(inside) == 16
        for path in inside:
            assert np.array_equal(params[path], saved[path.replace(f"trunk/layer_{index}", place)]), path
    assert not any(name.startswith("trunk") for name in record["fresh"])
    params, record = started(with_changes(settings, model_from(tmp_path / "run")))
    assert params.keys() == saved.keys() and all(np.array_equal(params[path], saved[path]) for path in saved)
    assert record["fresh"] == [] and record["sources"][0]["left_behind"] == []


def test_a_whole_model_has_the_norms_of_its_source(tmp_path):
    own.save_run(tmp_path / "run", config())
    with pytest.raises(InputError, match=r"needs --model\.image\.norm group"):
        started(config(changes={"model.image.norm": "instance", **model_from(tmp_path / "run")}))


def test_the_record_tells_sides_and_cross_attention_apart(bert):
    _, record = started(config(bert, {"model.fusion.kind": "co_attention"}))
    assert "trunk/layer_*/text" in record["sources"][0]["taken"]
    fresh_layers = {name for name in record["fresh"] if name.startswith("trunk")}
    assert fresh_layers == {
        "trunk/layer_*/image", "trunk/layer_*/image/cross_attention", "trunk/layer_*/text/cross_attention",
    }  # fmt: skip
    _, record = started(config(bert, {"model.fusion.kind": "cross"}))
    assert {"trunk/image_layer_*", "trunk/text_layer_*/cross_attention"} <= set(record["fresh"])
    assert "trunk/text_layer_*" not in record["fresh"]


def test_a_damaged_checkpoint_is_no_source(tmp_path):
    own.save_run(tmp_path / "run", config())
    files = [path for path in (tmp_path / "run" / "checkpoints").rglob("*") if path.is_file()]
    file = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoints in .* are damaged"):
        started(config(tmp_path / "run"))


def test_visual_bert_starts_a_whole_model(tmp_path):
    """A published fusion model under a CNN of ours: everything but the CNN and the answers, which mean others."""
    from tests.weights import fixtures

    fixture = fixtures.BY_NAME["visual_bert_answers"].fixtures[-1]
    converted = read(str(fixtures.publish(fixture, tmp_path / "visual_bert")))
    source_leaves, model = flatten(converted.params), converted.architecture.model
    layout = {
        "max_position_embeddings": fixtures.POSITIONS,
        "max_image_positions": model.max_image_positions,
        "modality_type_vocab_size": 2,
    }
    trunk = ("hidden_size", "num_attention_heads", "num_layers", "intermediate_size")
    changes = {
        "image.size": (8, 8),  # four grid positions
        "model.text.vocab_size": fixtures.WORDS,
        "model.text.max_length": 8,
        "model.image.widths": (8, fixtures.FEATURES),
        "model.image.positions": "shared",
        "model.fusion.attention_pattern": "bidirectional",
        "model.fusion.head.kind": "token_before_sep",
        **model_from(tmp_path / "visual_bert"),
        **{f"model.layout.{name}": value for name, value in layout.items()},
        **{f"model.{name}": getattr(model, name) for name in trunk},
    }
    settings = config(changes=changes)
    params, record = started(settings)
    shared = [path for path in source_leaves if path in params]
    assert {"embed/image_fc/kernel", "embed/image_segment", "embed/image_position/embedding"} <= set(shared)
    assert all(np.array_equal(params[path], source_leaves[path]) for path in shared)
    assert set(record["fresh"]) == {"head/classifier", "image"}
    assert record["sources"][0]["left_behind"] == ["head/answers", "head/pooler"]
    wrong = config(changes=changes | {"model.layout.modality_type_vocab_size": 1})
    with pytest.raises(InputError, match=r"needs --model\.layout\.modality-type-vocab-size 2"):
        start(wrong, fresh(wrong), ())
    other = config(changes=changes | {"model.image.projection": "mlp"})
    with pytest.raises(InputError, match=r"needs --model\.image\.projection linear"):
        start(other, fresh(other), ())


@pytest.mark.parametrize("fusion", ["concat", "cross"])
def test_a_masked_word_head_starts_a_captioner(fusion, tmp_path):
    """BERT's head, tied to its word table, is what says the next word."""
    random, width = np.random.default_rng(3), own.SETTINGS["hidden_size"]
    head = {
        "transform.dense.weight": (width, width),
        "transform.dense.bias": (width,),
        "transform.LayerNorm.weight": (width,),
        "transform.LayerNorm.bias": (width,),
        "bias": (len(own.WORDS),),
    }
    weights = {f"bert.{name}": tensor for name, tensor in own.tensors().items() if not name.startswith("pooler")}
    weights |= {f"cls.predictions.{name}": random.normal(size=shape).astype(np.float32) for name, shape in head.items()}
    source = own.write(tmp_path / "bert", weights, architectures=["BertForMaskedLM"])
    questions = config(source)
    names = ("hidden_size", "num_attention_heads", "num_layers", "intermediate_size", "image", "text", "layout")
    model = captioning.Model(**{name: getattr(questions.model, name) for name in names})
    settings = captioning.Captioning(image=questions.image, model=model, init=questions.init)
    settings = with_changes(settings, {"model.fusion.kind": fusion})
    params, record = start(settings, fresh(settings), ())
    leaves = flatten(params)
    assert np.array_equal(leaves["head/words/bias"], weights["cls.predictions.bias"])
    kernel = weights["cls.predictions.transform.dense.weight"].T
    assert np.array_equal(leaves["head/words/transform/kernel"], kernel)
    assert record["sources"][0]["left_behind"] == []
    assert "head/words" not in record["fresh"]
