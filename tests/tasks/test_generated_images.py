"""Images from prompts: how they are drawn, chosen, scored and remarked on, and the commands that draw."""

import dataclasses
import hashlib
import json
import shutil

import numpy as np
import pytest

from experiments import evaluate, predict
from tests.tasks.conftest import SOME
from vlm_jax.config.use import Candidates
from vlm_jax.data.images import decode_image
from vlm_jax.data.sources import open_split
from vlm_jax.errors import InputError
from vlm_jax.run_folder import IMAGE_TOKENIZER as TOKENIZER
from vlm_jax.settings.changes import to_json, with_changes
from vlm_jax.tasks import image_distance, image_generation
from vlm_jax.tasks.baselines import baseline_warnings
from vlm_jax.tasks.examples import ChangedExamples
from vlm_jax.tasks.generated import GeneratedImages, log_frequency, score_generated, warnings_about
from vlm_jax.tasks.image_distance import ImageFeatures, distances
from vlm_jax.tasks.image_generation import ImageGeneration
from vlm_jax.tasks.reranker import Reranker
from vlm_jax.tasks.trained_tokenizer import TrainedTokenizer
from vlm_jax.training.setup import load_trained, make_encoder

RED = ("--prompt", "a red circle", "--output", "x.png")
HALVES = np.array([[0, 1], [1, 0]])  # image tokens


def test_a_generation_run_is_scored_on_its_images(generation_run):
    result = generation_run.result()
    metrics, named = result["metrics"], result["image_tokenizer"]
    digest = hashlib.sha256((generation_run.path / TOKENIZER).read_bytes()).hexdigest()
    assert named == {"run": str(generation_run.config().image_tokenizer.run), "sha256": digest}
    names = {"objects_right", "count_right", "relation_right", "all_right", "log_likelihood", "log_frequency"}
    assert "prompt_gain" in metrics and "baseline/shuffled_prompts/prompt_gain" not in metrics
    assert names | {f"baseline/shuffled_prompts/{name}" for name in names} <= metrics.keys()
    difference = metrics["baseline/shuffled_prompts/difference/objects_right"]
    assert difference == pytest.approx(metrics["objects_right"] - metrics["baseline/shuffled_prompts/objects_right"])
    lines = (generation_run.path / "predictions.jsonl").read_text().splitlines()
    assert (
        len(lines) == 8
        and {"image_id", "prompt", "log_likelihood", "prompt_gain", "checks"} <= json.loads(lines[0]).keys()
    )


def test_images_are_generated_from_the_command_line(generation_run, tmp_path, capsys):
    contact_sheet = tmp_path / "sheet.png"
    prompt = ["--prompt", "a small red circle", "a large blue square"]
    options = [
        "--num-images",
        "2",
        "--generation.num-decoding-steps",
        "2",
        "--generation.guidance-scale",
        "2",
        "--num-candidates",
        "3",
        "--output",
        str(contact_sheet),
    ]
    assert predict.main([str(generation_run.path), *prompt, *options]) == 0
    assert "4 images in" in capsys.readouterr().out and contact_sheet.stat().st_size > 1_000
    generated = contact_sheet.read_bytes()
    for seed, same in (("0", True), ("7", False)):
        assert predict.main([str(generation_run.path), *prompt, *options, "--seed", seed]) == 0
        assert (contact_sheet.read_bytes() == generated) == same, "the run's own seed is 0"
    assert evaluate.main([str(generation_run.path), "--split", "held_out"]) == 0
    assert "objects_right" in capsys.readouterr().out
    changes = ["generation.num_decoding_steps=1", "generation.guidance_scale=1.0"]
    assert evaluate.main([str(generation_run.path), "--split", "held_out", "--change", *changes]) == 0
    names = ("", ",generation.num_decoding_steps=1,generation.guidance_scale=1.0")
    results = (json.loads((generation_run.path / f"result-held_out{name}.json").read_text()) for name in names)
    as_trained, changed = (result["config"]["generation"] for result in results)
    assert (as_trained["num_decoding_steps"], changed["num_decoding_steps"], changed["guidance_scale"]) == (3, 1, 1.0)
    capsys.readouterr()
    changes = ["--num-images", "2", "--change", "generation.temperature=0.0001", "generation.choice_temperature=0.0"]
    assert evaluate.main([str(generation_run.path), "--split", "held_out", *changes]) == 0
    assert "warning: all samples of a prompt are the same image" in capsys.readouterr().out


