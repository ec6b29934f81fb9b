"""Training starts from a published image transformer: its parameters, its settings, its preprocessing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.weights import own
from vlm_jax.errors import InputError
from vlm_jax.models.vlm import VisualLanguageModel
from vlm_jax.training.initialization import start
from vlm_jax.trees import flatten
from vlm_jax.weights.import_folder import read, write_import

pytest.importorskip("torch", reason="torch writes the file")
pytest.importorskip("transformers", reason="transformers writes the file")

FITS = {
    "model.image.kind": "vit", "model.image.patch_size": 8, "model.image.image_size": (32, 32),
    "model.image.hidden_size": 24, "model.image.num_layers": 2, "model.image.num_attention_heads": 3,
    "model.image.intermediate_size": 48, "model.image.hidden_act": "quick_gelu", "model.image.layer_norm_eps": 1e-5,
    "model.image.patch_bias": False, "model.image.embedding_norm": True, "model.image.final_norm": "class_token",
    "image.mean": (0.48145466, 0.4578275, 0.40821073), "image.std": (0.26862954, 0.26130258, 0.27577711),
    "image.size": (16, 40),
}  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The folder of an import: CLIP's image side."""
    from tests.weights.test_image_transformers import publish

    folder = tmp_path_factory.mktemp("sources")
    published = publish("CLIPVisionModel", folder / "published")
    (published / "preprocessor_config.json").unlink()  # CLIP's own recipe holds
    write_import(read(str(published)), folder / "imported")
    return folder / "imported"


def config(source, **changes):
    return own.config(changes={"init.kind": "parts", "init.image": str(source)} | FITS | changes)


@pytest.mark.parametrize("output", ["grid", "class_token"])
def test_a_run_starts_with_its_parameters_and_computes_its_features(output, source):
    """Images of the run have another size than those of its positions."""
    settings = config(source, **{"model.image.output": output})
    params, record = start(settings, own.fresh(settings), ())
    converted = read(str(source))
    leaves = {path: x for path, x in flatten(converted.params).items() if path.startswith("image/")}
    taken = flatten(params)
    assert leaves and all(np.array_equal(taken[path], x) for path, x in leaves.items())
    assert {path for path in taken if path.startswith("image/")} == leaves.keys()
    assert record["sources"][0]["taken"] == ["image"] and record["sources"][0]["left_behind"] == []
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 40, 3)), jnp.float32)
    model = VisualLanguageModel(settings.architecture, 3)
    grid = model.apply({"params": params}, image, method="grid_features")
    published = converted.module.apply({"params": converted.params}, image)
    reference = (
        published.tokens[:, 1:].reshape(2, 2, 5, 24) if output == "grid" else published.class_token[:, None, None]
    )
    np.testing.assert_allclose(grid, reference, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.image.hidden_act": "gelu"}, "--model.image.hidden-act quick_gelu"),
        ({"model.image.embedding_norm": False}, "--model.image.embedding-norm true"),
        ({"model.image.image_size": None}, "--model.image.image-size 32 32"),
        ({"model.image.final_norm": "every_token"}, "--model.image.final-norm class_token"),
        ({"image.mean": (0.5, 0.5, 0.5)}, "--image.mean 0.481455 0.457827 0.408211"),
        ({"model.image.kind": "small"}, "--model.image.kind vit"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes, words, source):
    if changes == {"model.image.kind": "small"}:
        settings = own.config(changes={"init.kind": "parts", "init.image": str(source)} | changes)
    else:
        settings = config(source, **changes)
    with pytest.raises(InputError, match=words):
        start(settings, jax.eval_shape(lambda: own.fresh(settings)), ())


def test_a_run_is_a_source_of_its_image_encoder(source, tmp_path):
    settings = own.config(changes=FITS | {"image.size": (16, 16), "model.image.image_size": None})
    leaves = own.save_run(tmp_path / "run", settings)
    same = config(tmp_path / "run", **{"image.size": (16, 16), "model.image.image_size": None})
    params, _ = start(same, own.fresh(same), ())
    assert all(np.array_equal(x, leaves[path]) for path, x in flatten(params).items() if path.startswith("image/"))
    other = config(tmp_path / "run", **{"image.size": (32, 16), "model.image.image_size": None})
    with pytest.raises(InputError, match=r"--model.image.image-size 16 16"):
        start(other, own.fresh(other), ())
