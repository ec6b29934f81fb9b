"""A run goes on wherever its data are and with whatever changes no parameter, bit for bit; with other data never."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import accept, compare, evaluate, predict
from experiments.train import main as train
from vlm_jax.config.encoders import Patches
from vlm_jax.config.optimizers import AdamW
from vlm_jax.config.run import TextTraining
from vlm_jax.config.trunk import TextInput
from vlm_jax.config.vqa import VQA, Model
from vlm_jax.data.image_settings import AugmentedImages
from vlm_jax.data.user_files.table import TableQuestions
from vlm_jax.errors import InputError
from vlm_jax.run_claim import claim
from vlm_jax.run_folder import RunFolder
from vlm_jax.settings.changes import to_json, with_changes
from vlm_jax.settings.effects import Effect, effects
from vlm_jax.settings.groups import flat, tree_of
from vlm_jax.training.checkpoint import Checkpoints
from vlm_jax.training.loop import Trainer
from vlm_jax.training.optimizer import make_optimizer
from vlm_jax.training.setup import make_encoder, make_task
from vlm_jax.training.step import create_state
from vlm_jax.trees import flatten

SPLITS = {"train": range(8), "validation": range(8, 12), "test": range(12, 16)}
STEPS, MORE = 3, 6
WORDS = 17  # what the tokenizer of these texts has: a run that starts from it has as many
# Another value of every setting that may change and is not about places.
CHANGED = {
    "name": "another",
    "data.max_pixels": 10_000,
    "data.bad_rows": "skip",
    "data.columns": ("image=image",),
    "data.threads": 1,
    "data.cache_gigabytes": 1.0,
    "compute.compilation_cache": False,
    "data.accuracy": "vqa",
    "data.evaluation_limit": 3,
    "training.log_every": 1,
    "training.evaluate_every": 2,
    "training.evaluation_batch_images": 5,
}


def write_data(place):
    (place / "images").mkdir(parents=True)
    for number in range(16):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "images" / f"{number}.png")
    for split, numbers in SPLITS.items():
        write_rows(place, split, [(f"{n}.png", f"is it {n % 4}?", ["yes", "no"][n % 2]) for n in numbers])


def write_rows(place, split, rows):
    lines = [json.dumps({"image": image, "question": text, "answers": [answer]}) for image, text, answer in rows]
    (place / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def places(place):
    """The settings that say where the data is."""
    return {"data.images": place / "images", **{f"data.{split}": (place / f"{split}.jsonl",) for split in SPLITS}}


def config_of(place, *, steps=STEPS, **changes):
    config = VQA(
        name="small",
        data=TableQuestions(images=Path("images"), train=(Path("train"),), directory=place.parent / "kept"),
        image=AugmentedImages(size=(16, 16), flip=True, shift=2),
        model=Model(
            hidden_size=8,
            num_attention_heads=1,
            num_layers=1,
            intermediate_size=8,
            hidden_dropout_prob=0.1,
            image=Patches(patch_size=8),
            text=TextInput(vocab_size=WORDS, max_length=8),
        ),
        optimizer=AdamW(schedule="constant", warmup_steps=2, ema=0.9),
        training=TextTraining(steps=steps, batch_images=4, evaluate_every=MORE),
    )
    return with_changes(config, places(place) | changes)


def go(config, folder):
    """Train to the end; what was said, and the result."""
    lines = []
    with claim(folder, config) as run:
        result = Trainer(config, run, write_line=lines.append).run()
    return lines, result


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    place = tmp_path_factory.mktemp("data") / "here"
    write_data(place)
    return place


@pytest.fixture(scope="module")
def short(data, tmp_path_factory):
    """A run that has ended after `STEPS`."""
    folder = tmp_path_factory.mktemp("short") / "run"
    go(config_of(data), folder)
    return folder


@pytest.fixture
def copy(short, tmp_path):
    return shutil.copytree(short, tmp_path / "run")


@pytest.fixture
def moved(data, tmp_path):
    return shutil.copytree(data, tmp_path / "far" / "there")


def saved(folder, step):
    """The state of a step and its data position, as its checkpoint has them."""
    run = RunFolder(folder)
    config = run.config()
    task = make_task(config, make_encoder(config, run), run)

    def initial():
        params = task.init_params(jax.random.key(0))
        return create_state(params, make_optimizer(config.optimizer, params, steps=step), ema=True)

    with Checkpoints(run.checkpoints) as checkpoints:
        assert checkpoints.latest() == step
        state, position = checkpoints.restore(jax.eval_shape(initial))
    return flatten({"params": state.params, "ema": state.ema}), position["loader"]


def test_every_setting_that_may_change_is_changed_here(data):
    """`compute` rounds, sources and the length have tests of their own."""
    marks = effects(config_of(data))
    free = {name for name, mark in marks.items() if mark in (Effect.PLACE, Effect.SPEED, Effect.USE)}
    assert free == {*CHANGED, *places(data), "data.directory"}
    before = flat(tree_of(config_of(data)))
    assert [name for name, value in CHANGED.items() if before[name] == value] == []


def test_a_longer_run_on_moved_data_with_all_that_may_change_ends_bit_for_bit_as_one_that_never_stopped(
    data, copy, moved, tmp_path, capsys
):
    go(config_of(data, steps=MORE), tmp_path / "whole")
    changed = config_of(moved, steps=MORE, **CHANGED)
    capsys.readouterr()
    _, result = go(changed, copy)
    output = capsys.readouterr().out.split("\n")
    (continued, position), (uninterrupted, its_position) = saved(copy, MORE), saved(tmp_path / "whole", MORE)
    assert position == its_position
    assert {name: leaf.tobytes() for name, leaf in continued.items()} == {
        n: leaf.tobytes() for n, leaf in uninterrupted.items()
    }

    rows = {row["setting"]: row for row in result["history"]}
    assert set(rows) == {*CHANGED, *places(moved), "data.directory", "training.steps"}
    assert rows["data.threads"] == {"step": STEPS, "setting": "data.threads", "before": 2, "after": 1}
    lines = [line for line in output if line.startswith(f"changed after optimizer step {STEPS}: ")]
    assert len(lines) == len(rows) and "training.steps: 3 -> 6" in " ".join(lines)
    assert RunFolder(copy).config() == changed and result["config"]["data"]["threads"] == 1
    earlier = json.loads((copy / f"result-step-{STEPS}.json").read_text(encoding="utf-8"))
    assert earlier["history"] == [] and earlier["config"]["training"]["steps"] == STEPS
    assert earlier["data"]["train"] == result["data"]["train"] and set(result["data"]) == set(SPLITS)


@pytest.mark.slow
def test_a_run_under_a_schedule_that_decays_is_not_trained_longer_and_both_ways_out_work(data, tmp_path, capsys):
    """The other way, a constant schedule from the start, is what the test above goes."""
    decaying = config_of(data, **{"optimizer.schedule": "cosine"})
    _, first = go(decaying, tmp_path / "run")
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(InputError, match=r"training\.steps 3, on which its learning rates depend") as refused:
        go(config_of(data, steps=MORE, **{"optimizer.schedule": "cosine"}), tmp_path / "run")
    assert (tmp_path / "run" / "config.json").read_bytes() == before
    way = f"--init.kind model --init.model {tmp_path / 'run'} --workdir {tmp_path / 'run-2'};"
    assert way in str(refused.value) and "--optimizer.schedule constant" in str(refused.value)
    file = tmp_path / "config.json"
    file.write_text(to_json(config_of(data, steps=MORE, **{"optimizer.schedule": "cosine"})), encoding="utf-8")
    assert train([str(file), *way.rstrip(";").split()]) == 0
    (source,) = RunFolder(tmp_path / "run-2").weights()["sources"]
    assert source["source"] == f"{tmp_path / 'run'}, step {first['checkpoint_step']}"
    assert RunFolder(tmp_path / "run-2").weights()["fresh"] == []
    capsys.readouterr()


def test_fewer_steps_are_refused_and_the_same_end_is_not_trained_again(data, copy, capsys):
    (copy / "result.json").unlink()
    with pytest.raises(InputError, match=r"has taken 3 optimizer steps; training\.steps 2 must be at least that"):
        go(config_of(data, steps=2), copy)
    go(config_of(data), copy)
    file = copy.parent / "config.json"
    file.write_text(to_json(config_of(data, **{"data.threads": 1})), encoding="utf-8")
    before = (copy / "config.json").read_bytes()
    assert train([str(file), "--workdir", str(copy)]) == 0
    output = capsys.readouterr().out
    assert (
        "nothing to do" in output and "data.threads: 2 -> 1" in output and (copy / "config.json").read_bytes() == before
    )


def swap(place):
    shutil.copyfile(place / "images" / "9.png", place / "images" / "2.png")


def answer(split, place):
    rows = [json.loads(line) for line in (place / f"{split}.jsonl").read_text(encoding="utf-8").strip().split("\n")]
    rows[1]["answers"] = ["no" if rows[1]["answers"] == ["yes"] else "yes"]
    write_rows(place, split, [(row["image"], row["question"], row["answers"][0]) for row in rows])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swap, r"another train split: 1 image with another image, text or answer, the first '2.png'"),
        (lambda place: answer("train", place), r"another train split: .*, the first '1.png'"),
        (lambda place: answer("validation", place), r"another validation split: .*, the first '9.png'"),
        (lambda place: answer("test", place), r"another test split: .*, the first '13.png'"),
    ],
)
def test_with_other_data_a_run_does_not_go_on(copy, moved, change, message):
    change(moved)
    if "test split" not in message:
        (copy / "result.json").unlink()
    names = ("config.json", "data.json", "answers.json", "tokenizer.json")
    before = {name: (copy / name).read_bytes() for name in names}
    with pytest.raises(InputError, match=message):
        go(config_of(moved, steps=STEPS if "test split" not in message else STEPS + 1), copy)
    if "test split" not in message:
        assert {name: (copy / name).read_bytes() for name in names} == before and not (copy / "history.json").exists()


def test_deliberately_changed_data_are_accepted_by_the_command_of_the_message(copy, moved, capsys):
    config = config_of(moved, steps=STEPS + 1)
    RunFolder(copy).write_text("config.json", to_json(config))
    answer("train", moved)
    with pytest.raises(InputError, match=r"another train split.*'1.png'") as refused:
        go(config, copy)
    before, arguments = (copy / "data.json").read_bytes(), [str(copy), "--data"]
    assert accept.main(arguments) == 0 and "train split: 1 image with another" in capsys.readouterr().out
    assert (copy / "data.json").read_bytes() == before
    assert f"python -m vlm_jax accept {' '.join(arguments)} --yes" in str(refused.value)
    assert accept.main([*arguments, "--yes"]) == 0 and "train split" in capsys.readouterr().out
    assert accept.main(arguments) == 0 and "split" not in capsys.readouterr().out
    output, _ = go(config, copy)
    assert any("resuming" in line for line in output)


def test_a_moved_run_is_evaluated_predicted_and_compared(copy, data, moved, tmp_path, capsys):
    config = config_of(moved, seed=3)
    go(config, tmp_path / "other")
    gone = with_changes(RunFolder(copy).config(), places(tmp_path / "gone"))
    RunFolder(copy).write_text("config.json", to_json(gone))
    with pytest.raises(InputError, match="gone"):
        evaluate.main([str(copy), "--split", "validation"])
    images, *files = places(moved).items()
    change = [f"{images[0]}={images[1]}", *(f"{name}={json.dumps([str(file)])}" for name, (file,) in files)]
    assert evaluate.main([str(copy), "--split", "validation", "--change", *change, "data.threads=1"]) == 0
    assert (copy / "result-validation.json").exists(), "places are no part of its name"
    one_file = [f"data.train={moved / 'train.jsonl'}", *change[:1], *change[2:]]
    assert evaluate.main([str(copy), "--split", "validation", "--change", *one_file]) == 0
    assert predict.main([str(copy), "--image", str(moved / "images" / "1.png"), "--question", "is it 1?"]) == 0
    assert compare.main([str(copy), str(tmp_path / "other")]) == 0
    assert "4 items on 4 images" in capsys.readouterr().out
    answer("validation", moved)
    with pytest.raises(InputError, match=r"another validation split: .*'9.png'"):
        evaluate.main([str(copy), "--split", "validation", "--change", *change])
    known = RunFolder(copy).data()
    known["test"]["items"]["12.png"] = known["test"]["sha256"] = "0" * 16
    RunFolder(copy).write_json("data.json", known)
    with pytest.raises(InputError, match=r"other test images \(1 image with another image.*'12.png'\)"):
        compare.main([str(copy), str(tmp_path / "other")])


@pytest.mark.parametrize("change", ["seed=3", "model.hidden_size=16", "optimizer.epsilon=0.5", "compute.devices=1"])
def test_what_was_learned_with_is_not_changed_in_an_evaluation(copy, change):
    with pytest.raises(InputError, match=change.partition("=")[0]):
        evaluate.main([str(copy), "--split", "validation", "--change", change])


def test_a_misspelt_setting_is_named_with_the_nearest(copy):
    with pytest.raises(InputError, match=r"'data\.thread'.* data\.threads"):
        evaluate.main([str(copy), "--split", "validation", "--change", "data.thread=3"])


@pytest.mark.slow
def test_other_devices_are_printed_and_recorded(data, copy, monkeypatch, capsys):
    monkeypatch.setattr(Trainer, "_devices", lambda _: "8 x another kind")
    _, result = go(config_of(data, steps=STEPS + 1, **{"compute.devices": 1}), copy)
    rows = [(row["setting"], row["before"], row["after"]) for row in result["history"]]
    assert rows == [
        ("training.steps", STEPS, STEPS + 1),
        ("compute.devices", None, 1),
        ("devices", "1 x cpu", "8 x another kind"),
    ]
    assert capsys.readouterr().out.count("differ by rounding") == 2


@pytest.mark.slow
def test_a_source_may_lie_elsewhere_and_has_to_be_the_same(data, short, tmp_path):
    old_folder, new_folder = tmp_path / "here", tmp_path / "there"
    old_folder.mkdir()
    shutil.copyfile(short / "tokenizer.json", old_folder / "tokenizer.json")
    shutil.copytree(short, old_folder / "run")

    def sources(place):
        return {"model.text.tokenizer": str(place / "tokenizer.json"), "init.model": str(place / "run")}

    started = {"init.kind": "model"}
    go(config_of(data, **started, **sources(old_folder)), tmp_path / "run")
    old_folder.rename(new_folder)
    output, _ = go(config_of(data, steps=STEPS + 1, **started, **sources(old_folder)), tmp_path / "run")
    assert any("resuming" in line for line in output), "what was taken from them is in the run's folder"
    _, result = go(config_of(data, steps=STEPS + 2, **started, **sources(new_folder)), tmp_path / "run")
    assert {row["setting"] for row in result["history"]} == {*sources(new_folder), "training.steps"}

    words = json.loads((new_folder / "tokenizer.json").read_text(encoding="utf-8"))
    other = tmp_path / "tokenizer.json"
    other.write_text(json.dumps(words | {"normalizer": None}), encoding="utf-8")
    for setting, value in (("model.text.tokenizer", other), ("init.model", tmp_path / "run")):
        with pytest.raises(InputError, match=rf"{setting} {value} is not what .* began with"):
            changes = started | sources(new_folder) | {setting: str(value)}
            go(config_of(data, steps=STEPS + 3, **changes), tmp_path / "run")
