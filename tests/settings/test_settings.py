"""The machinery of settings, on two small tasks."""

import itertools
import json
import random
from pathlib import Path
from typing import Annotated, Literal

import pytest
from annotated_types import Ge
from pydantic import ValidationError, model_validator

from vlm_jax.errors import InputError
from vlm_jax.settings.changes import (
    Words,
    checked,
    from_json,
    group_from_json,
    to_json,
    with_changes,
)
from vlm_jax.settings.command_line import parse_changes, parse_config, parse_options, parse_subcommand
from vlm_jax.settings.effects import Decoding, Effect, Place, Use, effects
from vlm_jax.settings.groups import CHOICE, POSITIONAL, REPEATED, Group, flat, names, tree_of
from vlm_jax.settings.presets import load_preset

Count = Annotated[int, Ge(1)]


class Encoder(Group):
    positions: Literal["row", "grid"] = "row"
    """Vectors of positions."""


class Plain(Encoder):
    """A plain CNN."""

    kind: Literal["plain"] = "plain"
    sizes: tuple[Count, ...] = (8, 16)
    """Channels of each stage."""
    side: Count = 3
    """Side of a filter."""


class ResNet(Encoder):
    """A ResNet."""

    kind: Literal["resnet"] = "resnet"
    depth: Literal[18, 50] = 50
    """Layers."""
    side: Count = 7
    """Side of a filter."""


class Head(Group):
    """Reads [CLS]."""

    kind: Literal["cls"] = "cls"


class TokenHead(Group):
    """Reads every token."""

    kind: Literal["tokens"] = "tokens"
    classes: Count | None = None
    """Classes."""


class Concat(Group):
    """One sequence."""

    kind: Literal["concat"] = "concat"
    head: Annotated[Head | TokenHead, CHOICE] = Head()
    """What is read."""


class Late(Group):
    """Two encoders."""

    kind: Literal["late"] = "late"


class Model(Group):
    """The model."""

    hidden_size: Count = 8
    """Width."""
    heads: Count = 4
    """Heads."""
    image: Annotated[Plain | ResNet, CHOICE] = Plain()
    """The image side."""
    fusion: Annotated[Concat | Late, CHOICE] = Concat()
    """How the sides meet."""
    rate: Annotated[float, Ge(0)] | None = 0.5
    """A number."""
    pairs: tuple[tuple[str, float], ...] = ()
    """Patterns with factors."""

    @model_validator(mode="after")
    def check(self) -> "Model":
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}")
        return self


class Made(Group):
    """Scenes."""

    kind: Literal["made"] = "made"
    limit: Use[Count | None] = None
    """The most."""


class Files(Group):
    """Files."""

    kind: Literal["files"] = "files"
    images: Place[Path]
    """Folder of the images."""
    train: Place[tuple[Path, ...]]
    """Files."""


class Greedy(Group):
    """The likeliest token."""

    kind: Literal["greedy"] = "greedy"


class Beam(Group):
    """A search."""

    kind: Literal["beam"] = "beam"
    num_beams: Count = 5
    """Beams."""


class Run(Group):
    name: Place[str] = "run"
    """Names the run."""
    seed: int = 0
    """The seed."""
    data: Annotated[Made | Files, CHOICE] = Made()
    """Where images come from."""
    model: Model = Model()


class Answers(Run):
    """Answers questions."""

    task: Literal["answers"] = "answers"
    flip: bool = False
    """Mirror images."""


class Captions(Run):
    """Writes captions."""

    task: Literal["captions"] = "captions"
    decoding: Decoding[Annotated[Greedy | Beam, CHOICE]] = Greedy()
    """How captions are generated."""
    sampling: Decoding[float] = 1.0
    """Temperature."""


class Options(Group):
    """What the command takes."""

    workdir: Path | None = None
    """Folder of the run."""


TASKS = {"answers": Answers, "captions": Captions}
PRESET = """from tests_settings_types import *

def get_config():
    return {}
"""


@pytest.fixture(scope="module", autouse=True)
def types_for_presets():
    import sys

    sys.modules["tests_settings_types"] = sys.modules[__name__]
    yield
    del sys.modules["tests_settings_types"]


def parse(*argv, start="answers"):
    return parse_config([start, *argv], Options(), TASKS, prog="train", description="Train.")[0]


