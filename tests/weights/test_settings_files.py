"""Settings files beside published weights: pooled as they say, prepared as they say, refused by name, handed on."""

import json

import numpy as np
import pytest

from tests.data.scripts import settings
from tests.weights import fixtures, own
from vlm_jax.data.image_settings import CenterCrop, ImageInput, Stretch
from vlm_jax.data.tokenizer_settings import read_settings
from vlm_jax.data.wordpiece import bert_tokenizer
from vlm_jax.errors import InputError
from vlm_jax.run_folder import open_run
from vlm_jax.training.acceptance import accept
from vlm_jax.training.pretrained import open_pretrained, text_side_of_run
from vlm_jax.weights.export import export
from vlm_jax.weights.family import labels_of
from vlm_jax.weights.import_folder import read, read_import, write_import
from vlm_jax.weights.preprocessor import read_preprocessor
from vlm_jax.weights.sentences import LEGACY, MODES, pooled, sentence_settings
from vlm_jax.weights.settings_files import read_settings_files, write_settings_files
from vlm_jax.weights.text_encoder import TextEncoder

TEXTS = ["is there a circle?", "what", "", "is there a shape? the circle color is a circle"]
TRANSFORMER = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
NORMALIZE = {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
NEWER = {
    "idx": 1,
    "name": "1",
    "path": "1_Pooling",
    "type": "sentence_transformers.sentence_transformer.modules.Pooling",
}
WIDTH = own.SETTINGS["hidden_size"]


def legacy(*on, width=WIDTH):
    return {"word_embedding_dimension": width, **{key: mode in on for key, mode in LEGACY.items()}}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return own.write(tmp_path_factory.mktemp("published") / "bert")


@pytest.fixture(scope="module")
def encoder(published):
    return TextEncoder(read(str(published)))


def embedded(encoder, settings_files, texts=TEXTS, limit=None, **options):
    """The vectors of an encoder beside which other files lie, so that the model is compiled once."""
    encoder._settings_files, encoder._limit = settings_files, limit
    encoder.__dict__.pop("sentences", None)
    return encoder.embed(texts, **options)


def states_of(encoder, texts=TEXTS, length=16):
    ids, mask = encoder.tokenizer.encode(texts, length)
    return np.asarray(encoder._run(encoder.params, ids, mask, None).text), mask


def expected(encoder, mode, texts=TEXTS, length=16):
    """The formula of each mode, one text after the other."""
    states, mask = states_of(encoder, texts, length)
    vectors = []
    for state, real in zip(states, mask, strict=True):
        own_states = state[real].astype(np.float64)
        places = np.arange(1, len(own_states) + 1)[:, None]
        vectors.append(
            {
                "cls": own_states[0],
                "max": own_states.max(0),
                "mean": own_states.mean(0),
                "mean_sqrt_len_tokens": own_states.sum(0) / np.sqrt(len(own_states)),
                "weightedmean": (own_states * places).sum(0) / places.sum(),
                "lasttoken": own_states[-1],
            }[mode]
        )
    return np.stack(vectors)


@pytest.mark.parametrize("mode", MODES)
def test_a_text_is_pooled_as_in_the_file(mode, encoder):
    for config in (legacy(mode), {"embedding_dimension": WIDTH, "pooling_mode": mode, "include_prompt": True}):
        vectors = embedded(encoder, {"1_Pooling/config.json": config}, normalize=False)
        np.testing.assert_allclose(vectors, expected(encoder, mode), atol=2e-6)
    others = [expected(encoder, other) for other in MODES if other != mode]
    assert all(np.abs(vectors - other).max() > 0.05 for other in others)


def test_several_ways_are_put_one_behind_the_other(encoder):
    vectors = embedded(encoder, {"1_Pooling/config.json": legacy("mean", "cls")}, normalize=False)
    both = np.concatenate([expected(encoder, "cls"), expected(encoder, "mean")], axis=1)
    np.testing.assert_allclose(vectors, both, atol=2e-6)


@pytest.mark.parametrize("pooling", [POOLING, NEWER], ids=["old names", "new names"])
def test_vectors_are_normalized_by_the_module(pooling, encoder):
    settings_files = {"1_Pooling/config.json": legacy("cls")}
    plain = embedded(encoder, settings_files | {"modules.json": [TRANSFORMER, pooling]})
    np.testing.assert_allclose(plain, expected(encoder, "cls"), atol=2e-6)
    made = embedded(encoder, settings_files | {"modules.json": [TRANSFORMER, pooling, NORMALIZE]})
    np.testing.assert_allclose(made, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-6)
    vectors = embedded(encoder, settings_files | {"modules.json": [TRANSFORMER, pooling]}, normalize=True)
    np.testing.assert_allclose(vectors, made, atol=1e-6)
    left = embedded(encoder, settings_files | {"modules.json": [TRANSFORMER, pooling, NORMALIZE]}, normalize=False)
    np.testing.assert_allclose(left, plain, atol=1e-6)


def test_texts_are_cut_at_the_length_of_the_files(encoder):
    for name in ("sentence_bert_config.json", "sentence_roberta_config.json", "sentence_distilbert_config.json"):
        settings_files = {name: {"max_seq_length": 5, "do_lower_case": False}}
        np.testing.assert_allclose(
            embedded(encoder, settings_files, normalize=False), expected(encoder, "mean", length=5), atol=2e-6
        )
    assert np.abs(expected(encoder, "mean", length=5) - expected(encoder, "mean")).max() > 0.05
    by_tokenizer = embedded(encoder, {}, limit=5, normalize=False)  # model_max_length of tokenizer_config.json
    np.testing.assert_allclose(by_tokenizer, expected(encoder, "mean", length=5), atol=2e-6)
    vectors = embedded(encoder, settings_files, normalize=False, max_length=9)
    np.testing.assert_allclose(vectors, expected(encoder, "mean", length=9), atol=2e-6)


def test_the_prompt_and_small_letters_are_obeyed(encoder):
    about = {"prompts": {"query": "what color? ", "other": "x"}, "default_prompt_name": "query"}
    vectors = embedded(encoder, {"config_sentence_transformers.json": about}, normalize=False)
    wanted = expected(encoder, "mean", [f"what color? {text}" for text in TEXTS])
    np.testing.assert_allclose(vectors, wanted, atol=2e-6)
    seen = []
    encode = encoder.tokenizer.encode
    encoder.tokenizer.encode = lambda texts, length: (seen.extend(texts), encode(texts, length))[1]
    try:
        embedded(encoder, {"sentence_bert_config.json": {"do_lower_case": True}}, ["IS ÀΣ"])
    finally:
        del encoder.tokenizer.encode
    assert seen == ["is àσ"]


REFUSED = [
    ("1_Pooling/config.json", {"pooling_mode": "median"}, "median"),
    ("1_Pooling/config.json", legacy("cls", width=99), "word_embedding_dimension"),
    ("1_Pooling/config.json", {"pooling_mode_cls_token": "yes"}, "pooling_mode_cls_token"),
    ("1_Pooling/config.json", {"pooling_mode_first": True}, "pooling_mode_first"),
    ("1_Pooling/config.json", [], "1_Pooling/config.json"),
    ("sentence_bert_config.json", {"max_seq_length": "many"}, "max_seq_length"),
    ("sentence_bert_config.json", {"max_seq_length": 0}, "max_seq_length"),
    ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task"),
    ("sentence_bert_config.json", {"tokenizer_args": {"do_lower_case": True}}, "tokenizer_args"),
    ("sentence_bert_config.json", {"query_expansion": {"n": 3}}, "query_expansion"),
    ("sentence_bert_config.json", {"novelty": 1}, "novelty"),
    ("config_sentence_transformers.json", {"default_prompt_name": "query"}, "default_prompt_name"),
    ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "model_type"),
    ("config_sentence_transformers.json", {"truncate_dim": 8}, "truncate_dim"),
    ("modules.json", [TRANSFORMER], "modules.json"),
    ("modules.json", [TRANSFORMER, POOLING], "1_Pooling/config.json"),
    ("modules.json", [TRANSFORMER, NORMALIZE, POOLING], "modules.json"),
]


