"""Checkpoints: exact, strict, verified, and intact after a kill at any moment."""

import json
import logging
import math
import os
import random
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vlm_jax.config.vqa import VQA
from vlm_jax.errors import InputError
from vlm_jax.training import checkpoint_manifest
from vlm_jax.training.checkpoint import Checkpoints
from vlm_jax.training.step import TrainState, create_state

ROOT = Path(__file__).parent.parent.parent
CONFIG = VQA(name="saved")
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.constant_schedule(1e-3)))


def make_state(step=10, *, ema=True):
    """Every number in it follows from its step."""
    kernel = np.arange(48, dtype=np.float32).reshape(8, 6) + step
    params = {
        "trunk": {"layer_0": {"kernel": kernel, "bias": np.full(8, step, np.float32)}},
        "scale": np.float32([step]),
    }
    state = create_state(jax.tree.map(jnp.asarray, params), OPTIMIZER, ema=ema)
    filled = jax.tree.map(lambda x: x + step, state.opt_state)
    average = jax.tree.map(lambda x: x / 2, state.params) if ema else None
    return TrainState(jnp.asarray(step, jnp.int32), state.params, filled, average)


def zeros(state=None):
    return jax.tree.map(jnp.zeros_like, make_state() if state is None else state)


def save(folder, *steps, metrics=None):
    with Checkpoints(folder, config=CONFIG) as checkpoints:
        for step in steps:
            checkpoints.save(make_state(step), {"next_index": step * 8}, metrics and {"score": metrics[step]})


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), (_, y) in zip(*(jax.tree_util.tree_leaves_with_path(tree) for tree in (a, b)), strict=True):
        assert x.dtype == y.dtype, path
        np.testing.assert_array_equal(x, y, err_msg=str(path))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


@pytest.mark.parametrize("ema", [True, False])
def test_a_state_comes_back_bit_for_bit(folder, ema):
    state = make_state(ema=ema)
    state = state._replace(params=state.params | {"odd": jnp.asarray([0.1, -0.0, math.inf, 1e-42], jnp.bfloat16)})
    position = {"loader": {"next_index": 80, "name": "größer"}, "totals": {"seconds": 0.1}}
    with Checkpoints(folder, config=CONFIG) as checkpoints:
        checkpoints.save(state, position, None)
    with Checkpoints(folder, config=CONFIG) as checkpoints:
        assert checkpoints.latest() == 10
        restored, where = checkpoints.restore(zeros(state))
    assert_same(restored, state)
    assert where == position


def test_config_and_versions_are_in_the_checkpoint(folder):
    save(folder, 10)
    about = json.loads((folder / "10" / "about" / "metadata").read_text(encoding="utf-8"))
    assert about["config"]["name"] == "saved"
    assert about["versions"]["jax"] == jax.__version__
    assert about["step"] == 10


def test_parameters_and_their_average_are_read_alone(folder):
    save(folder, 10, 20, 30, metrics={10: 0.5, 20: 0.9, 30: 0.7})
    for item in ("opt_state", "data"):
        shutil.rmtree(folder / "30" / item)
    checkpoint_manifest.seal(folder / "30", 0.7, None)
    shapes = jax.eval_shape(lambda: make_state().params)
    with Checkpoints(folder) as checkpoints:
        for which, step in (("best", 20), ("latest", 30), ("20", 20)):
            params, restored_step = checkpoints.restore_params(shapes, which=which, ema=False)
            assert restored_step == step
            assert_same(params, make_state(step).params)
            assert_same(checkpoints.restore_params(shapes, which=which, ema=True)[0], make_state(step).ema)
        with pytest.raises(InputError, match=r"no checkpoint 'latset' in .*; choose one of: .*best, latest$"):
            checkpoints.restore_params(shapes, which="latset", ema=False)
        with pytest.raises(InputError, match=r"no checkpoint '25'"):
            checkpoints.restore_params(shapes, which="25", ema=False)


def test_an_average_that_was_not_kept_is_refused(folder):
    with Checkpoints(folder, config=CONFIG) as checkpoints:
        checkpoints.save(make_state(ema=False), {}, None)
        with pytest.raises(InputError, match=r"checkpoint 10 in .* holds no ema"):
            checkpoints.restore_params(make_state().params, which="latest", ema=True)


