"""Images as image tokens, and image tokens from prompts: what the tasks learn, keep and refuse."""

import dataclasses
import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import evaluate, predict
from tests.parameters import random_parameters
from tests.tasks.conftest import SOME, generation_config, tokenizer_config
from vlm_jax.ablation.run_identity import begin_trained, training
from vlm_jax.config.optimizers import Muon
from vlm_jax.config.quantizers import FSQ, VQ
from vlm_jax.data.batches import Row, make_batch
from vlm_jax.data.datasets.easy_vqa import EasyVQA
from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.data.image_settings import ImageInput
from vlm_jax.data.images import normalise
from vlm_jax.data.sources import open_split
from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.decoding import mask_tokens
from vlm_jax.errors import InputError
from vlm_jax.run_claim import claim
from vlm_jax.run_folder import IMAGE_TOKENIZER as TOKENIZER
from vlm_jax.run_folder import RunFolder
from vlm_jax.settings.changes import with_changes
from vlm_jax.tasks.image_generation import MASK, ImageGeneration
from vlm_jax.tasks.image_token_loss import token_losses
from vlm_jax.tasks.image_tokenizer import ENCODE, ImageTokenization, Reconstructed
from vlm_jax.tasks.trained_tokenizer import TrainedTokenizer
from vlm_jax.training import loop
from vlm_jax.training.loop import Interrupted, Trainer
from vlm_jax.training.setup import load_trained, make_encoder
from vlm_jax.types import Example