@pytest.mark.parametrize(("name", "config", "word"), REFUSED, ids=[f"{name} {word}" for name, _, word in REFUSED])
def test_what_cannot_be_pooled_is_refused_by_name(name, config, word):
    with pytest.raises(InputError) as error:
        sentence_settings({name: config}, WIDTH)
    assert word in str(error.value) and name in str(error.value) and "\n" not in str(error.value)


def test_a_prompt_that_is_not_pooled_is_refused():
    about = {"prompts": {"q": "a "}, "default_prompt_name": "q"}
    settings_files = {"config_sentence_transformers.json": about, "1_Pooling/config.json": legacy("mean")}
    assert sentence_settings(settings_files, WIDTH).prompt == "a "
    settings_files["1_Pooling/config.json"]["include_prompt"] = False
    with pytest.raises(InputError, match="include_prompt"):
        sentence_settings(settings_files, WIDTH)


def test_padding_is_not_pooled():
    states = np.float32([[[1, -5], [3, -1], [900, 900]]])
    mask = np.array([[True, True, False]])
    for mode, vector in {"max": [3, -1], "mean": [2, -3], "lasttoken": [3, -1], "cls": [1, -5]}.items():
        assert pooled(states, mask, (mode,)).tolist() == [vector]


# Files


def write(folder, **files):
    """Files by their paths, `__` for a slash and `.json` left out."""
    for name, value in files.items():
        path = folder / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value), encoding="utf-8")
    return folder