def refused(*argv, **options):
    with pytest.raises(InputError) as error:
        parse(*argv, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def page(capsys, *argv, start="answers"):
    with pytest.raises(SystemExit) as stop:
        parse(*argv, "--help", start=start)
    assert stop.value.code == 0
    return " ".join(capsys.readouterr().out.split())


# Choices


def test_options_switch_choices_in_any_order():
    options = (("--model.image.kind", "resnet"), ("--model.image.depth", "18"), ("--model.image.positions", "grid"),
               ("--model.fusion.head.classes", "9"), ("--model.fusion.head.kind", "tokens"))  # fmt: skip
    orders = itertools.islice(itertools.permutations(options), 0, None, 7)
    (config,) = {parse(*itertools.chain(*order)) for order in orders}
    assert config.model.image == ResNet(depth=18, positions="grid")
    assert config.model.fusion == Concat(head=TokenHead(classes=9))


def test_a_switch_keeps_inherited_settings_only():
    base = with_changes(Answers(), {"model.image.side": 5, "model.image.positions": "grid"})
    assert with_changes(base, {"model.image.kind": "resnet"}).model.image == ResNet(positions="grid", side=7)
    assert with_changes(base, {"model.image.kind": "plain"}) == base


def test_a_whole_group_is_a_value():
    config = with_changes(Answers(), {"model.image": ResNet(), "model.image.depth": 18})
    assert config.model.image == ResNet(depth=18)


def test_required_settings_of_a_choice():
    message = refused("--data.kind", "files")
    assert "data.images is not given" in message and "data.train is not given" in message
    data = parse("--data.train", "a.json", "b.json", "--data.images", "photos", "--data.kind", "files").data
    assert data == Files(images=Path("photos"), train=(Path("a.json"), Path("b.json")))


# Errors


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--model.image.depth", "50"], ("model.image.depth", "model.image.kind=resnet", "plain")),
        (["--model.fusion.head.classes", "9"], ("model.fusion.head.kind=tokens", "cls")),
        (["--model.fusion.kind", "late", "--model.fusion.head.kind", "tokens"], ("model.fusion.kind=concat", "late")),
        (["--decoding.num-beams", "3"], ("decoding.num_beams", "captions", "answers")),
        (["--model.hiden-size", "1"], ("model.hiden_size", "model.hidden_size")),
        (["--hidden-size", "1"], ("hidden_size", "model.hidden_size")),
        (["--workdri", "x"], ("workdri", "workdir")),
        (["--model.image.dept", "50"], ("model.image.depth", "model.image.kind=resnet")),
        (["--model.image.kind", "renset"], ("renset", "plain, resnet")),
        (["--model.image.positions", "rwo"], ("model.image.positions", "'rwo'", "'row' or 'grid'")),
        (["--model.hidden-size", "wide"], ("model.hidden_size", "'wide'", "integer")),
        (["--model.hidden-size", "0"], ("model.hidden_size", "'0'", "1")),
        (["--model.hidden-size", "8", "9"], ("model.hidden_size", "8 9")),
        (["--model.hidden-size"], ("model.hidden_size", "no value")),
        (["--workdir"], ("workdir", "no value")),
        (["--model.hidden-size", "9"], ("model", "hidden_size 9", "heads 4")),
        (["--model.rate", "inf"], ("model.rate", "inf", "finite")),
        (["--model.image.sizes", "8", "0"], ("model.image.sizes[1]", "'0'")),
        (["--no-flip"], ("no_flip", "flip")),
        (["--model.image", "resnet"], ("model.image", "kind")),
        (["--task", "captions"], ("task", "'captions'", "'answers'")),
        (["--name", "a\udcff"], ("UTF-8",)),
        (["--seed", "x", "--model.heads", "y"], ("seed is 'x'", "model.heads is 'y'")),
    ],
)  # fmt: skip
def test_an_error_names_setting_value_and_choices(argv, parts):
    message = refused(*argv)
    assert [part for part in parts if part not in message] == [], message


def test_the_wording_of_a_line():
    assert refused("--model.image.depth", "50") == (
        "model.image.depth belongs to model.image.kind=resnet; this run has plain"
    )


def test_a_random_command_line_never_ends_in_a_traceback():
    choose = random.Random(0)
    settings = [name for kind in TASKS.values() for name in names(kind)]
    words = ["none", "1", "-1", "0.5", "resnet", "files", "true", "[1, 2]", "{", "", "a,b", "1,2", "nan"]
    made = 0
    for _ in range(1500):
        argv = []
        for _ in range(choose.randint(1, 3)):
            argv += [f"--{choose.choice(settings)}", *choose.choices(words, k=choose.randint(0, 3))]
        try:
            parse(*argv)
            made += 1
        except InputError:
            pass
    assert made > 10


# Values


