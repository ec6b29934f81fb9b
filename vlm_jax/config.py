"""Every setting as a typed frozen dataclass, the checks across settings, and the JSON round trip.

Imports neither jax nor anything slow: `--help` reads this file and must answer at once.
"""

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, Union

from vlm_jax.errors import InputError, nearest

Task = Literal["vqa"]
Fusion = Literal["concat"]
Pattern = Literal["bidirectional", "image_to_text", "prefix", "text_to_image", "dual_encoder"]

# What each task can run on: a pairing outside this table is refused before anything compiles.
TASK_FUSIONS: dict[str, tuple[str, ...]] = {"vqa": ("concat",)}
TASK_PATTERNS: dict[str, tuple[str, ...]] = {"vqa": ("bidirectional", "image_to_text")}


@dataclass(frozen=True)
class ImageInput:
    """How a picture file becomes the model's input. Saved with the checkpoint, used wherever the model is."""

    size: tuple[int, int] = (64, 64)
    """Height and width in pixels."""
    resize: Literal["stretch", "crop", "pad"] = "crop"
    """`crop` scales the short side and cuts the centre, `pad` scales the long one and fills, `stretch` scales both."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Subtracted from each colour channel, on a scale of 0 to 1."""
    deviation: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Divides each colour channel afterwards."""
    flip: bool = False
    """Mirror half of the training pictures left to right."""
    shift: int = 0
    """Move training pictures by up to this many pixels each way; uncovered edges repeat the border."""
    max_pixels: int = 50_000_000
    """A picture with more pixels than this is refused before it is decoded."""


@dataclass(frozen=True)
class Data:
    """Where pictures and texts come from."""

    name: Literal["easy_vqa"] = "easy_vqa"
    """The data set."""
    directory: str = "~/.cache/vlm_jax"
    """Folder in which data sets are prepared once and then read."""
    questions_per_image: int = 10
    """Question slots of a picture in a batch (K); more questions than slots are sampled anew each time."""
    limit: int | None = None
    """Use only this many pictures of each split (for a quick look)."""
    image: ImageInput = field(default_factory=ImageInput)
    """The picture's way into the model."""
    threads: int = 2
    """Threads that decode pictures."""
    read_ahead: int = 8
    """Batches prepared ahead of the device."""


@dataclass(frozen=True)
class ImageEncoder:
    """The CNN that turns a picture into grid features."""

    cnn: Literal["small", "resnet50", "features"] = "small"
    """`small` is a plain residual CNN; `features` takes precomputed grid features and has no CNN."""
    stem_width: int = 32
    """Channels of the first 3x3 convolution of the small CNN."""
    stem_stride: int = 1
    """Stride of that first convolution."""
    widths: tuple[int, ...] = (32, 64, 128)
    """Channels of each stage of the small CNN; each stage halves height and width."""
    blocks: tuple[int, ...] = (0, 1, 1)
    """Residual blocks of each stage of the small CNN, after its strided convolution."""
    norm: Literal["group", "frozen"] = "group"
    """Group norm from scratch; `frozen` is a ported batch norm folded into a fixed scale and bias."""
    features: int = 2048
    """Width of the precomputed grid features (`cnn: features` only)."""
    max_positions: int = 256
    """Rows of the learned table of grid positions."""
    convolution: Literal["auto", "direct", "products"] = "auto"
    """How convolutions are computed: `products` is fast on a CPU, `direct` on a GPU, `auto` chooses."""


@dataclass(frozen=True)
class TextEncoder:
    """The BERT embeddings that turn words into vectors."""

    tokenizer: str | None = None
    """A tokenizer directory, a vocabulary file or a hub id; without one, WordPiece is built from the training set."""
    vocabulary_size: int = 256
    """Rows of the word table. A built vocabulary may be smaller; a given tokenizer must have exactly this size."""
    width: int = 128
    """Embedding width (E)."""
    max_length: int = 16
    """Tokens of a text with [CLS] and [SEP]; longer ones lose their end, [SEP] stays."""
    max_positions: int = 512
    """Rows of the position table."""
    segments: int = 2
    """Rows of the segment table; text is segment 0, the image the last one."""


