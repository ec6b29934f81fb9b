"""The loaders: what is in a batch, exact resuming, sharding, and every question once in evaluation."""

import dataclasses
import itertools
import json
import threading
import time
from collections import Counter

import numpy as np
import pytest

from vlm_jax.data.answers import AnswerVocabulary
from vlm_jax.data.image_settings import AugmentedImages
from vlm_jax.data.images import decode_image, resize_image
from vlm_jax.data.loader import EvaluationBatches, ReadAhead, Shard, TrainLoader
from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.errors import InputError
from vlm_jax.types import Example, Text


def take(loader, count):
    return list(itertools.islice(loader, count))


def assert_equal(batches_a, batches_b):
    assert len(batches_a) == len(batches_b)
    for a, b in zip(batches_a, batches_b, strict=True):
        assert a.text_ids == b.text_ids
        for name in a.batch._fields:
            np.testing.assert_array_equal(getattr(a.batch, name), getattr(b.batch, name), err_msg=name)


@pytest.fixture
def make(splits, encoder):
    made = []

    def loader(examples=None, encode=None, **options):
        options = {"seed": 3, "batch_images": 8, "read_ahead": ReadAhead(2, 4)} | options
        made.append(TrainLoader(splits["train"][:50] if examples is None else examples, encode or encoder(), **options))
        return made[-1]

    yield loader
    for loader in made:
        loader.close()


def test_shapes_and_types_are_fixed(make):
    for loaded in take(make(), 12):
        batch = loaded.batch
        shapes = {name: (array.shape, array.dtype.name) for name, array in batch._asdict().items() if array is not None}
        assert shapes == {
            "image": ((8, 32, 32, 3), "uint8"),
            "input_ids": ((8, 10, 16), "int32"),
            "text_mask": ((8, 10, 16), "bool"),
            "answers": ((8, 10, 1), "int32"),
            "answer_weights": ((8, 10, 1), "float32"),
            "weight": ((8, 10), "float32"),
            "index": ((8,), "int32"),
        }
        np.testing.assert_array_equal(batch.index, np.arange(8))
        assert [len(row) for row in loaded.text_ids] == [10] * 8


def test_a_slot_holds_its_question(make, splits, encoder):
    encode = encoder()
    by_id = {question.text_id: question for example in splits["train"] for question in example.texts}
    home = {question.text_id: example for example in splits["train"] for question in example.texts}
    for loaded in take(make(encode=encode), 7):
        for i, k in itertools.product(range(8), range(10)):
            name, batch = loaded.text_ids[i][k], loaded.batch
            ids, mask = encode.tokenizer.encode([by_id[name].text if name else ""], 16)
            np.testing.assert_array_equal(batch.input_ids[i, k], ids[0])
            np.testing.assert_array_equal(batch.text_mask[i, k], mask[0])
            assert batch.weight[i, k] == batch.answer_weights[i, k].sum() == bool(name)
            if name:
                assert encode.answers.answers[batch.answers[i, k, 0]] == by_id[name].answers[0]
                assert home[name] is home[loaded.text_ids[i][0]]
            else:
                assert mask[0].sum() == 2


def test_an_epoch_visits_every_image_and_epochs_differ(make, splits, encoder):
    loader = make(encode=encoder(texts_per_image=25), batch_images=10)
    epochs = [[name for loaded in take(loader, 5) for row in loaded.text_ids for name in row] for _ in range(3)]
    every = Counter(question.text_id for example in splits["train"][:50] for question in example.texts)
    for epoch in epochs:
        assert Counter(filter(None, epoch)) == every
    assert epochs[0] != epochs[1] != epochs[2]


def test_questions_are_sampled_anew_without_replacement(make, splits, encoder):
    full = max(splits["train"][:50], key=lambda example: len(example.texts))
    loader = make([full], encoder(texts_per_image=4), batch_images=1)
    rows = [loaded.text_ids[0] for loaded in take(loader, 60)]
    assert all(len(set(row)) == 4 for row in rows)
    counts = Counter(name for row in rows for name in row)
    assert set(counts) == {question.text_id for question in full.texts}
    assert max(counts.values()) < 3 * 240 / len(counts)


def test_seed_and_step_decide_everything(make):
    first = take(make(), 20)
    assert_equal(first, take(make(read_ahead=ReadAhead(1, 1)), 20))
    assert_equal(first, take(make(read_ahead=ReadAhead(4, 16)), 20))
    other = take(make(seed=4), 20)
    assert [loaded.text_ids for loaded in other] != [loaded.text_ids for loaded in first]
    orders = [[loaded.text_ids for loaded in take(make(seed=seed, batch_images=10), 10)] for seed in (7, 8)]
    assert orders[0][5:] != orders[1][:5], "epoch 1 of a seed is epoch 0 of the next"