def test_every_kind_of_value():
    config = parse(
        "--model.image.sizes", "8", "16", "--model.rate=none", "--flip", "--seed=-1", "--data.limit", "50_000",
        "--model.pairs", '[["^image/", 0.1], ["bias$", 2]]', "--name=",
    )  # fmt: skip
    assert (config.model.image.sizes, config.model.rate, config.flip, config.seed) == ((8, 16), None, True, -1)
    assert (config.data.limit, config.name) == (50_000, "")
    assert config.model.pairs == (("^image/", 0.1), ("bias$", 2.0))
    assert parse("--model.image.sizes", "8,16", "--flip", "false") == parse("--model.image.sizes=8,16")
    assert parse("--seed", "1", "--seed", "2").seed == 2


def test_python_values_are_read_strictly():
    for name, value in (
        ("model.hidden_size", "8"),
        ("model.hidden_size", 8.0),
        ("flip", 1),
        ("model.image.sizes", [8]),
    ):
        with pytest.raises(InputError, match=name):
            with_changes(Answers(), {name: value})
    assert type(with_changes(Answers(), {"model.rate": 1}).model.rate) is float


def test_groups_are_frozen_hashable_and_told_apart_by_kind():
    with pytest.raises(ValidationError):
        Answers().seed = 3
    assert Head() != Late() and hash(Answers()) == hash(Answers())


def test_a_subclass_does_not_pass_for_its_base():
    class Wider(Model):
        more: int = 0

    with pytest.raises(ValidationError, match="more"):
        Answers(model=Wider(more=1))


# Changes, JSON, effects


def test_changes_of_a_command_line():
    changes = parse_changes(("decoding.num_beams=3", "decoding.kind=beam"))
    assert with_changes(Captions(), changes).decoding == Beam(num_beams=3)
    with pytest.raises(InputError, match="--change"):
        parse_changes(("decoding.num_beams",))


def test_json_round_trip():
    config = with_changes(Captions(), {"decoding.kind": "beam", "model.image.kind": "resnet", "model.rate": None})
    assert from_json(to_json(config), TASKS) == config
    assert json.loads(to_json(config))["decoding"] == {"kind": "beam", "num_beams": 5}
    assert group_from_json(to_json(config.model), Model) == config.model


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (lambda tree: tree["model"]["image"].update(depth=50), ("model.image.depth", "resnet")),
        (lambda tree: tree["model"].update(hiden_size=3), ("model.hidden_size",)),
        (lambda tree: tree["model"].pop("hidden_size"), ("model.hidden_size",)),
        (lambda tree: tree["model"]["image"].pop("kind"), ("model.image.kind",)),
        (lambda tree: tree["model"].update(hidden_size="8"), ("model.hidden_size", "'8'")),
        (lambda tree: tree["model"].update(hidden_size=True), ("model.hidden_size", "True")),
        (lambda tree: tree["model"].update(hidden_size=8.0), ("model.hidden_size", "8.0")),
        (lambda tree: tree.update(flip=1), ("flip", "1")),
        (lambda tree: tree["model"].update(image="resnet"), ("model.image", "resnet")),
        (lambda tree: tree.update(task="answer"), ("'answer'", "answers, captions")),
        (lambda tree: tree.update(decoding={"num_beams": 3}), ("decoding.num_beams", "captions")),
    ],
)
def test_json_is_read_strictly(spoil, parts):
    tree = json.loads(to_json(Answers()))
    spoil(tree)
    with pytest.raises(InputError) as error:
        from_json(json.dumps(tree), TASKS)
    assert [part for part in parts if part not in str(error.value)] == [], error.value


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 9999, '"answers"'])
def test_json_that_is_no_config(text):
    with pytest.raises(InputError):
        from_json(text, TASKS)


def test_effects_of_settings():
    marks = effects(with_changes(Captions(), {"decoding.kind": "beam"}))
    assert marks.keys() == flat(tree_of(with_changes(Captions(), {"decoding.kind": "beam"}))).keys()
    assert marks["model.hidden_size"] is marks["data.kind"] is marks["task"] is Effect.IDENTITY
    assert (marks["name"], marks["data.limit"]) == (Effect.PLACE, Effect.USE)
    assert marks["decoding.kind"] is marks["decoding.num_beams"] is Effect.DECODING


# Presets