@dataclass(frozen=True)
class Model:
    """The vision-language model: encoders, fusion trunk and head."""

    fusion: Fusion = "concat"
    """How image and text meet: `concat` is one sequence through one trunk."""
    pattern: Pattern = "bidirectional"
    """Who may see whom; with `image_to_text` the image side is computed once for all questions of a picture."""
    width: int = 128
    """Trunk width (D)."""
    heads: int = 4
    """Attention heads."""
    layers: int = 2
    """Trunk layers."""
    mlp_width: int = 512
    """Width of the feed-forward layers."""
    activation: Literal["gelu", "gelu_new", "relu"] = "gelu"
    """Feed-forward activation; `gelu` is the exact one, as in BERT, `gelu_new` the tanh approximation."""
    norm_epsilon: float = 1e-12
    """Epsilon of every layer norm (BERT's)."""
    dropout: float = 0.0
    """Dropout after embeddings, attention and feed-forward layers."""
    attention_dropout: float = 0.0
    """Dropout on attention weights."""
    head: Literal["answers", "every_position"] = "answers"
    """`answers` classifies [CLS]; `every_position` is one untied linear classifier at every token."""
    classes: int | None = None
    """Classes of the head; by default the size of the answer vocabulary."""
    image: ImageEncoder = field(default_factory=ImageEncoder)
    """The image side."""
    text: TextEncoder = field(default_factory=TextEncoder)
    """The text side."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations and products; parameters, softmax, norms and loss stay float32."""
    remat: bool = False
    """Recompute each layer in the backward pass: less memory, a third more work."""
    scan_layers: bool = False
    """Compile one layer and loop over it: faster to compile, slower to run."""


@dataclass(frozen=True)
class Optimizer:
    """How gradients become updates."""

    name: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or plain gradient descent."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the decay after warm-up, to zero (or none)."""
    warmup_steps: int = 100
    """Optimizer steps of linear warm-up."""
    weight_decay: float = 0.05
    """Decoupled weight decay."""
    no_decay: tuple[str, ...] = (r"(^|/)(bias|scale)$", r"(^|/)embedding$")
    """Parameters whose path matches one of these regular expressions are not decayed."""
    b1: float = 0.9
    """AdamW's decay of the first moment."""
    b2: float = 0.98
    """AdamW's decay of the second moment."""
    epsilon: float = 1e-8
    """AdamW's epsilon."""
    clip_norm: float | None = 1.0
    """Gradients are scaled down to this global norm."""
    multipliers: tuple[tuple[str, float], ...] = ()
    """(regular expression, factor) pairs: learning-rate factors of the parameters whose path matches."""
    frozen: tuple[str, ...] = ()
    """Parameters whose path matches one of these regular expressions are not trained."""
    ema: float | None = None
    """Decay of an exponential moving average of the parameters, which evaluation then uses."""


@dataclass(frozen=True)
class Training:
    """How long and how often."""

    steps: int = 1000
    """Optimizer steps."""
    batch_images: int = 32
    """Pictures of an optimizer step, over all devices and micro-batches."""
    accumulation: int = 1
    """Micro-batches an optimizer step is computed in."""
    label_smoothing: float = 0.0
    """Share of the target spread over all answers."""
    log_every: int = 50
    """Optimizer steps between progress lines."""
    evaluate_every: int = 500
    """Optimizer steps between validations, each of which saves a checkpoint."""
    evaluation_batch_images: int = 64
    """Pictures of an evaluation batch."""


@dataclass(frozen=True)
class Parallel:
    """How a step is spread over devices."""

    method: Literal["jit", "pmap"] = "jit"
    """One sharded program over a mesh, or one copy a device."""
    devices: int | None = None
    """Use only this many devices."""


@dataclass(frozen=True)
class Config:
    """One experiment."""

    name: str = "experiment"
    """Names the default run folder."""
    task: Task = "vqa"
    """What is learned."""
    seed: int = 0
    """The one seed: initial weights, data order, dropout."""
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    optimizer: Optimizer = field(default_factory=Optimizer)
    training: Training = field(default_factory=Training)
    parallel: Parallel = field(default_factory=Parallel)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


