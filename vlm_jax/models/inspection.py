"""What a model costs, module by module, from shapes alone: nothing is initialised or run.

FLOPs are those of matrix products and convolutions in a forward pass, a multiplication and an addition counting as two.
Norms, activations, softmax and lookups are left out: at width 256 a few percent.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from vlm_jax.config.architecture import Architecture
from vlm_jax.config.encoders import Features
from vlm_jax.config.quantizers import ImageTokenizerSettings
from vlm_jax.models.attention import CrossAttention, SelfAttention
from vlm_jax.models.bert import TextEmbeddings
from vlm_jax.models.convolution import Conv, DepthwiseConv
from vlm_jax.models.image_token_vectors import ImageTokenVectors
from vlm_jax.models.image_tokenizer import ImageTokenizer, VectorQuantizer
from vlm_jax.models.vlm import VisualLanguageModel
from vlm_jax.settings.changes import with_changes
from vlm_jax.types import Parameters

Path = tuple[str, ...]


class ModuleRow(NamedTuple):
    """A module with everything below it, for one image and all its questions."""

    path: str
    """Such as `trunk/layer_0/attention/query`; empty for the whole model."""
    parameters: int
    flops: int
    """Of all calls together: a layer that image and text go through counts both."""
    outputs: tuple[tuple[int, ...], ...]
    """Shapes that came out, a shape once; the first axis is the image. Empty where training never calls it."""


def inspect(
    settings: Architecture, *, image_size: tuple[int, ...], questions: int, classes: int, text_length: int
) -> list[ModuleRow]:
    """Every module of the model as a train step calls it, in order of calls, each before what is below it.

    The first row is the whole model. `image_size` is in pixels, or in grid positions where the model takes features.
    Each of the image's `questions` has `text_length` tokens; the last is no input where the next token is predicted.
    Layers are counted unrolled and not recomputed, whatever `scan_layers` and `remat` are.
    """
    return _rows(*_call(settings, image_size=image_size, questions=questions, classes=classes, text_length=text_length))


def inspect_image_tokenizer(settings: ImageTokenizerSettings, *, image_size: tuple[int, int]) -> list[ModuleRow]:
    """As `inspect`, of an image tokenizer that takes an image through its image tokens."""
    return _rows(ImageTokenizer(settings), "__call__", (jax.ShapeDtypeStruct((1, *image_size, 3), jnp.float32),))


def _rows(model: nn.Module, method: str, inputs: tuple[jax.ShapeDtypeStruct, ...]) -> list[ModuleRow]:
    variables = jax.eval_shape(lambda *x: model.init(jax.random.key(0), *x, method=method), *inputs)
    outputs, flops = _calls(lambda: jax.eval_shape(lambda *x: model.apply(*x, method=method), variables, *inputs))
    parameters: Counter[Path] = Counter()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"]):
        parameters[tuple(entry.key for entry in path[:-1])] += math.prod(leaf.shape)
    parameters, flops = _with_what_is_below(parameters), _with_what_is_below(flops)
    return [
        ModuleRow("/".join(path), parameters[path], flops[path], tuple(outputs.get(path, ())))
        for path in _depth_first((), dict.fromkeys([*outputs, *parameters]))
    ]


def parameter_shapes(
    settings: Architecture, *, image_size: tuple[int, ...], questions: int, classes: int, text_length: int
) -> Parameters:
    """The model's parameters as shapes; arguments are those of `inspect`."""
    model, method, inputs = _call(
        settings, image_size=image_size, questions=questions, classes=classes, text_length=text_length
    )
    return jax.eval_shape(lambda *x: model.init(jax.random.key(0), *x, method=method), *inputs)["params"]