def test_a_reranker_keeps_its_best_candidate(generation_run):
    """Of the very images that would be drawn as samples; one for each prompt and sample."""
    config, repeated = generation_run.config(), []

    class Darkest(Reranker):
        def __init__(self):
            pass

        def __call__(self, images, prompts):
            repeated.extend(prompts)
            return -images.astype(np.float32).mean((1, 2, 3))

    tokenizer = TrainedTokenizer(generation_run.path / TOKENIZER)
    task, params, _ = load_trained(config, generation_run, make_encoder(config, generation_run), which="best")
    reranked = ImageGeneration(config, make_encoder(config, generation_run), tokenizer, reranker=Darkest())
    prompts = ["a small red circle", "a large blue square", "a small green star"]
    generated = task.generate_images(params, prompts, candidates=Candidates(num_images=6)).reshape(3, 2, 3, 64, 64, 3)
    light = generated.astype(np.float32).mean((3, 4, 5))
    kept = reranked.generate_images(params, prompts, candidates=Candidates(num_images=2, num_candidates=3))
    wanted = [[generated[i, j, light[i, j].argmin()] for j in range(2)] for i in range(3)]
    np.testing.assert_array_equal(kept, wanted)
    assert repeated == [prompt for prompt in prompts for _ in range(6)]
    assert not (kept == generated[:, :, 0]).all()
    two = Candidates(num_images=2)
    alone = [generating.generate_images(params, prompts, candidates=two) for generating in (reranked, task)]
    np.testing.assert_array_equal(*alone)


def test_a_captioning_run_reranks(generation_run, captioning_run, tokenizer_run, tmp_path, capsys):
    contact_sheet = tmp_path / "sheet.png"
    command = [str(generation_run.path), "--split", "validation", "--reranker", str(captioning_run.path)]
    assert evaluate.main([*command, "--num-candidates", "2"]) == 0
    result = json.loads(next(generation_run.path.glob("result-validation*reranker*.json")).read_text())
    named = result["reranker"]
    assert (named["run"], named["checkpoint_step"], len(named["sha256"])) == (str(captioning_run.path), 1, 64)
    prompt = ["--prompt", "a small red circle", "--output", str(contact_sheet), "--num-candidates", "2"]
    assert predict.main([str(generation_run.path), *prompt, "--reranker", str(captioning_run.path)]) == 0
    assert "1 images in" in capsys.readouterr().out and contact_sheet.stat().st_size > 1_000
    with pytest.raises(InputError, match="num_candidates is 1"):
        evaluate.main(command)
    with pytest.raises(InputError, match=r"reranker .* is a run of the task 'image_tokenizer'; give one of "):
        predict.main([str(generation_run.path), *prompt, "--reranker", str(tokenizer_run.path)])
    with pytest.raises(InputError, match="nowhere"):
        predict.main([str(generation_run.path), *prompt, "--reranker", str(tmp_path / "nowhere")])
    (tmp_path / "half").mkdir()
    shutil.copy(captioning_run.path / "config.json", tmp_path / "half")
    with pytest.raises(InputError, match=r"reranker .*half is a run that has not ended"):
        predict.main([str(generation_run.path), *prompt, "--reranker", str(tmp_path / "half")])


def test_a_reranker_reads_images_as_a_captioner_reads_files(captioning_run, capsys):
    """At its own size, and asked of pixels as of files."""
    config = captioning_run.config()
    task, params, _ = load_trained(config, captioning_run, make_encoder(config, captioning_run), which="best")
    examples = [open_split(config.data, "validation")[place] for place in range(3)]
    pixels = np.stack([decode_image(example.image, max_pixels=10_000) for example in examples])
    texts = [example.texts[0].text for example in examples]
    reranker = Reranker(task, params, {})
    likelihoods = reranker(pixels, texts)
    assert not capsys.readouterr().err
    for _ in range(2):
        reranker(pixels, ["a large ☃", "a red circle " * 9, "a red circle"])
    message = capsys.readouterr().err.splitlines()
    assert [line.split(" 'a ")[0] for line in message] == [
        "note: the reranker does not know every word of",
        "note: the reranker reads only the first 22 tokens of",
    ]
    np.testing.assert_allclose(likelihoods, task.log_likelihoods(params, examples, texts), rtol=1e-6)


