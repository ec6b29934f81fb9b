"""Settings as options: `configs/quickstart.py --model.image.kind resnet --model.image.depth 50`."""

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeVar, get_origin

from vlm_jax.errors import InputError, one_of
from vlm_jax.invocation import folder_of_presets
from vlm_jax.settings import help
from vlm_jax.settings.changes import Words, change, checked
from vlm_jax.settings.effects import Effect, effects
from vlm_jax.settings.groups import POSITIONAL, REPEATED, Group, Tree, fields_of, members, names, tree_of
from vlm_jax.settings.presets import load_preset, presets_in
from vlm_jax.settings.short_names import group_of, long_names

Config = TypeVar("Config", bound=Group)
Options = TypeVar("Options", bound=Group)


class Lookup(NamedTuple):
    """What files say of a config that a command line only names."""

    texts: Callable[[Mapping[str, Words]], str]
    """The argument of a preset's `get_config(texts)`, from the options."""
    image_encoder: Callable[[str, type[Group], Tree, Mapping[str, Words]], Mapping[str, object]]
    """The settings that the value of `--image-encoder` stands for, of a config's class and tree, and the options."""


def parse_config(
    argv: list[str],
    options: Options,
    tasks: Mapping[str, type[Config]],
    *,
    prog: str,
    description: str,
    lookup: Lookup | None = None,
) -> tuple[Config, Options]:
    """A checked config and a command's own options from `CONFIG --setting value ...`.

    CONFIG is the name of a preset, a file, or the name of a task. `options` has the defaults. `--help` prints a page
    and exits. A setting on the command line comes before what `lookup` has for it.
    """
    place = _preset_place(argv)
    words = {} if place is None else _only_options([*argv[:place], *argv[place + 1 :]])
    if place is None:
        _no_preset(argv, options, tasks, prog=prog, description=description)
    start, shows_help = argv[place], words.pop("help", None) is not None
    texts = partial(lookup.texts, words) if lookup else None
    config = tasks[start].model_construct() if start in tasks else load_preset(Path(start), tasks, texts)
    own, tree = tree_of(options), tree_of(config)
    words = long_names(words, type(config), tree)
    _check_spelling(words, type(options), type(config))
    fields = type(options).model_fields
    change(type(options), own, {name: value for name, value in words.items() if name.split(".")[0] in fields})
    if lookup and (encoder := own.get("image_encoder")):
        change(type(config), tree, lookup.image_encoder(encoder, type(config), tree, words))
    change(type(config), tree, {name: value for name, value in words.items() if name.split(".")[0] not in fields})
    if shows_help:
        title = f"The task {tree.get('task')}: {help.summary(type(config))}"
        sections = (help.Section("This command", type(options), own), help.Section(title, type(config), tree))
        _exit_with_help(prog, f"{start} [--SETTING VALUE ...]", description, *sections)
    return checked(type(config), tree, strict=False), checked(type(options), own, strict=False)


def _preset_place(argv: list[str]) -> int | None:
    """The preset comes first; after options it is known by its ending, since an option's values may precede it."""
    if argv and not argv[0].startswith("-"):
        return 0
    return next((place for place, word in enumerate(argv) if word.endswith((".py", ".json"))), None)


def _only_options(argv: list[str]) -> dict[str, Words]:
    positional, words = split(argv)
    if positional:
        raise InputError(f"{positional[0]!r} follows no option; options look like --optimizer.learning-rate 1e-3")
    return words


def _no_preset(argv: list[str], options: Group, tasks: Iterable[str], *, prog: str, description: str) -> NoReturn:
    start = f"start from one of: {', '.join([*tasks, *presets_in(folder_of_presets())])}"
    if {"-h", "--help"} & {*argv}:
        section = help.Section("This command", type(options), tree_of(options))
        text = f"{description} CONFIG --help shows its settings; {start}"
        _exit_with_help(prog, "CONFIG [--SETTING VALUE ...]", text, section)
    raise InputError(f"no config; {start}")


def _check_spelling(words: Mapping[str, Words], options: type[Group], config: type[Group]) -> None:
    """Raise `InputError` for a name that is near an option of the command and is no setting."""
    for name in words.keys() - names(config) - {*names(options)}:
        if close := difflib.get_close_matches(name, names(options), n=1, cutoff=0.8):
            raise InputError(f"no setting {name!r}; did you mean {close[0]}?")


def parse_options(argv: list[str], options: type[Options], *, prog: str) -> Options:
    """A command's options: `POSITIONAL` ones by their place, the others by name. `--help` prints a page and exits."""
    return _parsed_options(*split(argv, options), options, prog)


def parse_with_settings(
    argv: list[str], options: type[Options], group: str, *, prog: str
) -> tuple[Options, dict[str, Words]]:
    """A command's options, and the words of those settings of a run that are in one group, by either name."""
    positional, words = split(argv, options)
    settings = {name: value for name, value in words.items() if name.startswith(f"{group}.") or group_of(name) == group}
    own = {name: value for name, value in words.items() if name not in settings}
    return _parsed_options(positional, own, options, prog), settings


def _parsed_options(positional: list[str], words: dict[str, Words], options: type[Options], prog: str) -> Options:
    shows_help = words.pop("help", None) is not None
    tree = tree_of(options.model_construct())
    change(options, tree, _by_place(positional, options) | words)
    if shows_help:
        places = [name.upper() for name, field in options.model_fields.items() if POSITIONAL in field.metadata]
        text = inspect.cleandoc(options.__doc__ or "")
        _exit_with_help(prog, " ".join([*places, "[--OPTION VALUE ...]"]), text, help.Section("Options", options, tree))
    return checked(options, tree, strict=False)


