"""Captioning: the loss, what is decoded, scores, baselines; and the commands on a run of it."""

import io
import json
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import vlm_jax.figures
from experiments import evaluate, inspect_model, predict, train
from vlm_jax.config import captioning
from vlm_jax.config.captioning import Beam, Greedy, Sample
from vlm_jax.config.encoders import SmallCNN
from vlm_jax.config.run import TextTraining
from vlm_jax.config.trunk import TextInput
from vlm_jax.data.batches import Row, make_batch
from vlm_jax.data.datasets.shape_scenes import SceneCaptions
from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.data.image_settings import AugmentedImages
from vlm_jax.data.images import normalise
from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.errors import InputError
from vlm_jax.metrics.captions import score_captions
from vlm_jax.models.vlm import VisualLanguageModel
from vlm_jax.scenes.language import caption
from vlm_jax.scenes.rendering import render
from vlm_jax.scenes.rules import check_caption
from vlm_jax.scenes.sampling import Sampling, sample_scene
from vlm_jax.scenes.scene import to_json
from vlm_jax.settings.changes import with_changes
from vlm_jax.tasks.caption import rule_scores
from vlm_jax.tasks.caption_baselines import constant_captions
from vlm_jax.tasks.captioning import Captioning, batch_sums
from vlm_jax.tasks.examples import spread
from vlm_jax.tasks.nearest_image import nearest, nearest_few
from vlm_jax.training.optimizer import frozen_mask
from vlm_jax.trees import flatten
from vlm_jax.types import Example, Text

CONFIGS = Path(__file__).parent.parent.parent / "configs"
PRESET, EMOJI = (str(CONFIGS / f"{name}.py") for name in ("shape_scenes_captioning", "emoji_captioning"))
SAMPLE, BEAM = ("--decoding.kind", "sample"), ("--decoding.kind", "beam", "--decoding.num-beams")
SEVERAL = ("--decoding.num-return-sequences",)
SMALL = [
    *(
        "--model.hidden-size",
        "16",
        "--model.num-attention-heads",
        "2",
        "--model.num-layers",
        "1",
        "--model.intermediate-size",
        "16",
    ),
    *("--model.image.stem-width", "4", "--model.image.widths", "8", "8", "--model.image.blocks", "0", "0"),
    *("--image.size", "16", "16", "--data.threads", "1"),
    *("--training.steps", "3", "--training.evaluate-every", "2", "--training.batch-images", "4"),
    *("--training.log-every", "1", "--training.evaluation-batch-images", "4", "--optimizer.warmup-steps", "1"),
]


def scenes(count):
    return [sample_scene(np.random.default_rng(seed), Sampling(64, 1, 3)) for seed in range(count)]


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def examples(count):
    made = []
    for number, scene in enumerate(scenes(count)):
        texts = (caption(scene), f"an image with number {number}")
        questions = tuple(Text(f"{number}#{n}", text, (), "caption") for n, text in enumerate(texts, 1))
        made.append(Example(str(number), png(render(scene)), questions, to_json(scene)))
    return made


@pytest.fixture(scope="module")
def task():
    config = captioning.Captioning(
        data=SceneCaptions(threads=1),
        image=AugmentedImages(size=(16, 16)),
        model=captioning.Model(
            hidden_size=16,
            num_attention_heads=2,
            num_layers=1,
            intermediate_size=16,
            image=SmallCNN(stem_width=4, widths=(8,), blocks=(0,)),
            text=TextInput(vocab_size=128, max_length=12),
        ),
        training=TextTraining(texts_per_image=2, label_smoothing=0.1, evaluation_batch_images=4),
    )
    texts = [text.text for example in examples(10) for text in example.texts]
    encode = ExampleEncoder(Tokenizer.build(texts, 128), None, config.image, max_length=12, texts_per_image=2)
    return Captioning(config, encode)


@pytest.fixture(scope="module")
def params(task):
    fresh = jax.jit(task.init_params)(jax.random.key(0))
    leaves, structure = jax.tree.flatten(fresh)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return structure.unflatten([x + 0.3 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)])


