"""What a config's model is made of: `python -m experiments.inspect_model configs/quickstart.py --depth 3`.

Parameters, output shapes and FLOPs of every module; needs neither images nor a tokenizer, and runs nothing.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlm_jax.command_line import parse_config, run_command
from vlm_jax.config import Config
from vlm_jax.errors import InputError

if TYPE_CHECKING:
    from vlm_jax.models.inspection import ModuleRow

ASSUMED_CLASSES = 1000


@dataclass(frozen=True)
class Options:
    """What this command takes besides settings."""

    depth: int = 2
    """Levels of modules to show; what is deeper counts in the module above it."""
    classes: int | None = None
    """Answers to assume where the config leaves `model.classes` to the data (1000 unless given)."""


def main(argv: list[str]) -> int:
    config, options = parse_config(
        argv,
        Options(),
        prog="python -m experiments.inspect_model",
        description="Parameters, output shapes and FLOPs of a model, module by module. The first argument is a config "
        "file; every setting in it is an option.",
    )
    if options.depth < 0:
        raise InputError(f"--depth is {options.depth}; it must be at least 0")

    from vlm_jax.models.inspection import inspect, inspect_image_tokenizer

    if config.task == "image_tokenizer":
        if options.classes is not None:
            raise InputError(f"{config.name} is an image tokenizer, which answers nothing; leave --classes out")
        rows = inspect_image_tokenizer(config.model.image_tokenizer, image_size=config.data.image.size)
        print("\n".join([*_of_codes(config), *_modules(rows, options.depth)]))
        return 0
    classes = _classes(config, options)
    rows = inspect(
        config.model,
        image_size=config.data.image.size,
        questions=config.data.texts_per_image,
        classes=classes,
        text_length=config.model.text.max_length,
    )
    assumed = config.model.classes is None and options.classes is None
    print(_text(config, rows, classes, options.depth, assumed=assumed))
    return 0


def _classes(config: Config, options: Options) -> int:
    if options.classes is not None and options.classes < 1:
        raise InputError(f"--classes is {options.classes}; it must be at least 1")
    if config.model.classes is not None and options.classes not in (None, config.model.classes):
        raise InputError(
            f"--classes is {options.classes}, and the config has model.classes {config.model.classes}; "
            "leave --classes out, or set --model.classes"
        )
    if config.task == "image_generation":
        from vlm_jax.models.image_tokenizer import codebook_size

        return codebook_size(config.model.image_tokenizer)
    return config.model.classes or options.classes or ASSUMED_CLASSES


def _text(config: Config, rows: "list[ModuleRow]", classes: int, depth: int, *, assumed: bool) -> str:
    data, model = config.data, config.model
    height, width = data.image.size
    texts = {"captioning": "caption", "image_generation": "prompt"}.get(config.task, "question")
    kinds = {"captioning": f"{model.text.vocab_size:,} words", "image_generation": f"{classes:,} codes"}
    answers = kinds.get(config.task, f"{classes:,} answers")
    if assumed and config.task == "vqa":
        answers += " (assumed, since the config leaves them to the data; --classes sets them)"
    return "\n".join(
        [
            f"{config.name}: {model.fusion}, {model.attention_pattern}, {model.head}, images by {model.image.cnn}",
            f"example: one image of {height} x {width} pixels, {texts}s: {data.texts_per_image} of "
            f"{model.text.max_length} tokens, {answers}",
            *_modules(rows, depth),
            f"{f'FLOPs of a {texts}':21s}{round(rows[0].flops / data.texts_per_image):,}",
        ]
    )


def _of_codes(config: Config) -> list[str]:
    from vlm_jax.models.image_tokenizer import codebook_size, grid_size

    (height, width), codes = config.data.image.size, config.model.image_tokenizer
    rows, columns = grid_size(codes, config.data.image.size)
    return [
        f"{config.name}: an image tokenizer, {codebook_size(codes):,} codes ({codes.quantizer})",
        f"example: one image of {height} x {width} pixels, {rows} x {columns} codes",
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