def test_before_the_first_checkpoint_the_answer_is_to_train(folder):
    with pytest.raises(InputError, match=r"has no checkpoint yet; train it first"):
        Checkpoints(folder)
    with Checkpoints(folder, config=CONFIG) as checkpoints:
        assert (checkpoints.latest(), checkpoints.best()) == (None, None)
        with pytest.raises(InputError, match=r"has no checkpoint yet; train it first"):
            checkpoints.restore_params(make_state().params, which="best", ema=False)
        with pytest.raises(InputError, match=r"has no checkpoint yet; train it first"):
            checkpoints.restore(make_state())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p | {"more": jnp.ones(2)}, r"the params of checkpoint 10 .*: missing more"),
        (lambda p: {"trunk": p["trunk"]}, r"extra scale"),
        (lambda p: p | {"scale": jnp.ones(2)}, r"scale is float32\[1\], expected float32\[2\]"),
        (lambda p: p | {"scale": jnp.ones(1, jnp.bfloat16)}, r"scale is float32\[1\], expected bfloat16\[1\]"),
        (
            lambda p: {"trunk": {"layer_1": p["trunk"]["layer_0"]}, "scale": p["scale"]},
            r"extra trunk/layer_0/bias; extra trunk/layer_0/kernel; "
            r"missing trunk/layer_1/bias; missing trunk/layer_1/kernel",
        ),
    ],
    ids=["missing", "extra", "shape", "dtype", "renamed"],
)
def test_a_load_is_strict_and_names_the_paths(folder, change, message):
    save(folder, 10)
    other = zeros()._replace(params=change(zeros().params))
    with Checkpoints(folder, config=CONFIG) as checkpoints:
        with pytest.raises(InputError, match=message):
            checkpoints.restore(other)
        with pytest.raises(InputError, match=message):
            checkpoints.restore_params(other.params, which="latest", ema=False)
    assert (folder / "10").is_dir()


def test_another_optimizer_is_refused_by_path(folder):
    save(folder, 10)
    params = make_state().params
    with (
        Checkpoints(folder, config=CONFIG) as checkpoints,
        pytest.raises(InputError, match=r"opt_state .* extra .*mu/scale"),
    ):
        checkpoints.restore(create_state(params, optax.sgd(0.1), ema=True))


def saved_steps(folder):
    return sorted(int(entry.name) for entry in folder.iterdir())


def test_the_newest_two_and_the_best_are_kept(folder):
    save(folder, 1, 2, 3, 4, 5, metrics={1: 0.1, 2: 0.9, 3: 0.3, 4: 0.4, 5: 0.2})
    assert saved_steps(folder) == [2, 4, 5]
    assert [entry.name for entry in folder.parent.iterdir()] == ["checkpoints"]
    with Checkpoints(folder) as checkpoints:
        assert (checkpoints.best(), checkpoints.latest()) == (2, 5)


def test_of_equals_the_later_is_the_best(folder):
    save(folder, 1, 2, 3, 4, metrics={1: 0.5, 2: 0.5, 3: 0.1, 4: 0.1})
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.best() == 2


@pytest.mark.parametrize("metrics", [{"score": math.nan}, {"score": math.inf}, {"other": 1.0}, {}, None])
def test_a_score_that_is_none_never_costs_the_best(folder, metrics):
    save(folder, 1, metrics={1: 0.5})
    with Checkpoints(folder, config=CONFIG) as checkpoints:
        for step in range(2, 7):
            checkpoints.save(make_state(step), {}, metrics)
        assert (checkpoints.best(), checkpoints.latest()) == (1, 6)
    with Checkpoints(folder, config=CONFIG) as checkpoints:
        assert (checkpoints.best(), checkpoints.latest()) == (1, 6)
        params, step = checkpoints.restore_params(zeros().params, which="best", ema=False)
    assert step == 1
    assert_same(params, make_state(1).params)


def test_without_scores_the_newest_is_the_best(folder):
    save(folder, 1, 2)
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.best() == 2


def test_an_older_step_is_not_dropped_in_silence(folder):
    save(folder, 20)
    with Checkpoints(folder, config=CONFIG) as checkpoints:
        with pytest.raises(RuntimeError, match=r"state of step 10 is older than the checkpoint of step 20"):
            checkpoints.save(make_state(10), {}, None)
        checkpoints.save(make_state(20), {}, None)  # there already
        assert checkpoints.latest() == 20


def files_of(step_folder):
    return sorted(path.relative_to(step_folder) for path in step_folder.rglob("*") if path.is_file())