def test_files_travel_into_an_import_and_out_with_an_export(tmp_path):
    folder = own.write(tmp_path / "bert")
    write(folder, modules=[TRANSFORMER, POOLING, NORMALIZE], sentence_bert_config={"max_seq_length": 5})
    write(folder, **{"1_Pooling__config": legacy("cls"), "config_sentence_transformers": {"prompts": {"é": "ö"}}})
    settings(folder, strip_accents=False, model_max_length=7)
    settings(folder, "added_tokens.json", **{"[MASK]": 4})
    write_import(read(str(folder)), tmp_path / "import")
    export(read_import(tmp_path / "import"), tmp_path / "export")
    wanted = read_settings_files(folder)
    assert set(wanted) == {
        "modules.json", "sentence_bert_config.json", "1_Pooling/config.json", "config_sentence_transformers.json",
    }  # fmt: skip
    for place in ("import", "export"):
        assert read_settings_files(tmp_path / place) == wanted, place
        assert read_settings(tmp_path / place).switches == {"strip_accents": False}
        assert read_settings(tmp_path / place).added[0].content == "[MASK]"
    vectors = [TextEncoder(read(str(tmp_path / place))).embed(TEXTS[:2]) for place in ("bert", "import", "export")]
    np.testing.assert_array_equal(vectors[0], vectors[1])
    np.testing.assert_array_equal(vectors[0], vectors[2])


def test_an_encoder_in_a_folder_of_its_own_has_the_files_above_it(tmp_path):
    inner = own.write(tmp_path / "0_Transformer")
    write(inner, sentence_bert_config={"max_seq_length": 6})
    modules = [TRANSFORMER | {"path": "0_Transformer"}, POOLING | {"path": "1_Other"}]
    write(tmp_path, modules=modules, **{"1_Other__config": legacy("max")})
    settings_files = read_settings_files(inner)
    assert sentence_settings(settings_files, WIDTH)[:3] == (("max",), False, 6)
    write_settings_files(settings_files, tmp_path / "flat" if (tmp_path / "flat").mkdir() is None else None)
    assert sentence_settings(read_settings_files(tmp_path / "flat"), WIDTH)[:3] == (("max",), False, 6)


def test_a_module_with_weights_of_its_own_is_refused_until_it_is_taken_out(tmp_path):
    dense = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    write(tmp_path, modules=[TRANSFORMER, POOLING, dense], **{"1_Pooling__config": legacy("mean")})
    with pytest.raises(InputError, match=r"2_Dense.*take its entry out"):
        read_settings_files(tmp_path)
    write(tmp_path, modules=[TRANSFORMER, POOLING])
    assert not sentence_settings(read_settings_files(tmp_path), WIDTH).normalize