@pytest.mark.slow
def test_generated_images_have_a_distance_to_real_images(generation_run, tmp_path, monkeypatch):
    """In a named network's features, beside the distances of what copies, of other real images and of the image
    tokens."""
    from tests.weights import fixtures

    source = str(fixtures.publish(fixtures.BY_NAME["torchvision_resnet18"].fixtures[0], tmp_path / "resnet"))
    command = [str(generation_run.path), "--split", "validation", "--features", source]
    assert evaluate.main(command) == 0
    result = json.loads(next(generation_run.path.glob("result-validation*features*.json")).read_text())
    rows = ("", "baseline/image_tokens/", "baseline/other_images/", "baseline/nearest_image/")
    distances = [result["metrics"][f"{row}frechet_distance"] for row in rows]
    assert min(distances) > 0 and len(set(distances)) == 4
    assert (result["features"]["cnn"], len(result["features"]["sha256"])) == ("resnet18", 64)
    with pytest.raises(InputError, match=r"has the SHA-256 [0-9a-f]{64}, not abc$"):
        evaluate.main([*command, "--features-sha256", "abc"])
    passed = {}
    monkeypatch.setattr(image_generation, "distances", lambda features, **rows: passed.update(rows) or {})
    assert evaluate.main(command) == 0
    config = generation_run.config()
    tokenizer, encode = TrainedTokenizer(generation_run.path / TOKENIZER), make_encoder(config, generation_run)
    for name, split in (("real", "validation"), ("train", "train")):
        wanted = [encode(example).image for example in open_split(config.data, split)]
        np.testing.assert_array_equal(passed[name], wanted)
    tokens = tokenizer.encode(open_split(config.data, "validation"), dataclasses.replace(encode, texts_per_image=1))
    np.testing.assert_array_equal(passed["decoded"], tokenizer.decode(tokens))
    assert np.shape(passed["generated"]) == np.shape(passed["real"])


def test_no_distance_where_images_are_the_same(tmp_path, monkeypatch):
    from tests.weights import fixtures

    source = str(fixtures.publish(fixtures.BY_NAME["torchvision_resnet18"].fixtures[0], tmp_path / "resnet"))
    features = ImageFeatures(source)
    monkeypatch.setattr(image_distance, "BATCH", 4)
    monkeypatch.setattr(features, "_input", with_changes(features._input, {"size": (32, 32)}))
    every_channel = ImageFeatures.__call__  # the square root of a covariance costs the cube of their number
    monkeypatch.setattr(ImageFeatures, "__call__", lambda self, images: every_channel(self, images)[:, :64])
    images = list(np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8))
    rows = distances(features, generated=images[::-1], decoded=images[:4], real=images, train=images, seed=0)
    assert rows.pop("baseline/image_tokens/frechet_distance") > 1e-3
    assert set(rows) == {f"{row}frechet_distance" for row in ("", "baseline/other_images/", "baseline/nearest_image/")}
    assert max(rows.values()) < 1e-3 * features(images).var(0).sum()
    assert distances(features, generated=[], decoded=[], real=images[:1], train=images, seed=0) == {}
    few = distances(features, generated=images, decoded=images, real=images, train=images[:3], seed=0)
    assert "baseline/other_images/frechet_distance" not in few, "fewer than the real ones: it does not compare"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--change", "generation.num_decoding_steps=4"], "the test split is scored once"),
        (["--split", "held_out", "--change", "generation.num_decoding_stepss=4"], "generation.num_decoding_steps"),
        (
            ["--split", "held_out", "--change", "generation.num_decoding_steps=0"],
            "generation.num_decoding_steps is '0'",
        ),
        (["--split", "held_out", "--change", "generation.cond_drop_prob=0.5"], "cond_drop_prob.* trained with"),
        (
            ["--split", "held_out", "--change", "generation.token_frequency_power=0.1"],
            "token_frequency_power.* trained with",
        ),
        (["--split", "held_out", "--change", "generation.loss_weighting=elbo"], "loss_weighting.* trained with"),
        (["--split", "held_out", "--change", "model.hidden_size=64"], "model.hidden_size.* trained with"),
        (["--split", "held_out", "--change", "generation.num_decoding_steps"], "num_decoding_steps"),
        (["--split", "held_out", "--num-candidates", "9"], "choose at most 8"),
    ],
)
def test_what_cannot_be_changed_is_refused(generation_run, options, message):
    with pytest.raises(InputError, match=message):
        evaluate.main([str(generation_run.path), *options])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "x.png"], "prompt is not given"),
        (["--prompt", "a red circle"], "output is not given"),
        (["--prompt", "a red circle", "--output", "sheet.jpg"], "must be a PNG file"),
        ([*RED, "--image", "photo.jpg"], "image"),
        ([*RED, "--generation.num-decoding-steps", "0"], "generation.num_decoding_steps is '0'"),
        ([*RED, "--generation.cond-drop-prob", "0.5"], "generation.cond_drop_prob .* trained with"),
        ([*RED, "--num-candidates", "0"], "num_candidates is '0'"),
        ([*RED, "--num-images", "-1"], "num_images is '-1'"),
    ],
)
def test_options_that_do_not_fit_generation_are_refused(generation_run, options, message):
    with pytest.raises(InputError, match=message):
        predict.main([str(generation_run.path), *options])