def test_a_flipped_bit_in_any_file_falls_back_and_names_the_step(tmp_path, caplog):
    save(tmp_path / "good" / "checkpoints", 10, 20, metrics={10: 0.5, 20: 0.6})
    names = [
        name
        for name in files_of(tmp_path / "good" / "checkpoints" / "20")
        if (tmp_path / "good" / "checkpoints" / "20" / name).stat().st_size
    ]
    assert len(names) > 8
    for number, name in enumerate(names):
        folder = tmp_path / str(number) / "checkpoints"
        shutil.copytree(tmp_path / "good", folder.parent)
        content = bytearray((folder / "20" / name).read_bytes())
        content[len(content) // 2] ^= 1 << (number % 8)
        (folder / "20" / name).write_bytes(content)
        caplog.clear()
        with Checkpoints(folder, config=CONFIG) as checkpoints:
            restored, position = checkpoints.restore(zeros())
        assert_same(restored, make_state(10))
        assert position == {"next_index": 80}
        assert "checkpoint 20 in" in caplog.text, name
        assert "is damaged" in caplog.text and "using 10" in caplog.text and name.name in caplog.text


@pytest.mark.parametrize("damage", ["truncated", "missing", "swapped"])
def test_files_cut_short_lost_or_of_another_step_fall_back(folder, damage):
    save(folder, 10, 20)
    name = max(files_of(folder / "20"), key=lambda name: (folder / "20" / name).stat().st_size)
    if damage == "truncated":
        (folder / "20" / name).write_bytes((folder / "20" / name).read_bytes()[:-1])
    elif damage == "missing":
        (folder / "20" / name).unlink()
    else:
        shutil.rmtree(folder / "20" / "params")
        shutil.copytree(folder / "10" / "params", folder / "20" / "params")
    with Checkpoints(folder, config=CONFIG) as checkpoints:
        assert_same(checkpoints.restore(zeros())[0], make_state(10))


def damage(folder, step):
    name = max(files_of(folder / str(step)), key=lambda name: (folder / str(step) / name).stat().st_size)
    with (folder / str(step) / name).open("r+b") as file:
        first = file.read(1)[0]
        file.seek(0)
        file.write(bytes([first ^ 1]))


def test_after_a_fall_back_training_goes_on_over_the_same_steps(folder):
    for _ in range(2):
        save(folder, 20) if (folder / "10").exists() else save(folder, 10, 20)
        damage(folder, 20)
        with Checkpoints(folder, config=CONFIG) as checkpoints:
            assert int(checkpoints.restore(zeros())[0].step) == 10
            assert checkpoints.latest() == 10
    assert sorted(entry.name for entry in folder.parent.glob("damaged-*")) == ["damaged-20", "damaged-20-2"]
    with Checkpoints(folder, config=CONFIG) as checkpoints:
        checkpoints.save(make_state(20), {"next_index": 160}, {"score": 0.5})
        checkpoints.save(make_state(30), {"next_index": 240}, {"score": 0.4})
        assert checkpoints.best() == 20
        assert_same(checkpoints.restore(zeros())[0], make_state(30))


def test_without_its_manifest_a_checkpoint_does_not_exist(folder, caplog, monkeypatch):
    """A kill after Orbax committed and before the manifest is there."""
    save(folder, 10, metrics={10: 0.5})
    monkeypatch.setattr(checkpoint_manifest, "seal", lambda *_: None)
    save(folder, 20, metrics={20: 0.9})
    monkeypatch.undo()
    with Checkpoints(folder) as checkpoints:
        assert (checkpoints.best(), checkpoints.latest()) == (10, 10)
    assert "checkpoint 20 in" in caplog.text and (folder / "20").is_dir()
    caplog.clear()
    with Checkpoints(folder, config=CONFIG) as checkpoints:
        assert_same(checkpoints.restore(zeros())[0], make_state(10))
        assert "checkpoint 20 has no manifest.json" in caplog.text and (folder.parent / "damaged-20").is_dir()
        checkpoints.save(make_state(20), {}, {"score": 0.9})
        assert checkpoints.best() == 20


def test_several_checkpoints_without_any_manifest_are_refused_and_stay(folder):
    save(folder, 10, 20)
    for step in (10, 20):
        (folder / str(step) / "manifest.json").unlink()
    for _ in range(2):
        with pytest.raises(InputError, match=r"none of the checkpoints 10, 20 .* train again"):
            Checkpoints(folder, config=CONFIG)
    assert saved_steps(folder) == [10, 20]


def test_the_score_is_part_of_what_is_verified(folder, caplog):
    """The best checkpoint is chosen by it: one whose manifest is damaged is named, and the next best used."""
    save(folder, 10, 20, 30, metrics={10: 0.9, 20: 0.7, 30: 0.5})
    file = folder / "10" / "manifest.json"
    file.write_text(file.read_text().replace("0.9", "0.1"))
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.restore_params(zeros().params, which="best", ema=False)[1] == 20
        assert checkpoints.best() == 20
    assert "checkpoint 10 in" in caplog.text and "using 20" in caplog.text


def test_a_damaged_manifest_never_costs_a_checkpoint(folder):
    """It may have been the best: whoever puts the file back has it again."""
    save(folder, 10, 20, metrics={10: 0.9, 20: 0.7})
    file = folder / "10" / "manifest.json"
    before = file.read_bytes()
    file.write_bytes(before[:-9])
    save(folder, 30, 40, metrics={30: 0.1, 40: 0.2})
    assert saved_steps(folder) == [10, 20, 30, 40]
    file.write_bytes(before)
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.best() == 10


def test_a_checkpoint_of_another_setup_is_not_used(folder, caplog):
    made = {"answers.json": "ab", "model.hidden_size": 64, "data.image.mean": [0.5, 0.5, 0.5]}
    for step, made_with in ((10, made), (20, made | {"answers.json": "cd"})):
        with Checkpoints(folder, config=CONFIG, made_with=made_with) as checkpoints:
            checkpoints.save(make_state(step), {}, {"score": step / 100})
    with Checkpoints(folder, made_with=made) as checkpoints:
        assert checkpoints.restore_params(zeros().params, which="best", ema=False)[1] == 10
    assert "another answers.json" in caplog.text
    for name, value in (("model.hidden_size", 32), ("data.image.mean", [0.4, 0.5, 0.5])):
        with (
            Checkpoints(folder, made_with=made | {name: value}) as checkpoints,
            pytest.raises(InputError, match=rf"checkpoint 10: it was trained with another {name} than"),
        ):
            checkpoints.restore_params(zeros().params, which="best", ema=False)


def test_accepting_a_run_never_accepts_damaged_numbers(folder):
    save(folder, 10, 20)
    damage(folder, 20)
    assert checkpoint_manifest.accept(folder, {}) == []
    assert ["checkpoint 20 stays out of use" in line for line in checkpoint_manifest.damaged(folder)] == [True]
    with Checkpoints(folder, made_with={}) as checkpoints:
        assert checkpoints.restore_params(zeros().params, which="latest", ema=False)[1] == 10


def test_the_error_names_all_damaged_checkpoints(folder):
    save(folder, 10, 20)
    damage(folder, 10)
    damage(folder, 20)
    for _ in range(2):  # the second start must not find an empty folder and train from the beginning
        with (
            Checkpoints(folder, config=CONFIG) as checkpoints,
            pytest.raises(InputError, match=r"all 2 checkpoints in .* are damaged"),
        ):
            checkpoints.restore(zeros())


def test_a_damaged_best_gives_way_with_a_warning_and_reading_changes_nothing(folder, caplog):
    save(folder, 10, 20, 30, metrics={10: 0.9, 20: 0.5, 30: 0.6})
    damage(folder, 10)
    before = sorted(path for path in folder.parent.rglob("*"))
    with Checkpoints(folder) as checkpoints:
        params, step = checkpoints.restore_params(zeros().params, which="best", ema=False)
    assert step == 30
    assert_same(params, make_state(30).params)
    assert "checkpoint 10 in" in caplog.text and "is damaged" in caplog.text and "using 30" in caplog.text
    assert sorted(path for path in folder.parent.rglob("*")) == before


def test_a_warning_reaches_a_person(folder):
    save(folder, 10, 20)
    damage(folder, 20)
    code = f"""
        import sys
        from pathlib import Path
        from vlm_jax.command_line import run_command
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        def main(argv):
            from test_checkpoint import CONFIG, Checkpoints, zeros
            with Checkpoints(Path({str(folder)!r}), config=CONFIG) as checkpoints:
                print(int(checkpoints.restore(zeros())[0].step))
        run_command(main, [])
    """
    answer = run(code)
    assert answer.stdout == "10\n"
    assert answer.stderr.startswith("WARNING: checkpoint 20 in ")
    assert answer.stderr.count("\n") == 1


def test_an_empty_or_foreign_folder_is_no_step(folder):
    save(folder, 10)
    (folder / "3").mkdir()
    (folder / "30").mkdir()
    (folder / "40").mkdir()
    (folder / "40" / "notes.txt").write_text("mine", encoding="utf-8")
    with Checkpoints(folder) as checkpoints:
        assert (checkpoints.latest(), checkpoints.best()) == (10, 10)
        assert checkpoints.restore_params(zeros().params, which="latest", ema=False)[1] == 10
    with Checkpoints(folder, config=CONFIG) as checkpoints:
        assert checkpoints.latest() == 10
        checkpoints.save(make_state(20), {}, None)
        assert_same(checkpoints.restore(zeros())[0], make_state(20))
    assert (folder.parent / "damaged-40" / "notes.txt").exists()


def test_a_renamed_folder_is_not_taken_for_another_step(folder):
    save(folder, 10, 20)
    (folder / "20").rename(folder / "90")
    with Checkpoints(folder, config=CONFIG) as checkpoints:
        assert_same(checkpoints.restore(zeros())[0], make_state(10))


def run(code, *arguments, devices=1):
    environment = {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=120)


SHARDED = """
    import sys
    sys.path.insert(0, {tests!r})
    from test_checkpoint import *
    from jax.sharding import AxisType, NamedSharding, PartitionSpec
    assert len(jax.devices()) == 4
    mesh = jax.make_mesh((4,), ("fsdp",), axis_types=(AxisType.Auto,))
    def place(x):
        return NamedSharding(mesh, PartitionSpec("fsdp") if x.ndim and x.shape[0] % 4 == 0 else PartitionSpec())
    spread = lambda state: jax.tree.map(lambda x: jax.device_put(x, place(x)), state)
    folder = Path({folder!r})
"""


def sharded(folder, code):
    header = textwrap.dedent(SHARDED.format(tests=str(Path(__file__).parent), folder=str(folder)))
    answer = run(header + textwrap.dedent(code), devices=4)
    assert answer.returncode == 0, answer.stderr


def test_one_device_to_four(folder):
    save(folder, 10)
    sharded(
        folder,
        """
        with Checkpoints(folder, config=CONFIG) as checkpoints:
            state, position = checkpoints.restore(spread(zeros()))
        assert_same(state, make_state(10))
        kernel = state.params["trunk"]["layer_0"]["kernel"]
        assert len(kernel.addressable_shards) == 4 and kernel.addressable_shards[0].data.shape == (2, 6)
        mu = state.opt_state[1][0].mu["trunk"]["layer_0"]["kernel"]
        assert mu.addressable_shards[0].data.shape == (2, 6)
        assert position == {"next_index": 80}
        """,
    )


def test_four_devices_to_one(folder):
    sharded(
        folder,
        """
        with Checkpoints(folder, config=CONFIG) as checkpoints:
            checkpoints.save(spread(make_state(10)), {"next_index": 80}, {"score": 0.5})
        """,
    )
    with Checkpoints(folder, config=CONFIG) as checkpoints:
        state, _ = checkpoints.restore(zeros())
        assert_same(state, make_state(10))
    shapes = jax.eval_shape(lambda: make_state().params)  # says nothing about devices
    with Checkpoints(folder) as checkpoints:
        assert_same(checkpoints.restore_params(shapes, which="best", ema=False)[0], make_state(10).params)


LOOP = """
    import sys
    sys.path.insert(0, {tests!r})
    from test_checkpoint import *
    folder = Path(sys.argv[1])
    with Checkpoints(folder, config=CONFIG) as checkpoints:
        step = 0
        if checkpoints.latest() is not None:
            state, position = checkpoints.restore(zeros())
            step = int(state.step)
            assert_same(state, make_state(step))
            assert position == {{"next_index": step * 8}}
        print("from", step, flush=True)
        while True:
            step += 1
            scores = {{"score": 1 / step}} if step % 3 else None
            checkpoints.save(make_state(step), {{"next_index": step * 8}}, scores)
            print("saved", step, flush=True)
"""


def test_killed_at_any_moment_the_newest_state_is_intact(folder, caplog):
    """Real kills, one process after the other in the same folder, each resuming where the last one was killed."""
    code = textwrap.dedent(LOOP.format(tests=str(Path(__file__).parent)))
    moment = random.Random(0)
    promised = 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started = process.stdout.readline().split()
        assert started[:1] == ["from"], process.communicate()[1]
        assert int(started[1]) >= promised
        process.stdout.readline()
        time.sleep(moment.uniform(0.0, 0.6))
        process.kill()
        output = process.communicate()[0].split()
        promised = int(output[-1]) if output and output[-1].isdigit() else int(started[1]) + 1
        assert int(started[1]) < promised
        with Checkpoints(folder, config=CONFIG) as checkpoints:
            state, position = checkpoints.restore(zeros())
            step = int(state.step)
            assert step >= promised
            assert_same(state, make_state(step))
            assert position == {"next_index": step * 8}
            best = checkpoints.best()
            assert_same(checkpoints.restore_params(zeros().params, which="best", ema=True)[0], make_state(best).ema)
    warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert all("has no manifest.json" in text for text in warned)  # killed between the two