def test_a_tokenizer_learns_and_writes_a_contact_sheet_after_each_validation(tokenizer_run):
    rows = [json.loads(line) for line in (tokenizer_run.path / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0] / 2 and "accuracy" not in rows[0]
    metrics = tokenizer_run.result()["metrics"]
    assert 0 < metrics["tokens_stable"] < 1
    assert metrics.keys() - {"baseline/mean_colour/psnr"} == set(ImageTokenization.scores)
    early, late = (row["validation/psnr"] for row in rows if "validation/psnr" in row)
    assert late > early and metrics["baseline/mean_colour/psnr"] > 10
    assert {"validation-20.png", "validation-40.png", "predictions.png"} <= {
        f.name for f in tokenizer_run.path.iterdir()
    }


def test_the_encoder_learns_from_noise_and_what_it_is_held_against_has_none(tokenizer_run):
    config = tokenizer_run.config()
    encode = make_encoder(config, tokenizer_run)
    noisy = with_changes(config, {"image_tokenizer.noise": 20.0})
    plain, task = (ImageTokenization(settings, encode) for settings in (config, noisy))
    params, examples = plain.init_params(jax.random.key(0)), plain.prepare(open_split(config.data, "test"))
    batch = make_batch([Row(plain.encode(examples[i]), range(1)) for i in range(4)], plain.encode, size=4).batch
    image = normalise(batch.image, config.image)
    batch, keys = jax.device_put(batch), jax.random.split(jax.random.key(1), 4)
    own = jax.vmap(lambda key: jax.random.fold_in(key, ENCODE))(keys)
    noise = task._noise(own, batch.image.shape[1:], 20.0)
    assert float(noise.std()) == pytest.approx(20 / 255 / config.image.std[0], rel=0.02)
    assert len({float(each.sum()) for each in noise}) == 4
    seen = task.model.apply({"params": params}, image + noise)
    wanted = float(jnp.square(seen.image - image).mean((1, 2, 3)).sum())
    assert float(task.loss_sums(params, batch, keys).loss) == pytest.approx(wanted, rel=1e-5)
    assert float(plain.loss_sums(params, batch, keys).loss) != pytest.approx(wanted, rel=1e-5)


def test_a_run_keeps_its_tokenizer(generation_run, tokenizer_run, directory):
    config = tokenizer_run.config()
    task, params, _ = load_trained(config, tokenizer_run, make_encoder(config, tokenizer_run), which="best")
    kept = TrainedTokenizer(generation_run.path / TOKENIZER)
    assert (kept.grid, kept.codebook_size) == ((8, 8), 48) and kept.settings == config.image_tokenizer
    test = open_split(config.data, "test")
    tokens = kept.encode(test, task.encode)
    rows = task.predict(params, task.prepare(test))
    np.testing.assert_array_equal(tokens, [row.tokens for row in rows])
    decoded = kept.decode(tokens).astype(int)
    np.testing.assert_allclose(
        decoded, [row.reconstruction for row in rows], rtol=0, atol=1
    )  # levels: batches round apart


def test_a_data_sets_codes_are_computed_once(generation_run, directory, monkeypatch):
    tokenizer = TrainedTokenizer(generation_run.path / TOKENIZER)
    config = generation_run.config()
    encode = dataclasses.replace(make_encoder(config, generation_run), texts_per_image=1)
    test = open_split(config.data, "test")
    data = with_changes(config.data, {"directory": directory})
    first = tokenizer.cached(test, encode, data)
    monkeypatch.setattr(tokenizer, "encode", lambda *_: pytest.fail("computed again"))
    np.testing.assert_array_equal(tokenizer.cached(test, encode, data), first)
    monkeypatch.setattr(tokenizer, "encode", lambda examples, _: np.zeros((len(examples), 8, 8), np.int32))
    other = [test[1], test[0], *(test[i] for i in range(2, len(test)))]  # other images in these places
    assert not tokenizer.cached(other, encode, data).any()


@pytest.mark.parametrize("damage", ["flipped", "no manifest", "another manifest"])
def test_codes_that_were_changed_on_disk_are_computed_again(tmp_path, monkeypatch, damage):
    tokenizer = object.__new__(TrainedTokenizer)
    tokenizer.digest = "0" * 64
    right = np.arange(8, dtype=np.int32).reshape(2, 2, 2)
    monkeypatch.setattr(tokenizer, "encode", lambda *_: right, raising=False)
    examples = [Example(str(place), b"image") for place in range(2)]
    words, data = Tokenizer.build(["a circle"], 30), EasyVQA(directory=tmp_path)
    encode = ExampleEncoder(words, None, ImageInput(), max_length=4, texts_per_image=1)
    tokenizer.cached(examples, encode, data)
    (file,), (manifest,) = tmp_path.rglob("*.npy"), tmp_path.rglob("*.json")
    if damage == "flipped":
        content = bytearray(file.read_bytes())
        content[-4] ^= 1
        file.write_bytes(content)
    elif damage == "no manifest":
        manifest.unlink()
        np.save(file, right + 1)
    else:
        manifest.write_text(manifest.read_text().replace('"bytes": 1', '"bytes": 2'))
        np.save(file, right + 1)
    for _ in range(2):
        np.testing.assert_array_equal(tokenizer.cached(examples, encode, data), right)


def test_a_tokenizer_has_nothing_to_predict(tokenizer_run):
    with pytest.raises(InputError, match="nothing to predict"):
        predict.main([str(tokenizer_run.path), "--prompt", "a red circle"])


def test_masked_tokens_are_learned_and_dropped_prompts_are_not_read(generation_run):
    """With every prompt dropped the loss is the same whatever the words are; the image tokens that are shown have no
    loss."""
    config = with_changes(generation_run.config(), {"generation.cond_drop_prob": 0.999999})
    encode = make_encoder(config, generation_run)
    tokenizer = TrainedTokenizer(generation_run.path / TOKENIZER)
    task = ImageGeneration(config, encode, tokenizer)
    params = random_parameters(task.init_params, std=0.02)
    examples = task.prepare(open_split(config.data, "test"))
    rows = [Row(task.encode(examples[i]), range(1)) for i in range(4)]
    batch = make_batch(rows, task.encode, size=4).batch
    keys = jax.random.split(jax.random.key(1), 4)
    loss_sums = jax.jit(task.loss_sums)
    sums = loss_sums(params, batch, keys)
    other = batch._replace(input_ids=batch.input_ids[::-1].copy(), text_mask=batch.text_mask[::-1].copy())
    assert float(loss_sums(params, other, keys).loss) == float(sums.loss)
    read = jax.jit(ImageGeneration(generation_run.config(), encode, tokenizer).loss_sums)
    assert float(read(params, other, keys).loss) != float(read(params, batch, keys).loss)
    assert float(sums.examples) == 4


def test_the_appearance_of_a_token_is_its_middle_patch(generation_run, monkeypatch):
    """From planted drawings: image token c is c above and -c below, and what is around the middle is something else."""
    tokenizer = TrainedTokenizer(generation_run.path / TOKENIZER)
    assert tokenizer.image.size[0] // tokenizer.grid[0] == 8

    def decode(_, grids):
        decoded = np.full((len(grids), 24, 24, 3), 99.0)
        decoded[:, 8:12, 8:16] = np.asarray(grids)[:, 1, 1][:, None, None, None]
        decoded[:, 12:16, 8:16] = -np.asarray(grids)[:, 1, 1][:, None, None, None]
        return decoded

    monkeypatch.setattr(tokenizer, "_decode", decode)
    appearance = tokenizer.appearance().reshape(tokenizer.codebook_size, 4, 4, 3)
    expected = np.arange(tokenizer.codebook_size) - (tokenizer.codebook_size - 1) / 2
    expected /= expected.std()
    np.testing.assert_allclose(
        appearance[:, :2], np.broadcast_to(expected[:, None, None, None], (len(appearance), 2, 4, 3))
    )
    np.testing.assert_allclose(appearance[:, 2:], -appearance[:, :2])


def test_tokens_start_from_their_appearance(generation_run):
    config, key = generation_run.config(), jax.random.key(0)
    tokenizer, encode = TrainedTokenizer(generation_run.path / TOKENIZER), make_encoder(config, generation_run)
    task = ImageGeneration(config, encode, tokenizer)
    fresh = task.init_params(key)
    started, appearance = task.start(fresh, key), tokenizer.appearance()
    off = ~np.eye(len(appearance), dtype=bool)
    for place in ("image", "head"):
        before, after = (
            np.asarray(tree[place]["vectors"]["embedding"])[: len(appearance)] for tree in (fresh, started)
        )
        alike = [np.corrcoef((x @ x.T)[off], (appearance @ appearance.T)[off])[0, 1] for x in (before, after)]
        assert abs(alike[0]) < 0.3 and alike[1] > 0.6


@pytest.mark.parametrize(
    ("slots", "smoothing", "power", "even"), [(1, 0.0, 0.0, False), (2, 0.1, 0.0, False), (1, 0.0, 0.5, True)]
)
def test_the_loss_is_the_cross_entropy_of_masked_tokens(generation_run, slots, smoothing, power, even):
    """By hand, from the logits; an image that only fills the batch, and an empty slot, count nothing."""
    config = generation_run.config()
    changes = {"cond_drop_prob": 0.0, "guidance_scale": 1.0, "token_frequency_power": power}
    changes = {f"generation.{name}": value for name, value in changes.items()}
    changes |= {"generation.loss_weighting": "elbo" if even else "uniform", "training.label_smoothing": smoothing}
    config = with_changes(config, changes)
    encode = dataclasses.replace(make_encoder(config, generation_run), texts_per_image=slots)
    task = ImageGeneration(config, encode, TrainedTokenizer(generation_run.path / TOKENIZER))
    train = task.prepare(open_split(config.data, "train"))
    task.learn_from(train)
    counts = np.bincount(np.ravel([example.image_tokens for example in train]), minlength=48)
    weights = (np.maximum(counts, 10) / counts.sum()) ** -power
    weights /= (weights * counts).sum() / counts.sum()
    params = random_parameters(task.init_params, std=0.1)
    examples = task.prepare(open_split(config.data, "test"))
    batch = make_batch([Row(task.encode(examples[i]), range(1)) for i in range(3)], task.encode, size=4).batch
    keys = jax.random.split(jax.random.key(1), 4)
    sums = jax.jit(task.loss_sums)(params, batch, keys)
    places = jax.vmap(lambda key: jax.random.fold_in(key, MASK))(keys)
    shown, is_masked = mask_tokens(jnp.asarray(batch.image_tokens), places, schedule="cosine", mask_id=48)
    inputs = (shown, jnp.asarray(batch.input_ids), jnp.asarray(batch.text_mask))
    apply = jax.jit(task.model.apply, static_argnames="method")
    logits = np.asarray(apply({"params": params}, *inputs, method="task_logits"), np.float64)
    log_p = logits + np.log(weights) - np.log((weights * np.exp(logits)).sum(-1, keepdims=True))
    loss = weight = right = 0
    for image in range(3):
        for position in np.flatnonzero(np.asarray(is_masked[image])):
            code = batch.image_tokens[image].ravel()[position]
            row = log_p[image, 0, position]
            share = 64 / np.sum(is_masked[image]) if even else 1
            loss -= share * weights[code] * ((1 - smoothing) * row[code] + smoothing * row.mean())
            weight, right = weight + share, right + share * (logits[image, 0, position].argmax() == code)
    counted = (float(sums.weight), float(sums.correct), float(sums.examples), float(sums.loss))
    np.testing.assert_allclose(counted, (weight, right, 3, loss), rtol=1e-5)


def test_token_frequency_power_weights_the_loss_and_keeps_probabilities(generation_run):
    """The loss of what is true does not fall in any direction, whatever the weights."""
    config = generation_run.config()
    config = with_changes(config, {"generation.token_frequency_power": 1.0})
    task = ImageGeneration(
        config, make_encoder(config, generation_run), TrainedTokenizer(generation_run.path / TOKENIZER)
    )
    train = task.prepare(open_split(config.data, "train"))
    task.learn_from(train)
    counts = np.bincount(np.ravel([example.image_tokens for example in train]), minlength=48)
    assert np.argmax(task._weights) == np.argmin(counts) and task._weights.max() > 10 * task._weights.min()
    assert np.average(task._weights, weights=counts) == pytest.approx(1, rel=1e-5)

    @jax.grad
    def slope(logits):
        """Of the mean loss over image tokens as often as `truth` says."""
        loss, _ = token_losses(jnp.tile(logits, (48, 1)), jnp.arange(48), weights=task._weights, smoothing=0.0)
        return jnp.sum(truth * loss)

    truth = np.random.default_rng(0).dirichlet(np.ones(48)).astype(np.float32)
    assert float(jnp.abs(slope(jnp.log(truth))).max()) < 1e-5 < float(jnp.abs(slope(jnp.zeros(48))).max())


def test_the_autoregressive_pattern_is_learned_and_generates(generation_run):
    changes = {"kind": "autoregressive", "cond_drop_prob": 0.0, "guidance_scale": 1.0}
    config = with_changes(generation_run.config(), {f"generation.{name}": value for name, value in changes.items()})
    task = ImageGeneration(
        config, make_encoder(config, generation_run), TrainedTokenizer(generation_run.path / TOKENIZER)
    )
    params = random_parameters(task.init_params, std=0.1)
    examples = task.prepare(open_split(config.data, "test"))
    batch = make_batch([Row(task.encode(examples[i]), range(1)) for i in range(4)], task.encode, size=4).batch
    sums = jax.jit(task.loss_sums)(params, batch, jax.random.split(jax.random.key(1), 4))
    generated = task.predict(params, [examples[place] for place in range(4)])
    assert float(sums.weight) == 4 * 64
    likelihoods = [row.log_likelihood for row in generated]
    assert -float(sums.loss) / 64 == pytest.approx(sum(likelihoods), rel=1e-5), "its likelihood is the image's own"
    assert len({row.images.tobytes() for row in generated}) > 1
    others = task.log_likelihoods(params, [examples[0]] * 4, [row.prompt for row in generated])
    losses = [
        likelihoods[0] - other
        for other, row in zip(others, generated, strict=True)
        if row.prompt != generated[0].prompt
    ]
    assert min(abs(generated[0].prompt_gain - loss) for loss in losses) < 1e-5, "its gain is over another one's prompt"


def test_runs_that_differ_in_decoding_are_one_training(directory):
    config = generation_config(directory, directory / "tokenizer")
    changes = {"generation.guidance_scale": 4.0, "generation.num_decoding_steps": 2, "generation.temperature": 0.7}
    assert training(config) == training(with_changes(config, changes))
    for changes in ({"generation.token_frequency_power": 0.5}, {"image_tokenizer.run": Path("other")}, {"seed": 1}):
        assert training(config) != training(with_changes(config, changes))


@pytest.mark.slow
def test_decoding_settings_need_no_training_of_their_own(tokenizer_run, directory, tmp_path):
    """Scored with the training of another run, bit for bit as if it had been trained itself."""
    config = generation_config(directory, tokenizer_run.path, token_frequency_power=0.5)
    muon = Muon(warmup_steps=1, ema=0.9)
    config = with_changes(config, {"optimizer": muon, "training.steps": 4, "training.evaluate_every": 4})
    guided = with_changes(config, {"generation.guidance_scale": 4.0, "generation.num_decoding_steps": 2})
    other = with_changes(config, {"image_tokenizer.run": Path("other")})
    assert training(config) == training(guided) != training(other)
    metrics = {}
    for name, its in (("base", config), ("alone", guided), ("shared", guided)):
        if name == "shared":
            begin_trained(RunFolder(tmp_path / name), its, RunFolder(tmp_path / "base"), tmp_path / ".part")
        with claim(tmp_path / name, its) as folder:
            metrics[name] = Trainer(folder.config(), folder).run()["metrics"]
    assert metrics["shared"] == metrics["alone"]
    contact_sheets = {name: (tmp_path / name / "predictions.png").read_bytes() for name in metrics}
    assert contact_sheets["shared"] == contact_sheets["alone"] != contact_sheets["base"]


def stop_after(steps):
    """A request to stop, which the loop hears after so many optimizer steps."""
    answers = iter([False] * (steps - 1) + [True] * 20)
    return lambda: next(answers)


@pytest.mark.slow
def test_a_run_resumes_exactly(tokenizer_run, directory, tmp_path, monkeypatch):
    """Stopped after ten steps and gone on with, it has the parameters of one that was not stopped."""
    config = generation_config(directory, tokenizer_run.path, token_frequency_power=0.5, loss_weighting="elbo")
    config = with_changes(config, {"model.hidden_dropout_prob": 0.1})
    ends = []
    for name in ("once", "twice"):
        with claim(tmp_path / name, config) as folder:
            if name == "twice":
                first = Trainer(folder.config(), folder)
                with monkeypatch.context() as patch:
                    patch.setattr(loop, "stop_requests", lambda: nullcontext(stop_after(10)))
                    with pytest.raises(Interrupted, match="after optimizer step 10 "):
                        first.run()
            Trainer(folder.config(), folder).run()
            _, params, step = load_trained(folder.config(), folder, make_encoder(config, folder), which="latest")
            assert step == 20
            ends.append(jax.device_get(params))
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, *ends)))