@pytest.mark.parametrize("path", ["../outside", "/etc", "a/b"])
def test_a_module_does_not_lead_out_of_the_folder(path, tmp_path):
    write(tmp_path / "outside", config=legacy("cls"))
    folder = write(tmp_path / "in", modules=[TRANSFORMER, POOLING | {"path": path}])
    assert set(read_settings_files(folder)) == {"modules.json"}
    with pytest.raises(InputError, match="not there"):
        sentence_settings(read_settings_files(folder), WIDTH)


@pytest.mark.parametrize("text", ["{", "[3]", '{"a": 1}', '[{"type": "Transformer"}]'])
def test_modules_that_are_none_are_refused(text, tmp_path):
    (tmp_path / "modules.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"modules\.json"):
        read_settings_files(tmp_path)


# Images


RESNET = {  # as microsoft/resnet-50 has it
    "crop_pct": 0.875, "do_normalize": True, "do_resize": True, "feature_extractor_type": "ConvNextFeatureExtractor",
    "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3, "size": 224,
}  # fmt: skip
SQUARE = {
    "image_processor_type": "ViTImageProcessor", "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4],
    "resample": 2, "size": {"height": 96, "width": 128}, "rescale_factor": 0.00392156862745098,
}  # fmt: skip


def preprocessor(config):
    return read_preprocessor({"preprocessor_config.json": config})


def sizes(config):
    """Of what the network sees, and of the short side before the centre is cut out."""
    image_input = preprocessor(config)
    return image_input.size, getattr(image_input.resize, "short_side", None)


def test_an_image_is_preprocessed_as_in_the_file():
    colours = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    assert preprocessor(RESNET) == ImageInput(
        size=(224, 224), resize=CenterCrop(short_side=256, corner="floored"), **colours
    )
    whole = preprocessor(RESNET | {"size": {"shortest_edge": 384}})
    assert whole == ImageInput(size=(384, 384), resize=Stretch(), **colours)
    assert preprocessor(RESNET | {"size": 288, "crop_pct": 0.95}).resize.short_side == 303
    square = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    assert preprocessor(SQUARE) == ImageInput(size=(96, 128), resize=Stretch(resample="bilinear"), **square)
    cut = {"size": {"shortest_edge": 232}, "crop_size": {"height": 224, "width": 220}, "do_center_crop": True}
    assert sizes(SQUARE | cut) == ((224, 220), 232)
    assert read_preprocessor({}) is None
    with pytest.raises(InputError, match="crop_size"):  # transformers would put black around it
        preprocessor(SQUARE | cut | {"size": {"shortest_edge": 200}})


def test_transformers_reads_the_same_sizes():
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

    options = {name: RESNET[name] for name in ("crop_pct", "image_mean", "image_std", "resample")}
    reference = ConvNextImageProcessorPil(**options, size={"shortest_edge": 224})
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    assert reference(image, return_tensors="np")["pixel_values"].shape[2:] == preprocessor(RESNET).size
    image_input = preprocessor(RESNET)
    assert (image_input.mean, image_input.std) == (tuple(reference.image_mean), tuple(reference.image_std))


@pytest.mark.parametrize(
    ("name", "size", "side"),
    [
        ("BitImageProcessor", (224, 224), 224),
        ("CLIPImageProcessor", (224, 224), 224),
        ("ConvNextImageProcessor", (384, 384), None),
        ("EfficientNetImageProcessor", (346, 346), None),
        ("MobileNetV2ImageProcessor", (224, 224), 256),
        ("ViTImageProcessor", (224, 224), None),
        ("SiglipImageProcessor", (224, 224), None),
        ("DeiTImageProcessor", (224, 224), None),
    ],
)
def test_what_processors_of_transformers_save_is_read(name, size, side, tmp_path):
    import transformers

    getattr(transformers, f"{name}Pil")().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text(encoding="utf-8"))
    assert saved["image_processor_type"] == name
    assert sizes(saved) == (size, side)
    assert preprocessor(saved).mean == tuple(saved["image_mean"])