def test_the_loss_is_that_of_each_next_word(task, params):
    encoded = [task.encode(example) for example in examples(3)]
    rows = [Row(encoded[0], range(2)), Row(encoded[1], range(1)), Row(encoded[2], range(2))]
    batch = make_batch(rows, task.encode, size=4).batch
    sums = jax.jit(task.loss_sums)(params, batch, None)
    pixels = normalise(batch.image, task.encode.image)
    apply = jax.jit(task.model.apply, static_argnames="method")
    loss = words = right = 0.0
    for image, row in enumerate(rows):
        for slot in row.texts:
            ids = row.example.input_ids[slot][row.example.text_mask[slot]]
            text = np.zeros((1, 1, 12), np.int32)
            text[..., : len(ids)] = ids  # padded, so that one program serves all; after the last token nothing counts
            inputs = (pixels[image : image + 1], text, np.arange(12)[None, None] < len(ids))
            logits = np.asarray(apply({"params": params}, *inputs, method="task_logits"))[0, 0, : len(ids) - 1]
            log_p = logits - np.log(np.exp(logits.astype(np.float64)).sum(-1, keepdims=True))
            nll = -log_p[np.arange(len(ids) - 1), ids[1:]]
            loss += float(np.sum(0.9 * nll - 0.1 * log_p.mean(-1)))
            words += len(ids) - 1
            right += float(np.sum(np.argmax(log_p, -1) == ids[1:]))
    assert (float(sums.weight), float(sums.correct), float(sums.examples)) == (words, right, 5)
    np.testing.assert_allclose(float(sums.loss), loss, rtol=1e-5)


def test_rows_of_no_token_are_never_generated(task):
    never = task.decoder(Greedy()).constraints.special.never
    tokenizer = task.encode.tokenizer
    assert set(range(tokenizer.vocab_size, 128)) | {tokenizer.pad_id, tokenizer.cls_id} <= set(never)
    assert tokenizer.sep_id not in never and len(never) < 128 - 20


def test_what_is_padding_has_no_loss():
    ids = jnp.array([[[0, 3, 1, 9]]])
    logits = jax.random.normal(jax.random.key(0), (1, 1, 4, 10))
    real = batch_sums(logits, ids, jnp.array([[[True, True, True, False]]]), label_smoothing=0.0)
    short = batch_sums(logits[:, :, :2], ids[..., :3], jnp.ones((1, 1, 3), bool), label_smoothing=0.0)
    assert real.weight == short.weight == 2 and real.loss == short.loss


def test_every_image_gets_its_caption_in_order(task, params):
    questions = examples(7)
    together = task.predict(params, questions)
    assert [c.image_id for c in together] == [e.image_id for e in questions]
    for predicted, example in zip(together, questions, strict=True):
        (alone,) = task.predict(params, [example], batch_images=1)
        assert alone.text == predicted.text
        assert predicted.references == tuple(text.text for text in example.texts)
        assert predicted.check == check_caption(predicted.text, scenes(int(predicted.image_id) + 1)[-1])
    blind = task.predict(params, questions, see_image=False)
    assert len({c.text for c in blind}) == 1  # nothing tells the images apart


def test_samples_do_not_depend_on_the_batches(task, params):
    settings = Sample(num_return_sequences=3)
    few = task.predict(params, examples(5), decoding=settings, batch_images=2)
    many = task.predict(params, examples(5), decoding=settings, batch_images=8)
    assert [c.hypotheses for c in few] == [c.hypotheses for c in many] or all(
        [s.text for s in a.hypotheses] == [s.text for s in b.hypotheses] for a, b in zip(few, many, strict=True)
    )
    assert all(len(c.hypotheses) == 3 for c in few)


def test_scores_are_the_official_ones_and_the_rules(task, params):
    captions = task.predict(params, examples(6))
    right = [c._replace(hypotheses=(c.hypotheses[0]._replace(text=c.references[0]),)) for c in captions]
    right = [c._replace(check=check_caption(c.text, s)) for c, s in zip(right, scenes(6), strict=True)]
    metrics = task.score(right)
    assert (metrics["rule_accuracy"], metrics["objects_named"], metrics["hallucinated"]) == (1.0, 1.0, 0.0)
    assert metrics["relations_true"] == 1.0 and metrics["attributes"] >= 3
    official = score_captions([c.text for c in right], [c.references for c in right])
    assert {name: metrics[name] for name in official} == official
    assert set(metrics) == set(task.scores)
    assert rule_scores([]) == {}
    assert task.score([]) == {}