def test_presets(tmp_path):
    preset = tmp_path / "mine.py"
    preset.write_text(PRESET.format("Answers(seed=3)"))
    assert load_preset(preset, TASKS) == Answers(seed=3)
    assert parse("--seed", "4", str(preset), start="--flip") == Answers(seed=4, flip=True)
    saved = tmp_path / "config.json"
    saved.write_text(to_json(Answers(seed=5)))
    assert parse("--flip", start=str(saved)) == Answers(seed=5, flip=True)
    preset.write_text(PRESET.format("Answers(data=Files.model_construct())"))
    assert "data.images" in refused(start=str(preset))
    assert parse("--data.images", "a", "--data.train", "b", start=str(preset)).data.images == Path("a")
    assert parse("--data.kind", "made", start=str(preset)).data == Made()


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ("Answers(model=Model(hidden_size='3'))", ("mine.py, line 4", "Model", "hidden_size", "'3'")),
        ("Answers(model=Model(hiden_size=3))", ("mine.py, line 4", "hiden_size", "hidden_size")),
        ("Answers(model=Model(image=Late()))", ("image.kind", "'late'", "'plain', 'resnet'")),
        ("Answers(model=Model(hidden_size=9))", ("mine.py, line 4", "hidden_size 9")),
        ("Model()", ("Model", "Answers or Captions")),
        ("(", ("mine.py",)),
    ],
)
def test_a_wrong_preset(tmp_path, body, parts):
    preset = tmp_path / "mine.py"
    preset.write_text(PRESET.format(body))
    message = refused("--model.num-attention-heads", "3", start=str(preset))
    assert [part for part in parts if part not in message] == [], message


def test_a_preset_that_is_missing(tmp_path):
    (tmp_path / "mine.py").write_text("")
    assert "mine.py" in refused(start=str(tmp_path / "nime.py"))
    assert "get_config" in refused(start=str(tmp_path / "mine.py"))
    with pytest.raises(InputError, match="answers, captions"):
        parse_config([], Options(), TASKS, prog="train", description="Train.")


# Options of commands


class Score(Group):
    """Score runs."""

    runs: Annotated[tuple[Path, ...], POSITIONAL]
    """Folders of runs."""
    split: str = "test"
    """The split."""
    drop: Annotated[tuple[str, ...], REPEATED] = ()
    """Patterns."""
    yes: bool = False
    """Do it."""
    decoding: Annotated[Greedy | Beam, CHOICE] = Greedy()
    """How captions are generated."""


def test_positional_options():
    options = parse_options(["--yes", "a", "--split", "val", "b", "--drop", "x", "--drop", "y"], Score, prog="score")
    assert options == Score(runs=(Path("a"), Path("b")), split="val", drop=("x", "y"), yes=True)
    assert parse_options(["a", "--decoding.kind", "beam"], Score, prog="score").decoding == Beam()
    for argv, part in ((["a", "--splt", "b"], "split"), ([], "runs"), (["a", "--yes", "maybe"], "")):
        if part:
            with pytest.raises(InputError, match=part):
                parse_options(argv, Score, prog="score")
        else:
            assert parse_options(argv, Score, prog="score").runs == (Path("a"), Path("maybe"))


def test_subcommands(capsys):
    commands = {"score": Score}
    assert parse_subcommand(["score", "a"], commands, prog="do", description="Do.").runs == (Path("a"),)
    for argv in ([], ["scroe"]):
        with pytest.raises(InputError, match="score"):
            parse_subcommand(argv, commands, prog="do", description="Do.")
    for argv, part in ((["--help"], "Score runs"), (["score", "--help"], "RUNS")):
        with pytest.raises(SystemExit):
            parse_subcommand(argv, commands, prog="do", description="Do.")
        assert part in capsys.readouterr().out


# Help


def test_help_lists_the_settings_of_the_tree(capsys):
    text = page(capsys, "--model.rate", "0.25", "--model.image.kind", "resnet")
    assert "--model.image.depth {18,50} Layers. [50]" in text and "--model.image.sizes" not in text
    assert (
        "--model.image.kind {plain,resnet} The image side. [resnet]" in text
        and "--help --model.image.kind plain" in text
    )
    assert "--model.rate NUMBER|none A number. [0.25]" in text and "--decoding" not in text
    assert "--data.images PATH Folder of the images. (required)" in page(capsys, "--data.kind", "files")
    assert "--decoding.kind" in page(capsys, start="captions")


def test_help_without_a_preset(capsys):
    with pytest.raises(SystemExit):
        parse_config(["--help"], Options(), TASKS, prog="train", description="Train.")
    text = capsys.readouterr().out
    assert "--workdir" in text and "captions" in text


def test_words_need_a_type():
    with pytest.raises(InputError, match="seed"):
        checked(Answers, {"seed": Words(("x",))}, strict=False)