def _call(
    settings: Architecture, *, image_size: tuple[int, ...], questions: int, classes: int, text_length: int
) -> tuple[VisualLanguageModel, str, tuple[jax.ShapeDtypeStruct, ...]]:
    """The model, the method that a train step calls and shapes of what it is called with."""
    model = VisualLanguageModel(with_changes(settings, {"scan_layers": False, "remat": False}), classes)
    length = text_length - (settings.head == "lm")
    channels = settings.image.feature_size if isinstance(settings.image, Features) else 3
    image = jax.ShapeDtypeStruct((1, *image_size, channels), jnp.float32)
    if settings.image.kind == "image_tokens":
        image = jax.ShapeDtypeStruct((1, *image_size), jnp.int32)
    inputs = (
        image,
        jax.ShapeDtypeStruct((1, questions, length), jnp.int32),
        jax.ShapeDtypeStruct((1, questions, length), bool),
    )
    return model, "task_logits", inputs


def _calls(run: Callable[[], object]) -> tuple[dict[Path, dict[tuple[int, ...], None]], Counter[Path]]:
    """What `run` makes of each module: the shapes that it returns, and its own FLOPs, those below it left out."""
    outputs: dict[Path, dict[tuple[int, ...], None]] = {}
    flops: Counter[Path] = Counter()
    running: list[Path] = []

    def record(call, arguments, options, context):
        path = context.module.path
        if path in running or context.method_name == "setup":  # a method that the module itself calls
            return call(*arguments, **options)
        shapes = outputs.setdefault(path, {})
        running.append(path)
        result = call(*arguments, **options)
        running.pop()
        shapes.update(dict.fromkeys(_shapes(result)))
        count = FLOPS.get((type(context.module), context.method_name))
        if count is not None:
            flops[path] += count(context.module, result, *arguments, **options)
        return result

    with nn.intercept_methods(record):
        run()
    return outputs, flops


def _shapes(result: object) -> list[tuple[int, ...]]:
    """Those of an array, or of the arrays of a tuple; a layer's keys and values stand deeper, in one of their own."""
    entries = result if isinstance(result, tuple) else (result,)
    return [entry.shape for entry in entries if isinstance(entry, jax.Array)]


def _with_what_is_below(own: Counter[Path]) -> Counter[Path]:
    totals: Counter[Path] = Counter()
    for path, count in own.items():
        for length in range(len(path) + 1):
            totals[path[:length]] += count
    return totals


def _depth_first(path: Path, paths: dict[Path, None]) -> Iterator[Path]:
    yield path
    for other in paths:
        if other and other[:-1] == path:
            yield from _depth_first(other, paths)


# Each takes the module, what it returned and what it was called with.


def _dense(module, output, x):
    return 2 * output.size * x.shape[-1]


def _conv(module, output, x):
    return 2 * output.size * module.kernel_size**2 * x.shape[-1] // module.groups


def _depthwise_conv(module, output, _):
    return 2 * output.size * module.kernel_size**2


def _to_codebook(module, output, features, **_):
    """How far features are from each image token, by their products, and places from features as well (`revive`)."""
    return 2 * 2 * features.size * module.settings.codebook_size


def _tied(module, output, x):
    """The product with a table of words or image tokens; looking them up in it costs nothing."""
    return 2 * output.size * x.shape[-1]


def _self_attention(module, output, x, mask, key_values=(), *_, **__):
    """Scores and the mix of values, over `key_values` too; the projections are modules of their own."""
    mixed, _own = output
    return 4 * mixed.size * (x.shape[2] + sum(keys.shape[3] for keys, _ in key_values))


def _cross_attention(module, output, x, key_value, *_, **__):
    return 4 * output.size * key_value[0].shape[3]


FLOPS: dict[tuple[type[nn.Module], str], Callable[..., int]] = {
    (nn.Dense, "__call__"): _dense,
    (TextEmbeddings, "scores"): _tied,
    (ImageTokenVectors, "scores"): _tied,
    (Conv, "__call__"): _conv,
    (DepthwiseConv, "__call__"): _depthwise_conv,
    (SelfAttention, "__call__"): _self_attention,
    (CrossAttention, "__call__"): _cross_attention,
    (VectorQuantizer, "__call__"): _to_codebook,
}