def first_path(argv: list[str], options: type[Group], *, prog: str, description: str) -> Path:
    """The path that a command line begins with, which decides the other options: `options` are those of all."""
    if argv and not argv[0].startswith("-"):
        return Path(argv[0])
    if {"-h", "--help"} & {*argv}:
        section = help.Section("Options", options, tree_of(options.model_construct()))
        text = f"{description} RUN --help shows the options of its task."
        _exit_with_help(prog, "RUN [--OPTION VALUE ...]", text, section)
    raise InputError("no run; its directory comes first, then options")


def parse_for_run(
    argv: list[str], options: type[Options], config: Config, changeable: Collection[Effect], *, prog: str
) -> tuple[Options, Config]:
    """A command's options, and the run's config with the settings changed that the command line names.

    Only settings whose effect is `changeable` may change.
    """
    positional, words = split(argv, options)
    shows_help = words.pop("help", None) is not None
    settings = {name: value for name, value in words.items() if name.split(".")[0] not in options.model_fields}
    own, tree = tree_of(options.model_construct()), tree_of(config)
    change(options, own, _by_place(positional, options) | {name: words[name] for name in words if name not in settings})
    _check_spelling(settings, options, type(config))
    change(type(config), tree, settings)
    changed = checked(type(config), tree, strict=False)
    marks = effects(changed)
    for name in settings:
        if marks[name] not in changeable:
            raise InputError(f"{name} is what the model was trained with; train another run with it")
    if shows_help:
        groups = {name.split(".")[0] for name, mark in marks.items() if mark in changeable and "." in name}
        inner = [(name, field) for name, field in type(config).model_fields.items() if name in groups]
        texts = help.documentation(type(config))
        sections = [
            help.Section(f"The run's {name}", type(getattr(changed, name)), tree[name], f"{name}.", field, texts[name])
            for name, field in inner
        ]
        first = help.Section("Options", options, own)
        _exit_with_help(prog, "RUN [--OPTION VALUE ...]", help.summary(options), first, *sections)
    return checked(options, own, strict=False), changed


def _by_place(words: list[str], options: type[Group]) -> dict[str, Words]:
    """The positional options; one that takes several values takes all that are left."""
    values: dict[str, Words] = {}
    for name, field in options.model_fields.items():
        if POSITIONAL in field.metadata and words:
            several = any(get_origin(member) is tuple for member in members(field.annotation))
            values[name], words = Words(tuple(words if several else words[:1])), [] if several else words[1:]
    if words:
        raise InputError(f"{words[0]!r} follows no option; see --help")
    return values


def parse_subcommand(argv: list[str], commands: Mapping[str, type[Options]], *, prog: str, description: str) -> Options:
    """The options of the subcommand that the first word names."""
    if argv and argv[0] in commands:
        return parse_options(argv[1:], commands[argv[0]], prog=f"{prog} {argv[0]}")
    if {"-h", "--help"} & {*argv[:1]}:
        lines = "; ".join(f"{name}: {help.summary(options)}" for name, options in commands.items())
        _exit_with_help(prog, "COMMAND ...", f"{description} {lines}. COMMAND --help shows its options.")
    name = f"no command {argv[0]!r}" if argv else "no command"
    raise InputError(f"{name}; {one_of(commands)}")


def _exit_with_help(prog: str, arguments: str, description: str, *sections: help.Section) -> NoReturn:
    examples = [f"{prog} {example}".rstrip() for section in sections[:1] for example in section.group.examples]
    print(help.page(f"{prog} {arguments}", description, *sections, examples=examples), end="")
    raise SystemExit(0)


def split(argv: list[str], options: type[Group] | None = None) -> tuple[list[str], dict[str, Words]]:
    """Words without an option, and `--a.b-c x y --d=z` as names with their words.

    Of an option that comes twice the last counts, unless it is `REPEATED`. An option whose type takes one value leaves
    further words without an option. Where `options` does not have it, an option takes all words up to the next one.
    """
    fields = dict(fields_of(options)) if options else {}
    positional: list[str] = []
    words: dict[str, Words] = {}
    name = ""
    for word in argv:
        if word != word.encode(errors="ignore").decode():
            raise InputError(f"{word!r} is not UTF-8")
        if word == "-h" or word.startswith("--"):
            name, sign, value = word.lstrip("-").partition("=")
            name = "help" if name == "h" else name.replace("-", "_")
            name = f"{name}_" if f"{name}_" in fields else name  # a field that would shadow pydantic's own name
            field = fields.get(name)
            earlier = words[name].words if field and REPEATED in field.metadata and name in words else ()
            words[name] = Words((*earlier, value) if sign else earlier)
        elif name and (name not in fields or _takes_another(fields[name].annotation, words[name].words, word)):
            words[name] = Words((*words[name].words, word))
        else:
            positional.append(word)
    return positional, words


def _takes_another(hint: object, words: tuple[str, ...], word: str) -> bool:
    """Whether an option of a type takes a word after those that it has."""
    if any(get_origin(member) is tuple for member in members(hint)):
        return True
    return not words and (bool not in members(hint) or word in ("true", "false"))


def parse_changes(texts: tuple[str, ...]) -> dict[str, Words]:
    """`optimizer.kind=muon` and the like, as `--change` takes them."""
    if wrong := [text for text in texts if "=" not in text]:
        raise InputError(f"--change is {wrong[0]!r}; it looks like optimizer.kind=muon")
    return split([f"--{text}" for text in texts])[1]