def test_images_depend_on_the_place_of_the_prompt_not_the_batch(generation_run):
    config = generation_run.config()
    task, params, _ = load_trained(config, generation_run, make_encoder(config, generation_run), which="best")
    prompts = ["a small red circle", "a large blue square", "a small green star"]
    options = {"candidates": Candidates(num_images=2, num_candidates=2)}
    whole = task.generate_images(params, prompts, **options)
    np.testing.assert_array_equal(task.generate_images(params, prompts, **options, batch=2), whole)
    assert whole.shape == (3, 2, 64, 64, 3) and whole.dtype == np.uint8


def generated(picture, tokens, likelihood, gain):
    return GeneratedImages("a", "a red circle", picture[None], (), likelihood, gain, tokens)


@pytest.mark.parametrize(
    ("images", "likelihood", "gains", "warnings"),
    [
        (np.full((2, 8, 8, 3), 255, np.uint8), -0.1, (0.3, 0.4), ["of one colour"]),
        (np.stack([SOME[0], SOME[0]]), -0.1, (0.3, 0.4), ["the same image"]),
        (SOME, -0.1, (-0.2, 0.4), ["they are not read"]),
        (SOME, -0.9, (0.3, 0.4), ["does not move"]),
        (SOME, -0.1, (0.3, 0.4), []),
    ],
)
def test_failures_of_generation_are_warned_of(generation_run, images, likelihood, gains, warnings):
    config = generation_run.config()
    task, _, _ = load_trained(config, generation_run, make_encoder(config, generation_run), which="best")
    rows = [generated(picture, HALVES, likelihood, gain) for picture, gain in zip(images, gains, strict=True)]
    assert task.score(rows)["prompt_gain"] == pytest.approx(np.mean(gains))
    assert set(task.score(rows)) <= set(task.scores)
    messages = task.warnings(rows, task.score(rows))
    assert len(messages) == len(warnings) and all(
        part in message for part, message in zip(warnings, messages, strict=True)
    )


def test_samples_of_a_prompt_are_held_against_each_other_and_against_other_prompts():
    grey = [np.full((2, 2, 3), level, np.uint8) for level in (10, 20, 40, 90)]
    prompts = ("a circle", "a circle", "a square")
    pairs = ((0, 1), (1, 2), (3, 3))
    rows = [
        generated(grey[0], HALVES, -0.1, 0.3)._replace(prompt=prompt, images=np.stack([grey[level] for level in pair]))
        for prompt, pair in zip(prompts, pairs, strict=True)
    ]
    metrics = score_generated(rows)
    assert metrics["sample_diversity"] == pytest.approx((10 + 20 + 0) / 3)
    assert metrics["prompt_diversity"] == pytest.approx(90 - 20), "the first two have the same prompt"
    assert "sample_diversity" not in score_generated([row._replace(images=row.images[:1]) for row in rows])
    assert "prompt_diversity" not in score_generated(rows[:2])
    assert not any("left to chance" in warning for warning in warnings_about(rows, metrics))
    alike = [row._replace(images=np.stack([row.images[0]] * 2)) for row in rows]
    assert any("left to chance" in warning for warning in warnings_about(alike, score_generated(alike)))


def test_a_single_image_or_prompt_has_no_other_prompt(generation_run):
    """No control, no gain, and a line that is JSON."""
    config = generation_run.config()
    task, params, _ = load_trained(config, generation_run, make_encoder(config, generation_run), which="best")
    examples, train = (task.prepare(open_split(config.data, name)) for name in ("test", "train"))
    example = examples[0]
    for rows in ([example], [example, example]):
        generated = task.predict(params, rows)
        assert (
            "prompt_gain" not in task.score(generated)
            and json.loads(json.dumps(generated[0].as_dict()))["prompt_gain"] is None
        )
        assert all(warning.find("not read") < 0 for warning in task.warnings(generated, task.score(generated)))
        alone = ChangedExamples(rows, lambda _, example: example)
        metrics = task.score(generated) | task.baselines(params, alone, train, generated)
        assert not any(name.startswith("baseline/") for name in metrics)
        assert any("left out" in text for text in baseline_warnings(metrics, task.metric, task.shuffled))


def test_what_an_autoregressive_run_does_not_do_is_refused(generation_run, tmp_path):
    autoregressive = with_changes(generation_run.config(), {"generation.kind": "autoregressive"})
    (tmp_path / "config.json").write_text(to_json(autoregressive), encoding="utf-8")
    message = "generation.num_decoding_steps belongs to generation.kind=masked"
    with pytest.raises(InputError, match=message):
        predict.main([str(tmp_path), *RED, "--generation.num-decoding-steps", "4"])
    with pytest.raises(InputError, match=message):
        evaluate.main([str(tmp_path), "--split", "validation", "--change", "generation.num_decoding_steps=4"])


def test_what_is_expected_without_learning_is_the_entropy_of_the_codes():
    assert log_frequency([HALVES, HALVES]) == pytest.approx(-np.log(2))
    assert log_frequency([np.zeros((2, 2), int)]) == 0