def check(config: Config) -> Config:
    """The config itself, or an `InputError` that names the setting at fault and the remedy."""
    model, training, data = config.model, config.training, config.data
    for setting, value, table in (
        ("model.fusion", model.fusion, TASK_FUSIONS),
        ("model.pattern", model.pattern, TASK_PATTERNS),
    ):
        allowed = table[config.task]
        _require(
            value in allowed,
            f"{setting} {value!r} cannot do the task {config.task!r}; {nearest(value, allowed)}",
        )
    for setting, value in (
        ("training.steps", training.steps),
        ("training.batch_images", training.batch_images),
        ("training.accumulation", training.accumulation),
        ("training.log_every", training.log_every),
        ("training.evaluate_every", training.evaluate_every),
        ("training.evaluation_batch_images", training.evaluation_batch_images),
        ("data.questions_per_image", data.questions_per_image),
        ("model.heads", model.heads),
        ("model.layers", model.layers),
    ):
        _require(value >= 1, f"{setting} is {value}; it must be at least 1")
    _require(
        model.width % model.heads == 0,
        f"model.width {model.width} is not a multiple of model.heads {model.heads}; "
        f"the nearest width is {max(1, round(model.width / model.heads)) * model.heads}",
    )
    _require(
        len(model.image.widths) == len(model.image.blocks),
        f"model.image.blocks has {len(model.image.blocks)} stages, model.image.widths {len(model.image.widths)}; "
        "give both the same length",
    )
    _require(
        model.text.max_length <= model.text.max_positions,
        f"model.text.max_length {model.text.max_length} is over model.text.max_positions "
        f"{model.text.max_positions}; raise the latter",
    )
    _require(model.text.max_length >= 3, f"model.text.max_length is {model.text.max_length}; it must be at least 3")
    _require(
        training.batch_images % training.accumulation == 0,
        f"training.batch_images {training.batch_images} does not divide into training.accumulation "
        f"{training.accumulation} micro-batches; the nearest batch is "
        f"{max(1, round(training.batch_images / training.accumulation)) * training.accumulation}",
    )
    for setting, rate in (
        ("model.dropout", model.dropout),
        ("model.attention_dropout", model.attention_dropout),
        ("training.label_smoothing", training.label_smoothing),
    ):
        _require(0 <= rate < 1, f"{setting} is {rate}; it must be at least 0 and below 1")
    return config


def to_dict(config: Any) -> dict[str, Any]:
    """The config as nested plain dictionaries, ready for JSON."""
    return dataclasses.asdict(config)


def to_json(config: Config) -> str:
    """The config as indented JSON, tuples as lists."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def from_dict(values: Any, kind: Any = Config, path: str = "") -> Any:
    """The typed value that `to_dict` came from.

    Raises `InputError` for an unknown setting, or a value of the wrong type, naming its dotted path.
    """
    if dataclasses.is_dataclass(kind):
        if not isinstance(values, dict):
            raise InputError(f"setting {path!r} must be a group of settings, not {values!r}")
        hints = typing.get_type_hints(kind)
        for name in values:
            if name not in hints:
                raise InputError(f"no setting {path + name!r}; {nearest(name, hints)}")
        return kind(**{name: from_dict(value, hints[name], f"{path}{name}.") for name, value in values.items()})
    return _leaf(values, kind, path.removesuffix("."))


def _leaf(value: Any, kind: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value in arguments:
            return value
        raise InputError(f"setting {path!r} is {value!r}; {nearest(str(value), map(str, arguments))}")
    if origin in (types.UnionType, Union):
        if value is None and type(None) in arguments:
            return None
        return _leaf(value, next(a for a in arguments if a is not type(None)), path)
    if origin is tuple and isinstance(value, (list, tuple)):
        if arguments[-1] is Ellipsis:
            return tuple(_leaf(v, arguments[0], path) for v in value)
        if len(value) == len(arguments):
            return tuple(_leaf(v, a, path) for v, a in zip(value, arguments, strict=True))
    elif kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif isinstance(kind, type) and type(value) is kind:
        return value
    raise InputError(f"setting {path!r} must be {getattr(kind, '__name__', kind)}, not {value!r}")


def from_json(text: str) -> Config:
    """The config that `to_json` wrote, checked."""
    return check(from_dict(json.loads(text)))


def difference(old: Config, new: Config) -> list[str]:
    """One line a setting that differs: `model.width: 64 -> 128`."""

    def flat(values: dict[str, Any], path: str = "") -> dict[str, Any]:
        leaves: dict[str, Any] = {}
        for name, value in values.items():
            leaves |= flat(value, f"{path}{name}.") if isinstance(value, dict) else {path + name: value}
        return leaves

    before, after = flat(to_dict(old)), flat(to_dict(new))
    return [f"{name}: {before[name]!r} -> {after[name]!r}" for name in before if before[name] != after[name]]