def test_augmentation_is_in_the_batch_and_changes(make, splits, encoder):
    encode = encoder()
    pixels = decode_image(splits["train"][0].image, max_pixels=10**6)
    plain = resize_image(pixels, encode.image).tobytes()
    images = [loaded.batch.image[0].tobytes() for loaded in take(make(splits["train"][:1], batch_images=1), 30)]
    assert len(set(images)) > 15
    still = encoder(image=AugmentedImages(size=(32, 32)))
    for loaded in take(make(splits["train"][:1], still, batch_images=1), 3):
        assert loaded.batch.image[0].tobytes() == plain


@pytest.mark.parametrize("taken", [0, 1, 9, 23])
def test_restoring_is_exact_while_reading_ahead(make, taken):
    batches = take(make(), 35)
    loader = make(read_ahead=ReadAhead(2, 8))
    take(loader, taken)
    time.sleep(0.1)  # let the threads run ahead
    state = json.loads(json.dumps(loader.state()))
    assert state["step"] == taken
    take(loader, 3)
    fresh = make(read_ahead=ReadAhead(2, 2))
    take(fresh, 5)  # a loader already in use can go anywhere, too
    fresh.restore(state)
    assert_equal(take(fresh, 12), batches[taken : taken + 12])
    loader.restore(state)
    assert_equal(take(loader, 12), batches[taken : taken + 12])
    assert loader.state()["step"] == taken + 12


def test_restoring_another_order_is_refused(make, splits):
    state = make().state()
    for change, name in (
        ({"seed": 4}, "seed"),
        ({"batch_images": 16}, "batch_images"),
        ({"examples": splits["train"][:49]}, "images"),
    ):
        with pytest.raises(InputError, match=name):
            make(**change).restore(state)
    with pytest.raises(InputError, match="seed"):
        make().restore({})


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_global_batch(make, processes):
    batches = take(make(), 9)
    parts = [take(make(shard=Shard(index, processes)), 9) for index in range(processes)]
    for step, loaded in enumerate(batches):
        mine = [part[step] for part in parts]
        assert [row for part in mine for row in part.text_ids] == loaded.text_ids
        for name in loaded.batch._fields[:-1]:
            union = np.concatenate([getattr(part.batch, name) for part in mine])
            np.testing.assert_array_equal(union, getattr(loaded.batch, name), err_msg=name)


def test_impossible_loaders_are_refused(make):
    for options, message in (
        ({"shard": Shard(count=3)}, "3 processes; the nearest batch is 9"),
        ({"examples": []}, "no image"),
    ):
        with pytest.raises(InputError, match=message):
            make(**options)


def test_a_batch_may_be_larger_than_the_data(make, splits):
    loaded = take(make(splits["train"][:3], batch_images=8), 2)
    assert [len(loaded_batch.text_ids) for loaded_batch in loaded] == [8, 8]


def test_waiting_is_counted_and_close_stops_the_threads(make):
    before = set(threading.enumerate())
    loader = make()
    take(loader, 3)
    own = [thread for thread in threading.enumerate() if thread not in before]
    assert loader.seconds_waited > 0 and own
    loader.close()
    deadline = time.monotonic() + 5
    while any(thread.is_alive() for thread in own) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(thread.is_alive() for thread in own)


def test_a_damaged_image_is_named_by_both_loaders(make, splits, encoder):
    examples = [splits["train"][0], splits["train"][1]._replace(image=splits["train"][1].image[:120])]
    name = f"image {examples[1].image_id} is"
    with pytest.raises(InputError, match=name):
        take(make(examples), 2)
    with pytest.raises(InputError, match=name):
        list(EvaluationBatches(examples, encoder(), batch_images=8))


def triples(loaded_batches, examples, answers):
    home = {question.text_id: example.image_id for example in examples for question in example.texts}
    return Counter(
        (home[name], name, answers.answers[loaded.batch.answers[i, k, 0]], loaded.batch.input_ids[i, k].tobytes())
        for loaded in loaded_batches
        for i, row in enumerate(loaded.text_ids)
        for k, name in enumerate(row)
        if name
    )


@pytest.mark.parametrize("batch_images", [1, 7, 64])
def test_evaluation_has_every_question_once_in_order(splits, encoder, batch_images):
    examples, encode = splits["validation"][:30], encoder(texts_per_image=4)
    batches = EvaluationBatches(examples, encode, batch_images=batch_images)
    for _ in range(2):  # can be run again
        loaded = list(batches)
        text_ids = [name for loaded_batch in loaded for row in loaded_batch.text_ids for name in row if name]
        assert text_ids == [question.text_id for example in examples for question in example.texts]
        assert len(loaded) == len(batches)
        assert {loaded_batch.batch.image.shape for loaded_batch in loaded} == {(batch_images, 32, 32, 3)}
    for loaded_batch in loaded:
        np.testing.assert_array_equal(
            loaded_batch.batch.weight, [[bool(name) for name in row] for row in loaded_batch.text_ids]
        )
        assert (loaded_batch.batch.text_mask.sum(-1) >= 2).all()


