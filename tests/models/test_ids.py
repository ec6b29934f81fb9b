"""What no table has a row for is an error, not NaN; RoBERTa counts tokens, not places."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.weights import fixtures, own
from tests.weights.fixtures import BY_NAME
from vlm_jax.errors import InputError
from vlm_jax.models.ids import check_ids
from vlm_jax.models.pretrained import check_text
from vlm_jax.weights.checks import BOUND, score
from vlm_jax.weights.converted_model import ConvertedModel
from vlm_jax.weights.import_folder import read

TEXT = np.array([[5, 6, 7]], np.int32)


class Port(NamedTuple):
    """A fixture in its folder, as a port, with its compiled program."""

    converted: ConvertedModel
    folder: Path
    compiled: Callable


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """Ports of fixtures by name, each read once."""
    ports = {}

    def make(name):
        if name not in ports:
            folder = tmp_path_factory.mktemp("published") / name
            converted = read(str(fixtures.publish(BY_NAME[name].fixtures[-1], folder)))
            ports[name] = Port(converted, folder, jax.jit(lambda ids, mask: run(converted, ids, mask).text))
        return ports[name]

    return make


def run(converted, ids, mask=None, **more):
    """Compiled or not; every token is visible where there is no mask."""
    mask = jnp.ones(np.shape(ids), bool) if mask is None else mask
    more = {name: jnp.asarray(x) for name, x in more.items()}
    return converted.module.apply({"params": converted.params}, jnp.asarray(ids, jnp.int32), mask, **more)


def refusal(call, *arguments, **more):
    with pytest.raises(InputError) as caught:
        call(*arguments, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


NAMES = ["bert", "roberta", "distilbert", "visual_bert"]


@pytest.mark.parametrize("name", NAMES)
def test_an_id_without_a_row(name, port):
    converted, _, compiled = port(name)
    for wrong in (fixtures.WORDS, -1, 2**31 - 1):
        ids = np.array([[5, 6, 7], [5, wrong, 7]], np.int32)
        line = refusal(run, converted, ids)
        assert str(wrong) in line and str(fixtures.WORDS - 1) in line
        assert refusal(check_text, converted.architecture.model, ids) == line
    ids[1, 1] = fixtures.WORDS - 1
    check_text(converted.architecture.model, ids)
    assert np.isfinite(compiled(ids, ids >= 0)).all()


@pytest.mark.parametrize("name", NAMES)
def test_more_tokens_than_positions(name, port):
    """Compiled or not; the longest text that fits is computed."""
    converted, _, compiled = port(name)
    ids = np.full((1, fixtures.POSITIONS + 1), 5, np.int32)
    for call in (run, lambda _, ids: compiled(ids, ids > 0)):
        assert str(converted.architecture.model.max_position_embeddings) in refusal(call, converted, ids)
    longest = ids[:, : fixtures.POSITIONS]
    assert np.isfinite(compiled(longest, longest > 0)).all()


def test_a_token_type_without_a_row(port):
    converted, _, _ = port("bert")
    for wrong in (2, -1):
        kinds = np.array([[0, 1, wrong]], np.int32)
        line = refusal(run, converted, TEXT, segments=kinds)
        assert str(wrong) in line and refusal(check_text, converted.architecture.model, TEXT, kinds) == line
    check_text(converted.architecture.model, TEXT, np.array([[0, 1, 1]]))


def test_token_types_where_there_are_none(port):
    converted, _, _ = port("distilbert")
    assert "no token types" in refusal(run, converted, TEXT, segments=np.zeros((1, 3), np.int32))
    assert "no token types" in refusal(check_text, converted.architecture.model, TEXT, np.zeros((1, 3), np.int32))


def test_more_grid_features_than_positions(port):
    converted, _, _ = port("visual_bert")
    most = converted.architecture.model.max_image_positions
    features = np.ones((1, most + 1, fixtures.FEATURES), np.float32)
    assert str(most) in refusal(run, converted, TEXT, image=features)
    assert jax.eval_shape(lambda: run(converted, TEXT, image=features[:, :most])).image.shape[1] == most


def test_ids_of_a_model_of_ones_own():
    """`VisualLanguageModel` looks at them too, outside of a compiled program."""
    from vlm_jax.models.vlm import VisualLanguageModel

    settings = own.config()
    params = own.fresh(settings)
    model, image = VisualLanguageModel(settings.architecture, 3), jnp.zeros((1, 16, 16, 3))

    def answer(ids):
        ids = jnp.array([[ids]], jnp.int32)
        return model.apply({"params": params}, image, ids, jnp.ones(ids.shape, bool), method="task_logits")

    assert str(len(own.WORDS)) in refusal(answer, [2, len(own.WORDS), 3])
    assert "positions" in refusal(answer, [5] * 21)


def test_image_tokens_without_a_row():
    from vlm_jax.config.quantizers import FSQ
    from vlm_jax.models.image_token_vectors import ImageTokenVectors

    vectors = ImageTokenVectors(FSQ(levels=(3, 3)), 8, std=1.0)
    params = vectors.init(jax.random.key(0), jnp.array([0]), method="embed")
    assert vectors.apply(params, jnp.array([8]), method="embed").shape == (1, 8)
    for wrong in (9, -1):
        assert str(wrong) in refusal(vectors.apply, params, jnp.array([wrong]), method="embed")


def test_ids_that_have_no_values_yet():
    """Inside a compiled program nothing can be looked at, and an empty batch has none."""
    jax.jit(lambda ids: check_ids(ids, 3, "id") or ids)(np.array([7]))
    check_ids(np.zeros((0, 4), np.int32), 3, "id")


# RoBERTa's positions

PADDED = {  # 1 is padding, as its config.json says
    "right": [[0, 5, 6, 7, 2, 1, 1], [0, 5, 2, 1, 1, 1, 1]],
    "left": [[1, 1, 0, 5, 6, 7, 2], [1, 1, 1, 1, 0, 5, 2]],
    "middle": [[0, 5, 1, 1, 6, 7, 2], [0, 1, 5, 1, 6, 1, 2]],
}


@pytest.mark.parity
@pytest.mark.parametrize("seen", [True, False], ids=["padding seen", "padding hidden"])
@pytest.mark.parametrize("side", PADDED)
@pytest.mark.parametrize("name", ["roberta", "bert"])
def test_positions_are_the_published_ones(name, side, seen, port):
    """RoBERTa counts tokens that are not padding, BERT places."""
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    import transformers

    _, folder, compiled = port(name)
    ids = np.array(PADDED[side], np.int32)
    mask = np.ones(ids.shape, bool) if seen else ids != 1
    kind = getattr(transformers, fixtures.transformers_class(BY_NAME[name]))
    model = kind.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    with torch.no_grad():
        target = model(torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long()).last_hidden_state.numpy()
    ours = np.asarray(compiled(ids, mask))
    assert score(ours[mask], target[mask]) <= BOUND


def test_where_padding_stands_does_not_matter_to_roberta(port):
    _, _, compiled = port("roberta")
    states = []
    for side in ("right", "left"):
        ids = np.array(PADDED[side], np.int32)
        states.append(np.asarray(compiled(ids, ids != 1))[ids != 1])
    assert score(states[1], states[0]) <= BOUND