@pytest.mark.parametrize("name", ["CLIPFeatureExtractor", "BitImageProcessor", "MobileNetV2FeatureExtractor"])
def test_a_size_of_one_number_is_the_short_side_where_transformers_takes_it_so(name):
    recipe = SQUARE | {"feature_extractor_type": name, "size": 232, "crop_size": 224}
    recipe.pop("image_processor_type")
    assert sizes(recipe) == ((224, 224), 232)
    with pytest.raises(InputError, match="do_center_crop"):
        preprocessor(recipe | {"do_center_crop": False})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("resample", 9), ("resample", None), ("image_mean", None), ("image_mean", [0.5]), ("image_std", [0, 1, 1]),
        ("rescale_factor", 1.0), ("do_rescale", False), ("do_normalize", False), ("do_resize", False), ("size", -1),
        ("size", {"longest_edge": 9}), ("crop_pct", 2), ("do_pad", True), ("do_center_crop", True),
        ("feature_extractor_type", "DetrFeatureExtractor"),
    ],
)  # fmt: skip
def test_a_recipe_that_is_not_known_is_refused_by_name(key, value):
    with pytest.raises(InputError, match=value if isinstance(value, str) else key):
        preprocessor(RESNET | {key: value})


# Classes


def test_classes_keep_their_names():
    assert labels_of({"id2label": {"1": "dog", "0": "cat", "2": "LABEL_2"}}, 3) == ("cat", "dog", "LABEL_2")
    assert labels_of({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, 2) == ()
    assert labels_of({}, 2) == () and labels_of({"id2label": {"0": "cat"}}, 0) == ()


@pytest.mark.parametrize("named", [{"0": "cat"}, {"0": "cat", "2": "dog"}, {"0": "cat", "1": 3}, ["cat", "dog"]])
def test_classes_that_do_not_fit_are_refused(named):
    with pytest.raises(InputError, match="id2label"):
        labels_of({"id2label": named}, 2)


@pytest.mark.parametrize("name", ["visual_bert_answers", "resnet18"])
def test_labels_and_recipe_come_back_from_an_export(name, tmp_path):
    """The names of the classes were LABEL_0, LABEL_1, ... in an export."""
    fixture = fixtures.BY_NAME[name].fixtures[0]
    count = fixtures.CLASSES if name == "resnet18" else fixtures.ANSWERS
    labels = [f"answer {index}" for index in range(count)]
    named = {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}
    config = fixtures.config(fixture.case) | json.loads(json.dumps(named))
    folder = fixtures.write(tmp_path / "published", fixtures.tensors(fixture), config)
    recipe = RESNET | {"size": 160, "image_mean": [0.1, 0.2, 0.3]}
    write(folder, preprocessor_config=recipe)
    write_import(read(str(folder)), tmp_path / "import")
    converted = read_import(tmp_path / "import")
    assert converted.labels == tuple(labels)
    export(converted, tmp_path / "export")
    exported = json.loads((tmp_path / "export" / "config.json").read_text(encoding="utf-8"))
    assert {key: exported[key] for key in named} == {key: config[key] for key in named}
    assert json.loads((tmp_path / "export" / "preprocessor_config.json").read_text(encoding="utf-8")) == recipe
    if name == "resnet18":
        assert converted.architecture.input.size == (160, 160) and converted.architecture.input.mean == (0.1, 0.2, 0.3)
    else:
        assert open_pretrained(str(tmp_path / "import")).answers == tuple(labels)
    (folder / "config.json").write_text(json.dumps(config | {"id2label": {"0": "no"}}), encoding="utf-8")
    with pytest.raises(InputError, match="take id2label out"):
        read(str(folder))
    (folder / "config.json").write_text(json.dumps(fixtures.config(fixture.case)), encoding="utf-8")
    assert read(str(folder)).labels == ()


def test_the_export_of_a_run_has_its_tokenizer_settings(tmp_path):
    """Without a tokenizer_config.json transformers lower-cases, also where the run did not."""
    own.save_run(tmp_path / "run", own.config())
    vocabulary = {word: index for index, word in enumerate(own.WORDS)}
    bert_tokenizer(vocabulary, lower_case=False).save(str(tmp_path / "run" / "tokenizer.json"))
    accept(open_run(tmp_path / "run"))
    export(text_side_of_run(tmp_path / "run"), tmp_path / "export")
    assert read_settings(tmp_path / "export").switches["do_lower_case"] is False