def test_one_caption_for_every_image_is_warned_of(task, params):
    captions = [
        c._replace(hypotheses=(c.hypotheses[0]._replace(text="a cat"),)) for c in task.predict(params, examples(6))
    ]
    (warning,) = task.warnings(captions, task.score(captions))
    assert "ignores the image" in warning
    varied = [c._replace(hypotheses=(c.hypotheses[0]._replace(text=f"cat {n}"),)) for n, c in enumerate(captions)]
    assert task.warnings(varied, task.score(varied)) == []
    assert task.warnings(captions[:1], task.score(captions[:1])) == []  # one image has one caption


def test_baselines_name_what_a_blind_model_reaches(task, params):
    questions, seen = examples(6), examples(10)
    train = [*seen, seen[0]._replace(texts=seen[3].texts)]
    baselines = task.baselines(params, questions, train, task.predict(params, questions))
    assert {name.rsplit("/", 1)[0] for name in baselines if "/difference" not in name} == {
        "baseline/shuffled_images", "baseline/no_image", "baseline/constant", "baseline/nearest_image",
        "baseline/nearest_consensus", "baseline/constant_true",
    }  # fmt: skip
    constant = constant_captions(train, task.config.seed)["constant"]
    assert (
        baselines["baseline/constant/cider_d"]
        == score_captions([constant] * 6, [[text.text for text in example.texts] for example in questions])["cider_d"]
    )
    expected = rule_scores([check_caption(constant, scene) for scene in scenes(6)])
    assert baselines["baseline/constant/rule_accuracy"] == expected["rule_accuracy"]
    assert baselines["baseline/constant/objects_named"] == expected["objects_named"]


def test_the_nearest_training_image_gives_its_first_caption(task, params):
    train = examples(9)
    questions = []
    for number in (7, 2, 5, 2, 8):  # more than a batch, in another order, one of them twice
        pixels = render(scenes(number + 1)[-1]).copy()
        pixels[:2, :2] += 1
        label, other = train[number].texts
        references = (label, other._replace(text="no such text"))
        questions.append(Example(f"asked {len(questions)}", png(pixels), references, train[number].scene))
    baselines = task.baselines(params, questions, train, task.predict(params, questions))
    assert baselines["baseline/nearest_image/exact_match"] == 1.0
    assert baselines["baseline/nearest_image/rule_accuracy"] == 1.0
    assert baselines["baseline/constant/exact_match"] < 1.0


@pytest.mark.parametrize("metric", ["rule_accuracy", "cider_d"])
def test_right_images_are_compared_with_shuffled_ones_caption_by_caption(task, params, metric, monkeypatch):
    monkeypatch.setattr(task, "metric", metric)
    questions = examples(6)
    captions = task.predict(params, questions)
    baselines = task.baselines(params, questions, examples(3), captions)
    rows = {name: baselines[f"baseline/shuffled_images/{name}/{metric}"] for name in ("difference", "difference_low")}
    shuffled = baselines[f"baseline/shuffled_images/{metric}"]
    assert rows["difference"] == pytest.approx(task.score(captions)[metric] - shuffled)
    assert rows["difference_low"] <= rows["difference"]
    of_one_image = task.baselines(params, questions[:1], examples(3), captions[:1])
    assert not any("shuffled_images" in name for name in of_one_image) and f"baseline/constant/{metric}" in of_one_image


def test_the_five_nearest_training_images_agree_on_a_caption(task, params):
    """Of five copies of each drawing four have one caption, which the first, the drawing itself, lacks."""
    train, questions = [], []
    for number, scene in enumerate(scenes(4)):
        pixels = render(scene).copy()
        questions.append(Example(f"asked {number}", png(pixels), (Text("", f"thing number {number}", (), "caption"),)))
        for copy in range(5):
            pixels[:4, :4] = 0 if copy else pixels[:4, :4]
            text = f"thing number {number}" if copy else "another text about it"
            train.append(Example(f"{number} {copy}", png(pixels), (Text("", text, (), "caption"),)))
    baselines = task.baselines(params, questions, train, task.predict(params, questions))
    assert baselines["baseline/nearest_consensus/exact_match"] == 1.0
    assert baselines["baseline/nearest_image/exact_match"] == 0.0


