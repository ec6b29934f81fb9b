"""Beam search says what transformers' `generate` says, texts of every length, all of the best ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlm_jax.config.captioning import Beam
from vlm_jax.settings.changes import with_changes

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch", reason="transformers' torch model is the oracle")
benchmark = pytest.importorskip("experiments.benchmark_decode")

CASE = benchmark.Case("small", words=7, vocabulary=110, batch=6, beams=3)


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """Ours and theirs, tiny, with weights that make ends likely."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(benchmark.WIDTHS, "small", (32, 2, 4))
        file = tmp_path_factory.mktemp("peer") / "parameters.npz"
        benchmark.Own(CASE, file)
        leaves = dict(np.load(file))
        random = np.random.default_rng(0)
        for path, leaf in leaves.items():
            if not path.startswith("embed/text_fc"):  # the identity, which BERT has not
                leaves[path] = (leaf + random.normal(0, 0.1, leaf.shape)).astype(np.float32)
        leaves["head/words/bias"][benchmark.END] += 1.25
        np.savez(file, **leaves)
        yield leaves, benchmark.PeerSide(CASE, file), CASE.model


def ours(sides, settings):
    from vlm_jax.decoding import Decoder, Special
    from vlm_jax.models.vlm import VisualLanguageModel
    from vlm_jax.trees import unflatten

    leaves, _, model = sides
    special = Special(benchmark.BEGIN, benchmark.END, benchmark.PAD)
    decoder = Decoder(VisualLanguageModel(model, 1), settings, special, max_tokens=CASE.words)
    params = unflatten({path: jnp.asarray(leaf) for path, leaf in leaves.items()})
    return np.asarray(jax.device_get(decoder({"params": params}, jnp.asarray(CASE.image))).ids)


def target(sides, settings):
    _, peer, _ = sides
    same = ("min_length", "early_stopping", "length_penalty", "num_beams", "num_return_sequences")
    options = {name: getattr(settings, name) for name in same} | {"min_new_tokens": None}
    if settings.no_repeat_ngram_size:
        options["no_repeat_ngram_size"] = settings.no_repeat_ngram_size
    with torch.inference_mode():
        encoder_outputs = peer._model.encoder(inputs_embeds=peer._project(peer._image))
        generated = peer._model.generate(encoder_outputs=encoder_outputs, **(peer._options | options))[:, 1:].numpy()
    filled = np.full((len(generated), CASE.words), benchmark.PAD)
    filled[:, : generated.shape[1]] = generated
    ended = np.cumsum(filled == benchmark.END, axis=1) - (filled == benchmark.END)
    filled[ended > 0] = benchmark.PAD  # it fills up with either
    return filled.reshape(CASE.batch, settings.num_return_sequences, CASE.words)


BEAM = Beam(num_beams=3, num_return_sequences=3)
WAYS = {
    "patient": BEAM,
    "hasty": with_changes(BEAM, {"early_stopping": True}),
    # With two beams these differ, and from "hasty" too.
    "heuristic": Beam(num_beams=2, num_return_sequences=2, length_penalty=1.0, early_stopping=False),
    "never stopped early": Beam(num_beams=2, num_return_sequences=2, length_penalty=1.0),
    "long texts preferred": with_changes(BEAM, {"length_penalty": 2.0}),
    "short texts preferred": with_changes(BEAM, {"length_penalty": -1.0}),
    "long": with_changes(BEAM, {"min_length": 5}),
    "no repeats": with_changes(BEAM, {"no_repeat_ngram_size": 2}),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_best_texts_are_those_of_transformers(sides, way):
    np.testing.assert_array_equal(ours(sides, WAYS[way]), target(sides, WAYS[way]))


def test_texts_end_at_different_places(sides):
    """Or the comparison would show little."""
    generated = ours(sides, BEAM).reshape(-1, CASE.words)
    assert len({int((text != benchmark.PAD).sum()) for text in generated}) >= 4
    assert len({tuple(text) for text in generated}) >= 6