def test_evaluation_shows_the_right_image_unaugmented(splits, encoder):
    examples, encode = splits["validation"][:9], encoder(texts_per_image=3)
    home = {question.text_id: example for example in examples for question in example.texts}
    for loaded in EvaluationBatches(examples, encode, batch_images=4):
        for image, row in zip(loaded.batch.image, loaded.text_ids, strict=True):
            if row[0]:
                pixels = decode_image(home[row[0]].image, max_pixels=10**6)
                np.testing.assert_array_equal(image, resize_image(pixels, encode.image))


def test_the_number_of_slots_does_not_change_the_questions(splits, encoder):
    examples = splits["validation"][:40]
    seen = [
        triples(EvaluationBatches(examples, encode, batch_images=16), examples, encode.answers)
        for encode in (encoder(texts_per_image=k) for k in (1, 3, 10, 25))
    ]
    assert seen[0] == seen[1] == seen[2] == seen[3] and max(seen[0].values()) == 1


def test_the_last_batch_is_filled_with_weight_zero(splits, encoder):
    *_, last = EvaluationBatches(splits["validation"][:10], encoder(texts_per_image=25), batch_images=8)
    np.testing.assert_array_equal(last.batch.weight.sum(1) > 0, [True] * 2 + [False] * 6)
    assert (last.batch.answer_weights[2:] == 0).all() and last.text_ids[2:] == [[""] * 25] * 6


def test_abandoned_evaluation_leaves_no_thread(splits, encoder):
    before = threading.active_count()
    iterator = iter(EvaluationBatches(splits["validation"], encoder(), batch_images=2))
    next(iterator)
    iterator.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_several_answers_become_shares(splits, encoder):
    answers = ("yes",) * 5 + ("no",) * 3 + ("unheard of",) * 2
    questions = (
        Text("a", "is there a circle?", answers, "yes_no"),
        Text("b", "what is it?", ("unheard of",), "open"),
        Text("c", "silent", (), "open"),
    )
    examples = [Example("x", splits["test"][0].image, questions)]
    encode = encoder(texts_per_image=4)  # made for one answer a question: evaluation makes room for this split's
    (loaded,) = EvaluationBatches(examples, encode, batch_images=1)
    np.testing.assert_allclose(loaded.batch.answer_weights[0], [[0.5, 0.3, 0], [0] * 3, [0] * 3, [0] * 3], atol=1e-6)
    assert loaded.batch.answers[0, 0].tolist() == [encode.answers.index("yes"), encode.answers.index("no"), 0]
    np.testing.assert_array_equal(loaded.batch.weight[0], [1, 1, 1, 0])
    with pytest.raises(InputError, match="question a has 3 distinct answers"):
        encoder(accepted_answers=2)(examples[0])


def test_image_tokens_come_instead_of_pixels(splits, encoder):
    tokens = [np.full((2, 3), number, np.int32) for number in range(3)]
    examples = [
        Example(str(n), b"no image", (Text(str(n), "what?"),), image_tokens=row) for n, row in enumerate(tokens)
    ]
    (loaded,) = EvaluationBatches(examples, encoder(answers=None), batch_images=4)
    np.testing.assert_array_equal(loaded.batch.image_tokens, [*tokens, np.zeros((2, 3))])
    assert loaded.batch.image is None and loaded.batch.image_tokens.dtype == np.int32


def test_a_changed_encoder_forgets_what_it_encoded(splits, encoder):
    """Other lengths, answers and tokenizers than before the change."""
    encode, example = encoder(), splits["train"][0]
    before = encode(example)
    shorter = dataclasses.replace(encode, max_length=8, answers=AnswerVocabulary(["unheard of"]))
    after = shorter(example)
    assert after.input_ids.shape == (len(example.texts), 8) and before.input_ids.shape[1] == 16
    np.testing.assert_array_equal(after.input_ids, encoder(max_length=8)(example).input_ids)
    assert before.answer_weights.any() and not after.answer_weights.any()
    other = Tokenizer.build(["a tokenizer of other words"], 40)
    changed = dataclasses.replace(encode, tokenizer=other)(example)
    np.testing.assert_array_equal(changed.input_ids, other.encode([text.text for text in example.texts], 16)[0])


def test_a_data_set_too_large_to_keep_gives_the_same(make, monkeypatch):
    from vlm_jax.data import encoding

    expected = take(make(), 10)
    monkeypatch.setattr(encoding, "KEEP_BYTES", 0)
    loader = make()
    assert loader._load.examples._encoded is None
    assert_equal(take(loader, 10), expected)


def test_grain_brings_no_tensorflow():
    import subprocess
    import sys

    code = "import vlm_jax.data.loader, grain, sys; assert 'tensorflow' not in sys.modules and 'jax' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
