"""No file of a run is believed: each is as it was written, or named; and the newest good state is used."""

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import accept, evaluate, predict, report, train
from vlm_jax.ablation.records import read_items, read_run
from vlm_jax.config.initialization import PixelModelInit
from vlm_jax.config.vqa import VQA
from vlm_jax.data.sources import open_split
from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.errors import InputError
from vlm_jax.integrity import entries_below, matches_digests, read_manifest, write_digests, write_manifest
from vlm_jax.run_claim import claim
from vlm_jax.run_folder import RunFolder, open_run
from vlm_jax.settings.changes import to_json
from vlm_jax.training import checkpoint_manifest
from vlm_jax.training.checkpoint import Checkpoints
from vlm_jax.training.pretrained import open_pretrained, text_side_of_run, tokenizer_source
from vlm_jax.training.setup import make_encoder

UNREAD = ("predictions.png", "lock")  # written for people, or about the process that has the run


@pytest.fixture(scope="module")
def good(trained, tmp_path_factory):
    """A finished run with two checkpoints, the older one the best."""
    folder = tmp_path_factory.mktemp("good") / "run"
    shutil.copytree(trained, folder)
    run = RunFolder(folder)
    for step, score in zip(checkpoint_manifest.steps(run.checkpoints), (0.9, 0.8), strict=True):
        checkpoint_manifest.seal(run.checkpoints / str(step), score, run.made_with())
    return folder


@pytest.fixture
def run(good, tmp_path):
    """A copy of it."""
    return copied(good, tmp_path / "run")


def copied(run, to):
    shutil.copytree(run, to, copy_function=os.link)  # no file is written in its place
    return to


def overwrite(file, content):
    file.unlink()
    file.write_bytes(content)


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    overwrite(file, bytes(content))


def cut(file):
    overwrite(file, file.read_bytes()[:-1])


def bits(tree):
    leaves = jax.tree.leaves(tree)
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()


def parameters(checkpoints, which):
    params, step = checkpoints.restore_params(None, which=which, ema=False)
    return step, bits(params)


def read(path):
    """All that evaluate, predict, compare and report read of a run: its step and parameters, and the rest."""
    folder = open_run(path)
    config = folder.config()
    encode = make_encoder(config, folder)
    with Checkpoints(folder.checkpoints, made_with=folder.made_with()) as checkpoints:
        state = parameters(checkpoints, "best")
    record = read_run(folder)
    vocabulary = (encode.tokenizer.tokens(["is there a red circle?"]), encode.answers.answers)
    items = read_items(path, config.task) if folder.finished else None
    return state, [config, vocabulary, record.curve, record.weights, record.result, items]


def resume(path, config):
    """All that train reads of a run to go on with it."""
    with claim(path, config) as folder:
        encode = make_encoder(config, folder)
        with Checkpoints(folder.checkpoints, config=config, made_with=folder.made_with()) as checkpoints:
            return parameters(checkpoints, "latest"), [encode.answers.answers]


DAMAGES = (flip, cut, os.remove)


def damages(good, step):
    """Each file of a run and of the checkpoint of a step, with one thing that happens to it."""
    for number, path in enumerate(sorted(path for path in good.rglob("*") if path.is_file())):
        name = path.relative_to(good)
        if name.parts[0] == "checkpoints":
            if name.parts[1] == str(step):
                yield name, DAMAGES[number % 3] if path.stat().st_size else os.remove
        elif name.name not in UNREAD and name.parts[0] != "tensorboard":
            yield name, DAMAGES[number % 3]


# A checkpoint's files are read alike by both.
@pytest.mark.parametrize(
    ("use", "of_checkpoint"),
    [(read, False), (read, True), (resume, False), pytest.param(resume, True, marks=pytest.mark.slow)],
)
def test_whatever_happens_to_a_file_it_is_named_or_the_newest_good_state_is_used(
    good, tmp_path, caplog, use, of_checkpoint
):
    options = (RunFolder(good).config(),) if use is resume else ()
    (step, _), expected = use(copied(good, tmp_path / "good"), *options)
    with Checkpoints(good / "checkpoints") as checkpoints:
        states = dict(parameters(checkpoints, str(entry)) for entry in checkpoint_manifest.steps(good / "checkpoints"))
    assert len(set(states.values())) == 2
    cases = [case for case in damages(good, step) if (case[0].parts[0] == "checkpoints") == of_checkpoint]
    assert len(cases) > (15 if of_checkpoint else 5)
    for number, (name, damage) in enumerate(cases):
        path = copied(good, tmp_path / str(number))
        damage(path / name)
        caplog.clear()
        try:
            (restored_step, state), values = use(path, *options)
        except InputError as error:
            assert name.name in str(error) and "\n" not in str(error), (name, error)
            continue
        warned = " ".join(entry.getMessage() for entry in caplog.records if entry.levelno >= logging.WARNING)
        assert state == states[restored_step]
        if name.parts[0] == "checkpoints":
            assert restored_step != step and f"checkpoint {step}" in warned, name
        if damage is os.remove and name.name == "result.json" and use is read:
            assert values == [*expected[:4], {}, None]  # a run that has not ended
        else:
            assert values == expected, name