def test_another_tokenizer_than_the_configs_is_refused(tokenizer_run, directory, tmp_path):
    config = generation_config(directory, tokenizer_run.path)
    config = with_changes(config, {"image_tokenizer.quantizer.levels": (8, 8)})
    with (
        claim(tmp_path / "run", config) as folder,
        pytest.raises(InputError, match=r"image_tokenizer.quantizer.levels \(4, 4, 3\)"),
    ):
        Trainer(folder.config(), folder)


def test_a_run_that_is_no_tokenizer_is_refused(generation_run, directory, tmp_path):
    with (
        claim(tmp_path / "run", generation_config(directory, generation_run.path)) as folder,
        pytest.raises(InputError, match="give one of 'image_tokenizer'"),
    ):
        Trainer(folder.config(), folder)


def test_a_tokenizer_that_has_not_ended_is_refused(tokenizer_run, directory, tmp_path):
    shutil.copytree(tokenizer_run.path, tmp_path / "half")
    (tmp_path / "half" / "result.json").unlink()
    with (
        claim(tmp_path / "run", generation_config(directory, tmp_path / "half")) as folder,
        pytest.raises(InputError, match="has not ended"),
    ):
        Trainer(folder.config(), folder)


def test_a_run_without_the_tokenizer_it_began_with_is_refused(generation_run, tmp_path):
    shutil.copytree(generation_run.path, tmp_path / "run")
    (tmp_path / "run" / TOKENIZER).unlink()
    with pytest.raises(InputError, match=rf"{TOKENIZER} is gone"):
        evaluate.main([str(tmp_path / "run"), "--split", "validation"])