def test_an_image_vector_is_its_mean_grid_feature(task, params):
    images = jax.random.normal(jax.random.key(3), (3, 16, 16, 3))
    grid = task.model.apply({"params": params}, images, method=lambda model, image: model.image(image))
    mean = np.asarray(grid).mean(axis=(1, 2))
    vectors = task.model.apply({"params": params}, images, method="image_vector")
    np.testing.assert_allclose(vectors, mean / np.linalg.norm(mean, axis=1, keepdims=True), rtol=1e-5)


def test_the_nearest_is_among_the_searched_images():
    random = np.random.default_rng(0)
    among = random.normal(size=(40, 8)).astype(np.float32)
    among /= np.linalg.norm(among, axis=1, keepdims=True)
    places = random.integers(0, 40, 600)
    assert nearest(among[places], among).tolist() == places.tolist()
    with_copies = np.concatenate([among, among[:3]])
    few = nearest_few(among, with_copies, 5)
    order = np.argsort(-(among @ with_copies.T), axis=1, kind="stable")
    np.testing.assert_array_equal(few, order[:, :5])
    assert few[1].tolist()[:2] == [1, 41], "of equal ones the first"
    assert nearest_few(among, among[:3], 5).shape == (40, 3)
    train = examples(7)
    assert spread(train, 8) == spread(train, 7) == train
    assert spread(train, 3) == [train[0], train[3], train[6]]


def test_results_have_the_format_of_coco(task, params):
    captions = task.predict(params, examples(2))
    captions[0] = captions[0]._replace(image_id="a/b.png")
    rows = task.files(captions)["captions.json"]
    assert rows == [
        {"image_id": "a/b.png", "caption": captions[0].text}, {"image_id": 1, "caption": captions[1].text},
    ]  # fmt: skip


def test_a_choice_returns_as_it_was_given(task, params):
    choices = ("A Image With  number 1", "a large image")
    settings = Beam(num_beams=5, num_return_sequences=5, min_length=10)  # which the choices overrule
    (chosen,) = task.predict(params, examples(1), decoding=settings, choices=choices)
    assert {predicted.text for predicted in chosen.hypotheses} == set(choices) and len(chosen.hypotheses) == 2
    with pytest.raises(InputError, match="none of the texts to choose from has the forced beginning"):
        task.predict(params, examples(1), decoding=Greedy(prefix="number"), choices=choices)


def test_what_cannot_be_decoded_is_refused_before_training(task):
    for prefix, message in (("an image " * 9, "shorten it"), ("猫", "cannot say")):
        config = with_changes(task.config, {"decoding.prefix": prefix})
        with pytest.raises(InputError, match=message):
            Captioning(config, task.encode)


