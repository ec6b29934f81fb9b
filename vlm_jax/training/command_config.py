"""A config from the command line of a command that takes any preset."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeVar

from vlm_jax.config.encoders import GridEncoder
from vlm_jax.config.run import Config
from vlm_jax.config.tasks import TASKS
from vlm_jax.data.data_sets import CaptionSet, QuestionSet
from vlm_jax.data.image_settings import ImageInput
from vlm_jax.data.settings import DataSet
from vlm_jax.data.user_files.columns import renamed_columns
from vlm_jax.data.user_files.table_texts import texts_of_table
from vlm_jax.errors import InputError
from vlm_jax.invocation import command_name
from vlm_jax.settings.changes import Words, with_changes
from vlm_jax.settings.command_line import Lookup, parse_config
from vlm_jax.settings.groups import Group, Tree, choices, members, tree_of


class ConfigOptions(Group):
    """What a command takes besides settings."""

    image_encoder: str | None = None
    """Pretrained weights of any image encoder, as in `init.image`: sets `model.image`, `init.image` and `image.size`,
    `.resize`, `.mean` and `.std` as they prescribe."""


Options = TypeVar("Options", bound=ConfigOptions)


def parse_command(argv: list[str], options: Options, *, command: str, description: str) -> tuple[Config, Options]:
    """A checked config and a command's own options, as `parse_config` reads them.

    A preset of questions or captions is told by the columns of `--data`; `--image-encoder` is looked into.
    """
    lookup = Lookup(texts_of, image_encoder_settings)
    return parse_config(argv, options, TASKS, prog=command_name(command), description=description, lookup=lookup)


def texts_of(words: Mapping[str, Words]) -> str:
    """`questions` or `captions`: what the data of a command line has; `captions` where it names none."""
    kinds = {name: {_kind(group) for group in members(union)} for name, union in _SETS.items()}
    kind = " ".join(words.get("data.kind", Words(("table",))).words)
    of_kind = [name for name in kinds if kind in kinds[name]]
    if len(of_kind) == 1:
        return of_kind[0]
    given = words.get("data") or words.get("data.train") or Words(())
    renamed, directory = words.get("data.columns", Words(())), words.get("data.directory")
    try:
        columns = renamed_columns(renamed.words)
    except ValueError:
        return "captions"  # the setting is refused where it is checked
    where = Path(directory.words[0]) if directory and directory.words else DataSet.model_fields["directory"].default
    return texts_of_table([Path(path).expanduser() for path in given.words], columns, where.expanduser())


_SETS = {"questions": QuestionSet, "captions": CaptionSet}


def _kind(group: type[Group]) -> str:
    return group.model_fields["kind"].default


def image_encoder_settings(
    source: str, config: type[Group], tree: Tree, words: Mapping[str, Words]
) -> dict[str, object]:
    """The settings under which a config starts from the image encoder of a source, its images prepared as there.

    `positions` and `projection`, which the trunk decides, stay. With `image.size` among the options, the model sees the
    same part of an image at that size. `InputError` where the source has no image encoder, or the task takes none.
    """
    from vlm_jax.training.pretrained import open_pretrained

    if "image" not in _settings_of_parts(config):
        raise InputError(f"--image-encoder {source}: the task {tree['task']!r} reads no images through an encoder")
    pretrained = open_pretrained(source)
    if pretrained.image is None or pretrained.input is None:
        raise InputError(f"--image-encoder {source} has no image encoder; give a text encoder as --init.text")
    encoder = tree_of(pretrained.image)
    settings = {f"model.image.{name}": value for name, value in encoder.items() if name not in GridEncoder.model_fields}
    settings |= {"init.image": source}
    if tree["init"]["kind"] == "scratch":
        settings["init.kind"] = "parts"
    prepared = pretrained.input if (size := _size(words)) is None else pretrained.input.at_size(size)
    return settings | {f"image.{name}": getattr(prepared, name) for name in ImageInput.model_fields}


def _size(words: Mapping[str, Words]) -> tuple[int, int] | None:
    """The size of images that the options give; None also where it is none, which is refused where it is checked."""
    try:
        return with_changes(ImageInput(), {"size": words["image.size"]}).size
    except (KeyError, InputError):
        return None


def _settings_of_parts(config: type[Group]) -> Collection[str]:
    """The settings of a config's `init.kind parts`; none where it has no such choice."""
    init = config.model_fields.get("init")
    parts = choices(init).get("parts") if init else None
    return parts.model_fields if parts else ()