def test_a_damaged_tokenizer_file_is_named(tmp_path):
    (tmp_path / TOKENIZER).write_bytes(b"\x80\x04pickle")
    with pytest.raises(InputError, match=f"{TOKENIZER} is no image tokenizer"):
        TrainedTokenizer(tmp_path / TOKENIZER)


def test_a_dying_codebook_and_plain_reconstructions_are_remarked_on(directory, tokenizer_run):
    config = tokenizer_config(directory, quantizer=VQ(codebook_size=100))
    task = ImageTokenization(config, make_encoder(tokenizer_run.config(), tokenizer_run))
    plain = np.full((8, 8, 3), 200, np.uint8)
    few = [Reconstructed("a", SOME[0], plain, np.zeros((8, 8), int), 5.0, 0.1, 1.0)]
    many = [Reconstructed("a", SOME[0], SOME[1], np.arange(64).reshape(8, 8), 20.0, 0.5, 1.0)]
    dying, one_colour = task.warnings(few, task.score(few))
    assert "the codebook is dying" in dying and "one colour" in one_colour
    assert task.warnings(many, task.score(many)) == []
    scalar = ImageTokenization(tokenizer_config(directory, quantizer=FSQ(levels=(8, 8, 8, 8))), task.encode)
    assert "fewer image_tokenizer.quantizer.levels" in scalar.warnings(few, scalar.score(few))[0]
    assert scalar.warnings(many, scalar.score(many)) == []  # 64 cells cannot show a tenth of 4,096 image tokens