@pytest.mark.parametrize("text", ["", "zzz", "a " * 40])
def test_a_choice_that_cannot_be_generated_is_refused(task, params, text):
    with pytest.raises(InputError, match="cannot say"):
        task.predict(params, examples(1), choices=("a red square", text))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny run on a few scenes, finished."""
    folder, data = tmp_path_factory.mktemp("captions") / "run", tmp_path_factory.mktemp("data")
    options = [*SMALL, "--workdir", str(folder), "--data.directory", str(data)]
    assert train.main([PRESET, *options]) == 0
    return folder


def test_a_run_leaves_captions_and_scores(run, few_scenes):
    result = json.loads((run / "result.json").read_text())
    metrics = result["metrics"]
    kinds = {"cider_d", "bleu_4", "rouge_l", "exact_match", "rule_accuracy", "identical_share"}
    assert kinds | {"baseline/constant/cider_d", "baseline/nearest_image/rule_accuracy"} <= set(metrics)
    captions = json.loads((run / "captions.json").read_text())
    lines = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert [row["caption"] for row in captions] == [line["captions"][0]["caption"] for line in lines]
    assert all(len(line["references"]) == 1 for line in lines)  # the complete caption
    assert len(lines) == few_scenes["test"] and not (run / "answers.json").exists()
    with Image.open(run / "predictions.png") as contact_sheet:
        assert contact_sheet.width > 400
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any("validation/rule_accuracy" in line for line in log)


@pytest.mark.slow
def test_texts_that_lose_their_end_are_told(tmp_path, capfd):
    options = [*SMALL, "--workdir", str(tmp_path / "run"), "--data.directory", str(tmp_path), "--training.steps", "1"]
    assert train.main([PRESET, *options, "--model.text.max-length", "6"]) == 0
    assert "of the training texts have more than the 4 tokens of model.text.max_length" in capfd.readouterr().err


def test_other_splits_can_be_scored(run, few_scenes, capsys):
    assert evaluate.main([str(run), "--split", "held_out"]) == 0
    assert "rule_accuracy" in capsys.readouterr().out
    assert len(json.loads((run / "captions-held_out.json").read_text())) == few_scenes["held_out"]


@pytest.fixture(scope="module")
def emoji(tmp_path_factory):
    """Forty emoji, drawn alike by two hands, with a label and two tags each."""
    folder = tmp_path_factory.mktemp("emoji")
    entries = []
    for number, scene in enumerate(scenes(40)):
        code = f"{0x1F600 + number:x}"
        for style in ("google", "fluent3d"):
            (folder / style).mkdir(exist_ok=True)
            Image.fromarray(render(scene)).save(folder / style / f"{code}.png")
        tags = [f"tag {number}", "drawing"]
        entries.append({"code": code, "label": caption(scene), "tags": tags, "renderings": ["google", "fluent3d"]})
    (folder / "captions.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_the_emoji_preset_learns_labels_and_is_scored_by_tags_too(emoji, tmp_path):
    """At a tiny size and from scratch: a frozen CNN, and every split of labels and of hands."""
    options = [
        *("--data.images", str(emoji), "--data.directory", str(tmp_path / "kept")),
        *("--init.kind", "scratch", "--model.image.kind", "small"),
        *("--model.text.vocab-size", "128", "--workdir", str(tmp_path / "run"), *SMALL),
    ]
    assert train.main([EMOJI, *options]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert {"exact_match", "baseline/nearest_image/exact_match"} <= set(result["metrics"])
    assert "drawing" not in (tmp_path / "run" / "tokenizer.json").read_text()  # tags are not learned
    for split in ("test_style", "test_style_unseen"):
        assert evaluate.main([str(tmp_path / "run"), "--split", split]) == 0
        lines = (tmp_path / "run" / f"predictions-{split}.jsonl").read_text().splitlines()
        assert lines and all(len(json.loads(line)["references"]) == 3 for line in lines)
    # The same drawings under another name: every label is looked up.
    result = json.loads((tmp_path / "run" / "result-test_style.json").read_text())
    assert result["metrics"]["baseline/nearest_image/exact_match"] == 1.0


def test_the_emoji_preset_trains_everything_but_the_cnn():
    config = runpy.run_path(EMOJI)["get_config"]()
    model, ids = VisualLanguageModel(config.architecture, 1), jnp.zeros((1, 1, config.model.text.max_length), jnp.int32)
    image = jnp.zeros((1, *config.image.size, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), image, ids, jnp.ones(ids.shape, bool))["params"]
    frozen = flatten(frozen_mask(shapes, config.optimizer))
    assert all(held == path.startswith("image/") for path, held in frozen.items())
    assert sum(frozen.values()) > 90


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, scene in enumerate(scenes(3)):
        Image.fromarray(render(scene)).save(folder / f"{number}.png")
    (folder / "notes.txt").write_text("no image")
    return folder


def predicted(capsys, *arguments):
    assert predict.main([*arguments, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_predict_captions_files_and_folders(run, images, monkeypatch, capsys):
    lines = predicted(capsys, str(run), "--image", str(images), str(images / "1.png"))
    assert [line["image"] for line in lines] == [str(images / f"{n}.png") for n in (0, 1, 2, 1)]
    assert all(len(line["captions"]) == 1 for line in lines) and lines[1]["captions"] == lines[3]["captions"]
    generated = []
    monkeypatch.setattr(
        vlm_jax.figures, "plot_contact_sheet", lambda items, path, title: generated.append((items, path))
    )
    assert predict.main([str(run), "--image", str(images), "--output", str(images.parent / "sheet.png")]) == 0
    assert lines[0]["captions"][0]["caption"] in capsys.readouterr().out
    ((items, path),) = generated
    assert path == images.parent / "sheet.png"
    assert [item.prediction for item in items] == [line["captions"][0]["caption"] for line in lines[:3]]
    for number, item in enumerate(items):
        np.testing.assert_array_equal(item.image, np.asarray(Image.open(images / f"{number}.png")))
    with pytest.raises(InputError, match="must be a PNG file in a folder that exists"):
        predict.main([str(run), "--image", str(images), "--output", "sheet.jpg"])


def test_the_log_likelihood_of_any_text(task, params):
    """Every word and the end of the text, from its logits alone; whatever else is in the batch."""
    images = examples(6)
    texts = [example.texts[place % 2].text for place, example in enumerate(images)]
    apply = jax.jit(task.model.apply, static_argnames="method")
    wanted = []
    for example, text in zip(images, texts, strict=True):
        ids, mask = task.encode.encode_texts([text])
        length = mask[0].sum()  # what follows is padding
        image = make_batch([Row(task.encode(example), range(1))], task.encode, size=1).batch.image
        pixels = normalise(image, task.encode.image)
        logits = apply({"params": params}, pixels, ids[None], mask[None], method="task_logits")
        log_p = np.asarray(jax.nn.log_softmax(logits))[0, 0, : length - 1]
        wanted.append(log_p[np.arange(length - 1), ids[0, 1:length]].sum())
        assert mask[0, :length].all() and ids[0, length - 1] == task.encode.tokenizer.sep_id
    np.testing.assert_allclose(task.log_likelihoods(params, images, texts), wanted, rtol=2e-5)
    alone = [task.log_likelihoods(params, [example], [text])[0] for example, text in zip(images, texts, strict=True)]
    np.testing.assert_allclose(alone, wanted, rtol=2e-5)


def test_predict_searches_samples_and_chooses(run, images, capsys):
    image = str(images / "0.png")
    (line,) = predicted(capsys, str(run), "--image", image, *BEAM, "3", *SEVERAL, "2")
    best, second = (each["log_probability"] for each in line["captions"])
    assert best >= second
    sampled = ["--image", image, *SAMPLE, *SEVERAL, "4", "--decoding.temperature", "2", "--decoding.top-p", "0.9"]
    (line,) = predicted(capsys, str(run), *sampled)
    again, other = (predicted(capsys, str(run), *sampled, "--seed", seed)[0] for seed in ("0", "7"))
    assert again == line != other, "the run's own seed is 0"
    assert len(line["captions"]) == 4
    (line,) = predicted(capsys, str(run), "--image", image, "--decoding.prefix", "a small")
    assert line["captions"][0]["caption"].startswith("a small")
    choices = ["a large red circle", "a small blue star"]
    (line,) = predicted(capsys, str(run), "--image", image, "--choices", *choices)
    assert line["captions"][0]["caption"] in choices


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--question", "what?"], "question"),
        ([*BEAM, "0"], "decoding.num_beams is '0'"),
        ([*SAMPLE, *SEVERAL, "0"], "decoding.num_return_sequences is '0'"),
        ([*BEAM, "2", *SEVERAL, "3"], "num_return_sequences is 3.* num_beams is 2"),
        ([*BEAM, "2", "--decoding.top-p", "0.5"], "decoding.top_p belongs to decoding.kind=sample"),
        ([*BEAM, "2", "--seed", "1"], "--seed is for sampled captions"),
        ([*SAMPLE, "--decoding.top-p", "1.5"], "decoding.top_p is '1.5'"),
        (["--decoding.prefix", "a small red circle " * 9], "shorten it"),
        (["--choices"], "choices"),
    ],
)
def test_predict_refuses_in_one_line(run, images, options, message):
    with pytest.raises(InputError, match=message):
        predict.main([str(run), "--image", str(images / "0.png"), *options])


def test_a_folder_without_images_is_refused(run, tmp_path):
    with pytest.raises(InputError, match="a folder without an image"):
        predict.main([str(run), "--image", str(tmp_path)])


def test_the_model_is_counted_by_captions(capsys):
    assert inspect_model.main([PRESET]) == 0
    out = capsys.readouterr().out
    assert "captions: 1 of 24 tokens" in out and "FLOPs of a caption" in out
