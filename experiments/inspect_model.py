"""What a config's model is made of: `python -m experiments.inspect_model configs/quickstart.py --depth 3`.

Parameters, output shapes and FLOPs of every module; needs neither images nor a tokenizer, and runs nothing.
"""

from typing import TYPE_CHECKING

from vlm_jax.command_line import run_command
from vlm_jax.config.image_generation import ImageGeneration
from vlm_jax.config.image_tokenizer import ImageTokenizer
from vlm_jax.config.rules import Count, Whole
from vlm_jax.config.tasks import TASKS, TextConfig
from vlm_jax.config.vqa import VQA
from vlm_jax.errors import InputError
from vlm_jax.invocation import command_name
from vlm_jax.settings.command_line import parse_config
from vlm_jax.settings.groups import Group

if TYPE_CHECKING:
    from vlm_jax.models.inspection import ModuleRow

ASSUMED_CLASSES = 1000


class Options(Group):
    """What this command takes besides settings."""

    depth: Whole = 2
    """Levels of modules to show; what is deeper counts in the module above it."""
    classes: Count | None = None
    """Answers to assume where the config leaves them to the data (1000 unless given)."""


def main(argv: list[str]) -> int:
    config, options = parse_config(
        argv,
        Options(),
        TASKS,
        prog=command_name("inspect_model"),
        description="Parameters, output shapes and FLOPs of a model, module by module. The first argument is a config "
        "file; every setting in it is an option.",
    )

    from vlm_jax.models.inspection import inspect, inspect_image_tokenizer

    if isinstance(config, ImageTokenizer):
        if options.classes is not None:
            raise InputError(f"{config.name} is an image tokenizer, which answers nothing; leave --classes out")
        rows = inspect_image_tokenizer(config.image_tokenizer, image_size=config.image.size)
        print("\n".join([*_of_tokens(config), *_modules(rows, options.depth)]))
        return 0
    classes = _classes(config, options)
    rows = inspect(
        config.architecture,
        image_size=_input_size(config),
        questions=config.training.texts_per_image,
        classes=classes,
        text_length=config.model.text.max_length,
    )
    assumed = isinstance(config, VQA) and config.classes is None and options.classes is None
    print(_text(config, rows, classes, options.depth, assumed=assumed))
    return 0


def _input_size(config: TextConfig) -> tuple[int, int]:
    """Pixels of the image, or its grid of image tokens."""
    size = config.image.size
    return config.image_tokenizer.grid_size(size) if isinstance(config, ImageGeneration) else size


def _classes(config: TextConfig, options: Options) -> int:
    if isinstance(config, ImageGeneration):
        return config.image_tokenizer.quantizer.codebook_size
    own = config.classes if isinstance(config, VQA) else None
    if own is not None and options.classes not in (None, own):
        raise InputError(
            f"--classes is {options.classes}, and the config has model.fusion.head.classes {own}; leave --classes out, "
            "or set --model.fusion.head.classes"
        )
    return own or options.classes or ASSUMED_CLASSES


def _text(config: TextConfig, rows: "list[ModuleRow]", classes: int, depth: int, *, assumed: bool) -> str:
    model, texts_per_image = config.architecture, config.training.texts_per_image
    height, width = config.image.size
    encoder = getattr(model.image, "name", model.image.kind)
    texts = {"captioning": "caption", "image_generation": "prompt"}.get(config.task, "question")
    kinds = {"captioning": f"{model.vocab_size:,} tokens", "image_generation": f"{classes:,} image tokens"}
    answers = kinds.get(config.task, f"{classes:,} answers")
    if assumed:
        answers += " (assumed, since the config leaves them to the data; --classes sets them)"
    return "\n".join(
        [
            f"{config.name}: {model.fusion}, {model.attention_pattern}, {model.head}, images by {encoder}",
            f"example: one image of {height} x {width} pixels, {texts}s: {texts_per_image} of "
            f"{config.model.text.max_length} tokens, {answers}",
            *_modules(rows, depth),
            f"{f'FLOPs of a {texts}':21s}{round(rows[0].flops / texts_per_image):,}",
        ]
    )


def _of_tokens(config: ImageTokenizer) -> list[str]:
    (height, width), tokenizer = config.image.size, config.image_tokenizer
    rows, columns = tokenizer.grid_size(config.image.size)
    quantizer = tokenizer.quantizer
    return [
        f"{config.name}: an image tokenizer, {quantizer.codebook_size:,} image tokens ({quantizer.kind})",
        f"example: one image of {height} x {width} pixels, {rows} x {columns} image tokens",
    ]


def _modules(rows: "list[ModuleRow]", depth: int) -> list[str]:
    """The table, and what all of it is."""
    table = [("module", "parameters", "FLOPs", "output")] + [
        (row.path, f"{row.parameters:,}", f"{row.flops:,}", " ".join(map(_shape, row.outputs)) or "not called")
        for row in rows[1:]
        if row.path.count("/") < depth
    ]
    lengths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "FLOPs: of one example, forward; products and convolutions only, a multiplication and an addition are two",
        "a module counts what is below it",
        "",
        *(
            f"{path:{lengths[0]}s}  {parameters:>{lengths[1]}s}  {flops:>{lengths[2]}s}  {output}"
            for path, parameters, flops, output in (table if depth else [])
        ),
        *([""] if depth else []),
        f"parameters           {rows[0].parameters:,}",
        f"FLOPs of an image   {rows[0].flops:,}",
    ]


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


if __name__ == "__main__":
    run_command(main)