def edit_json(file, change):
    value = json.loads(file.read_text(encoding="utf-8"))
    changed = change(value)
    overwrite(file, json.dumps(value if changed is None else changed).encode())


EDITS = {
    "answers swapped": ("answers.json", lambda answers: [answers[1], answers[0], *answers[2:]]),
    "answer misspelt": ("answers.json", lambda answers: [answers[0] + "s", *answers[1:]]),
    "mean": ("config.json", lambda config: config["image"].update(mean=[0.4, 0.5, 0.5])),
    "positions": ("config.json", lambda config: config["model"]["image"].update(positions="grid")),
    "words swapped": ("tokenizer.json", lambda file: file["model"]["vocab"].update({"is": 6, "there": 7})),
    "score": ("result.json", lambda result: result["metrics"].update(accuracy=0.99)),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_is_named_by_every_reader_and_accepted_when_it_is_meant(run, edit, capsys):
    name, change = EDITS[edit]
    edit_json(run / name, change)
    if edit == "score":
        commands = [lambda: evaluate.main([str(run)]), lambda: report.main([str(run)])]
    else:
        commands = [
            lambda: read(run),
            lambda: evaluate.main([str(run), "--split", "validation"]),
            lambda: predict.main([str(run), "--image", str(run / "predictions.png"), "--question", "what?"]),
            lambda: open_pretrained(str(run)),
            lambda: text_side_of_run(run),
        ]
    if name == "tokenizer.json":
        commands[3] = lambda: tokenizer_source(VQA(init=PixelModelInit(model=str(run))))
    for command in commands:
        with pytest.raises(InputError, match=rf"{run / name} .* vlm_jax accept {run} --yes"):
            command()
    assert accept.main([str(run)]) == 0
    output = capsys.readouterr().out
    assert name in output and "nothing was changed" in output
    with pytest.raises(InputError):
        commands[0]()
    assert accept.main([str(run), "--yes"]) == 0
    assert read(run)[0][0] == min(checkpoint_manifest.steps(run / "checkpoints"))
    capsys.readouterr()
    assert accept.main([str(run)]) == 0
    assert capsys.readouterr().out == "everything is as it was written\n"


@pytest.mark.parametrize("name", ["answers.json", "config.json"])
def test_checkpoints_detect_an_edit_with_its_digest_rewritten(run, name):
    """As a script would that knows how manifests are written, and not what a checkpoint keeps."""
    change = EDITS["answers swapped" if name == "answers.json" else "mean"][1]
    edit_json(run / name, change)
    RunFolder(run).seal(name)
    with pytest.raises(InputError, match=f"another {'answers.json' if name == 'answers.json' else 'image.mean'}"):
        read(run)


def test_a_digest_rewritten_by_hand_is_detected(run):
    edit_json(run / "answers.json", EDITS["answers swapped"][1])
    digest = hashlib.sha256((run / "answers.json").read_bytes()).hexdigest()
    entry = {"bytes": (run / "answers.json").stat().st_size, "sha256": digest}
    edit_json(run / "manifest.json", lambda manifest: manifest["files"].update({"answers.json": entry}))
    with pytest.raises(InputError, match=rf"{run}/manifest\.json is not as it was written"):
        read(run)


def test_a_token_beyond_the_table_is_named(run):
    rows = RunFolder(run).config().model.text.vocab_size
    edit_json(run / "tokenizer.json", lambda file: file["model"]["vocab"].update(zebra=rows + 3))
    assert accept.main([str(run), "--yes"]) == 0
    with pytest.raises(InputError, match=rf"the token 'zebra' .* has the id {rows + 3}, .* has {rows} rows"):
        read(run)


def test_a_run_without_its_manifest_is_refused_and_accepted(run, capsys):
    config, before = RunFolder(run).config(), read(run)
    (run / "manifest.json").unlink()
    for command in (lambda: read(run), lambda: resume(run, config), lambda: report.main([str(run)])):
        with pytest.raises(InputError, match=rf"holds checkpoints and no manifest\.json.*accept {run} --yes"):
            command()
    assert accept.main([str(run), "--yes"]) == 0
    assert "config.json is in no manifest.json" in capsys.readouterr().out
    assert read(run) == before


def test_a_run_of_another_version_is_refused_in_one_line(run):
    edit_json(run / "config.json", lambda config: config["model"].update(former=config["model"].pop("fusion")))
    RunFolder(run).seal("config.json")
    for command in (lambda: read(run), lambda: report.main([str(run)]), lambda: accept.main([str(run), "--yes"])):
        with pytest.raises(InputError, match=r"config\.json cannot be used: no setting 'model\.former.*; train again$"):
            command()


def test_the_record_of_a_run_needs_no_manifest(run, tmp_path):
    record = tmp_path / "record"
    record.mkdir()
    for name in ("config.json", "result.json", "metrics.jsonl"):
        shutil.copyfile(run / name, record / name)
    assert report.main([str(record), "--output", str(tmp_path / "report")]) == 0


def test_a_result_that_was_not_written_to_the_end_is_none(run):
    """Killed after the result and before the manifest lists it: the run has not ended."""
    RunFolder(run).unseal("result.json", "predictions.jsonl")
    assert not RunFolder(run).finished
    with pytest.raises(InputError, match=r"result\.json is not in manifest\.json"):
        RunFolder(run).result()
    with pytest.raises(InputError, match=r"predictions\.jsonl is not in manifest\.json"):
        read_items(run, "vqa")


@pytest.mark.parametrize("text", ["{", "[]", "\x80", "5"])
@pytest.mark.parametrize("name", ["weights.json", "trained_as.json", "result.json"])
def test_a_broken_file_of_a_record_is_named(tmp_path, name, text):
    """A record has no manifest to tell."""
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    folder = RunFolder(tmp_path)
    readers = {"weights.json": folder.weights, "trained_as.json": folder.trained_as, "result.json": folder.result}
    with pytest.raises(InputError, match=name):
        readers[name]()


def test_half_a_set_up_is_made_again(trained, tmp_path):
    """Killed while the tokenizer was being written: nothing has been trained by it."""
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copyfile(trained / "config.json", folder / "config.json")
    (folder / "tokenizer.json").write_text('{"half')
    (folder / "answers.json").write_text("[]")
    config = RunFolder(trained).config()
    encode = make_encoder(config, RunFolder(folder), open_split(config.data, "train"))
    assert encode.answers == make_encoder(config, RunFolder(trained)).answers
    assert (folder / "tokenizer.json").read_bytes() == (trained / "tokenizer.json").read_bytes()
    with pytest.raises(InputError, match="the run never started"):
        make_encoder(config, RunFolder(folder))


def test_what_a_run_writes_again_is_listed_as_it_is(run):
    folder = RunFolder(run)
    folder.write_text("config.json", to_json(folder.config()) + "\n")
    assert folder.config() == open_run(run).config()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_while_a_listed_file_is_replaced_the_old_or_the_new_one_counts(run, monkeypatch, moment):
    folder, replace = RunFolder(run), Path.replace
    text = to_json(folder.config())
    other = text.replace('"threads": ', '"threads": 1')

    def killed(part, file):
        if moment == "after":
            replace(part, file)
        if file.name == "config.json":
            raise KeyboardInterrupt
        return replace(part, file) if moment == "before" else None

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.write_text("config.json", other)
    monkeypatch.undo()
    assert to_json(folder.config()) == (text if moment == "before" else other) and text != other
    folder.write_text("config.json", text)
    assert to_json(folder.config()) == text
    assert "or" not in folder.manifest()["config.json"]


def test_a_finished_run_stays_as_it_is_and_lists_all_that_is_read(good):
    listed = RunFolder(good).manifest()
    assert {"config.json", "tokenizer.json", "answers.json", "result.json", "predictions.jsonl"} <= set(listed)
    before = {path: path.stat().st_mtime_ns for path in good.rglob("*") if path.name != "lock"}
    config = RunFolder(good).config()
    arguments = [str(good / "config.json"), "--workdir", str(good)]
    assert train.main(arguments) == 0 and RunFolder(good).config() == config
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_manifest_is_complete_or_missing(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    write_manifest(tmp_path / "manifest.json", {"files": entries_below(tmp_path)})
    digest = hashlib.sha256(b"1").hexdigest()
    assert read_manifest(tmp_path / "manifest.json") == {"files": {"a": {"bytes": 1, "sha256": digest}}}
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(TypeError):
        write_manifest(tmp_path / "manifest.json", {"files": object()})
    assert (tmp_path / "manifest.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "manifest.json"]


@pytest.mark.parametrize("damage", [flip, cut, os.remove])
def test_digests_beside_a_folder_tell_whether_it_is_as_it_was(tmp_path, damage):
    folder, digests = tmp_path / "data", tmp_path / "data.json"
    folder.mkdir()
    (folder / "a").write_bytes(b"12345")
    write_digests(folder, digests)
    (folder / "mine").touch()
    assert matches_digests(folder, digests)
    for file in (folder / "a", digests):
        before = file.read_bytes()
        damage(file)
        assert not matches_digests(folder, digests)
        file.write_bytes(before)
    assert matches_digests(folder, digests)


def test_a_tokenizer_comes_from_a_run_as_it_was_trained(run):
    source = tokenizer_source(VQA(init=PixelModelInit(model=str(run))))
    assert Tokenizer.load(source).vocab_size == Tokenizer.load(run / "tokenizer.json").vocab_size
