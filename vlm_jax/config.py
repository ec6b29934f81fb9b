"""Every setting as a typed frozen dataclass, with the mark of what it is to a run that has begun (`setting_kinds`).

Imports neither jax nor anything slow: `--help` reads this file and must answer at once.
"""

from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

from vlm_jax.setting_kinds import Identity, Kind, Length, Place, Rounding, Source, Speed, Use, kinds_of

Task = Literal["vqa", "captioning", "image_tokenizer", "image_generation"]
DataSet = Literal["easy_vqa", "sort_of_clevr", "shape_scenes", "jsonl", "vqa_v2", "coco_captions", "karpathy", "emoji"]
Fusion = Literal["concat", "cross", "co_attention", "late"]
Pattern = Literal[
    "bidirectional", "image_to_text", "prefix", "causal", "text_to_image", "autoregressive", "dual_encoder"
]
Head = Literal["cls", "token_before_sep", "product", "concatenation", "per_token", "lm", "image_tokens"]

# What each task with a trunk runs on: the patterns of a fusion, and the heads that can read it, the default first.
PAIRINGS: dict[str, dict[str, tuple[tuple[Pattern, ...], tuple[Head, ...]]]] = {
    "vqa": {
        "concat": (("image_to_text", "bidirectional"), ("cls", "token_before_sep", "per_token")),
        "cross": (("image_to_text",), ("cls", "per_token")),
        "co_attention": (("bidirectional",), ("cls", "per_token")),
        "late": (("dual_encoder",), ("product", "concatenation")),
    },
    "captioning": {
        "concat": (("prefix", "causal"), ("lm",)),
        "cross": (("prefix", "causal"), ("lm",)),
    },
    "image_generation": {
        "concat": (("text_to_image", "autoregressive"), ("image_tokens",)),
        "cross": (("text_to_image", "autoregressive"), ("image_tokens",)),
    },
}


@dataclass(frozen=True)
class ImageInput:
    """How an image file becomes the model's input. Saved with the checkpoint, used wherever the model is."""

    size: Identity[tuple[int, int]] = (64, 64)
    """Height and width in pixels."""
    resize: Identity[Literal["stretch", "crop", "pad"]] = "crop"
    """`crop` scales the short side and cuts the centre, `pad` scales the long one and fills, `stretch` scales both."""
    short_side: Identity[int | None] = None
    """With `crop`, pixels that the short side is scaled to before `size` is cut out; without it as few as it takes."""
    resample: Identity[Literal["bicubic", "bilinear", "lanczos", "nearest", "box", "hamming"]] = "bicubic"
    """Pillow's filter that scales, always antialiased."""
    mean: Identity[tuple[float, float, float]] = (0.5, 0.5, 0.5)
    """Subtracted from each colour channel, on a scale of 0 to 1."""
    std: Identity[tuple[float, float, float]] = (0.5, 0.5, 0.5)
    """Divides each colour channel afterwards."""
    flip: Identity[bool] = False
    """Mirror half of the training images left to right."""
    shift: Identity[int] = 0
    """Move training images by up to this many pixels each way; uncovered edges repeat the border."""
    max_pixels: Place[int] = 50_000_000
    """An image with more pixels than this is refused before it is decoded."""


@dataclass(frozen=True)
class Files:
    """Your own images with questions or captions (`data.name` jsonl, vqa_v2, coco_captions, karpathy or emoji)."""

    images: Place[str] = ""
    """Folder of the images; paths in the files are relative to it and may not leave it."""
    train: Place[tuple[str, ...]] = ()
    """The files of the split: JSON Lines, VQA v2's questions and annotations, COCO's captions, Karpathy's file."""
    validation: Place[tuple[str, ...]] = ()
    """As `train`; without it a tenth of the training images, by hash, is kept for it."""
    test: Place[tuple[str, ...]] = ()
    """As `train`; without it another tenth of the training images is kept for it."""
    bad_rows: Place[Literal["refuse", "skip"]] = "refuse"
    """What to do about a row that cannot be used: stop and name it, or leave it out, counted and named."""


@dataclass(frozen=True)
class Data:
    """Where images and texts come from."""

    name: Identity[DataSet] = "easy_vqa"
    """The data set; from `jsonl` on your own files: those after `vqa_v2` have captions, `jsonl` has either."""
    files: Files = field(default_factory=Files)
    """Where your own files are."""
    texts: Identity[Literal["questions", "captions", "first_caption"] | None] = None
    """Which texts of an image are learned, by default the task's; `first_caption` is the complete one of drawn scenes.
    Whichever it is, captions of images of your own are scored by all that a file has."""
    min_answer_count: Identity[int] = 1
    """An answer joins the vocabulary when it was given this often in training."""
    accuracy: Use[Literal["soft", "vqa"] | None] = None
    """`soft`: the share of people who gave the answer, or the official `vqa` accuracy (the default of vqa_v2)."""
    directory: Place[str] = "~/.cache/vlm_jax"
    """Folder in which data sets are prepared once and then read."""
    drawing_seed: Identity[int] = 0
    """The seed of images that are drawn (sort_of_clevr, shape_scenes): another data set of the same kind."""
    drawing_size: Identity[int] = 64
    """Side of the images of shape_scenes, in pixels."""
    drawing_things: Identity[tuple[int, int]] = (1, 4)
    """The fewest and the most things in a scene of shape_scenes."""
    texts_per_image: Identity[int] = 10
    """Question slots of an image in a batch (K); more questions than slots are sampled anew each time."""
    limit: Identity[int | None] = None
    """Use only this many images of each split (for a quick look)."""
    evaluation_limit: Use[int | None] = None
    """Use only this many of every split but `train`: the first ones, for scores that take less time."""
    image: ImageInput = field(default_factory=ImageInput)
    """The image's way into the model."""
    threads: Speed[int] = 2
    """Threads that decode images."""
    read_ahead: Speed[int] = 8
    """Batches prepared ahead of the device."""


@dataclass(frozen=True)
class ImageEncoder:
    """The CNN that turns an image into grid features."""

    cnn: Identity[
        Literal[
            "small",
            "resnet18",
            "resnet34",
            "resnet50",
            "resnet101",
            "mobilenet_v2",
            "efficientnet_lite0",
            "patches",
            "features",
            "image_tokens",
        ]
    ] = "small"
    """`small` is a plain residual CNN, `patches` cuts the image up as ViLT does, `features` takes grid features.
    `image_tokens` takes those of an image tokenizer, as image generation does by itself.
    `mobilenet_v2` and `efficientnet_lite0` are light: depthwise convolutions, 1280 channels at 1/32 of the size."""
    patch_size: Identity[int] = 16
    """Side of a patch in pixels (`cnn: patches` only)."""
    stem_width: Identity[int] = 32
    """Channels of the first 3x3 convolution of the small CNN."""
    stem_stride: Identity[int] = 1
    """Stride of that first convolution."""
    widths: Identity[tuple[int, ...]] = (32, 64, 128)
    """Channels of each stage of the small CNN; each stage halves height and width."""
    blocks: Identity[tuple[int, ...]] = (0, 1, 1)
    """Residual blocks of each stage of the small CNN, after its strided convolution."""
    norm: Identity[Literal["group", "frozen"]] = "group"
    """Group norm from scratch; `frozen` is a ported batch norm folded into a fixed scale and bias."""
    feature_size: Identity[int] = 2048
    """Width of the precomputed grid features (`cnn: features` only)."""
    positions: Identity[Literal["sequence", "grid", "shared"]] = "sequence"
    """A vector for each cell in reading order, the sum of its row's and its column's, or one for all (VisualBERT)."""
    max_position_embeddings: Identity[int] = 256
    """Rows of each table of positions."""
    modality_type_vocab_size: Identity[int] = 1
    """Rows of the image's segment table, the last of which is used (VisualBERT has two)."""
    projection: Identity[Literal["linear", "mlp"]] = "linear"
    """From the grid to the trunk's width: one matrix, or two with a GELU between them as in LLaVA-1.5."""
    init_from: Source[str | None] = None
    """Pretrained weights of the CNN to start from: a folder, a file, a hub id, `package:NAME/folder`, or a run."""
    convolution: Identity[Literal["auto", "direct", "products"]] = "auto"
    """How convolutions are computed: `products` is fast on a CPU, `direct` on a GPU, `auto` chooses."""


@dataclass(frozen=True)
class TextEncoder:
    """The BERT embeddings that turn words into vectors."""

    tokenizer: Source[str | None] = None
    """A tokenizer's folder, vocabulary file, `package:NAME/folder` or hub id; without one, WordPiece is built."""
    vocab_size: Identity[int] = 256
    """Rows of the word table. The vocabulary may be smaller: rows of no token are never predicted."""
    feature_size: Identity[int] = 128
    """Embedding width (E)."""
    max_length: Identity[int] = 16
    """Tokens of a text with [CLS] and [SEP]; longer ones lose their end, [SEP] stays."""
    max_position_embeddings: Identity[int] = 512
    """Rows of the position table."""
    first_position: Identity[int] = 0
    """Row of the position table that the first token has; 2 in RoBERTa."""
    type_vocab_size: Identity[int] = 2
    """Rows of the segment table, text being segment 0; with 0 there is no such table (DistilBERT)."""
    init_from: Source[str | None] = None
    """Pretrained weights of the text side to start from, given like `model.image.init_from`."""
    init_trunk: Identity[bool] = True
    """Start the trunk's text layers from `init_from` as well, or the embeddings alone."""
    init_positions: Identity[Literal["exact", "cut", "interpolate"]] = "exact"
    """What to do where the pretrained position table has another length than `max_position_embeddings`."""


@dataclass(frozen=True)
class ImageTokenizerSettings:
    """The image tokenizer: an image as a small grid of image tokens, and back (tasks image_tokenizer,
    image_generation)."""

    quantizer: Identity[Literal["fsq", "vq"]] = "fsq"
    """`fsq` rounds a few numbers to a few levels each, `vq` takes the nearest of learned vectors."""
    levels: Identity[tuple[int, ...]] = (8, 5, 5, 5)
    """Levels of each number of the scalar quantizer; their product is how many image tokens there are."""
    codebook_size: Identity[int] = 1000
    """How many image tokens a learned codebook has."""
    embedding_size: Identity[int] = 16
    """Width of the vectors of a learned codebook."""
    commitment: Identity[float] = 0.25
    """Weight of the loss that keeps features near their image token (learned codebook)."""
    encoder: Identity[Literal["patchwise", "convolutional"]] = "patchwise"
    """With `patchwise` a cell's image token is of what is in it alone; with `convolutional` the encoder looks around it
    as
    well."""
    encoder_noise: Identity[float] = 0.0
    """Noise (levels of 255, standard deviation) on what the encoder learns from: image tokens follow it less."""
    patch_size: Identity[int] = 4
    """Side in pixels of the squares that the first stage sees; each later stage halves height and width."""
    widths: Identity[tuple[int, ...]] = (64, 128)
    """Channels of each stage of the encoder; the decoder mirrors it."""
    depths: Identity[tuple[int, ...]] = (2, 2)
    """Residual blocks of each stage, in the encoder and in the decoder."""
    convolution: Identity[Literal["auto", "direct", "products"]] = "auto"
    """How convolutions are computed, as `model.image.convolution`."""


@dataclass(frozen=True)
class Model:
    """The vision-language model: encoders, fusion trunk and head."""

    fusion: Identity[Fusion] = "concat"
    """`concat`: one sequence; `cross`: one side asks the other; `co_attention`: both ask; `late`: in the head."""
    attention_pattern: Identity[Pattern | None] = None
    """Who may see whom, by default the fusion's own; with `image_to_text` questions share their image's side."""
    hidden_size: Identity[int] = 128
    """Trunk width (D)."""
    num_attention_heads: Identity[int] = 4
    """Attention heads."""
    num_layers: Identity[int] = 2
    """Trunk layers."""
    intermediate_size: Identity[int] = 512
    """Width of the feed-forward layers."""
    activation: Identity[Literal["gelu", "gelu_new", "relu"]] = "gelu"
    """Feed-forward activation; `gelu` is the exact one, as in BERT, `gelu_new` the tanh approximation."""
    layer_norm_eps: Identity[float] = 1e-12
    """Epsilon of every layer norm (BERT's)."""
    hidden_dropout_prob: Identity[float] = 0.0
    """Dropout after embeddings, attention and feed-forward layers."""
    attention_probs_dropout_prob: Identity[float] = 0.0
    """Dropout on attention weights."""
    head: Identity[Head | None] = None
    """`cls` reads [CLS], `token_before_sep` VisualBERT's place, `product` and `concatenation` join [CLS] and mean
    cell."""
    classes: Identity[int | None] = None
    """Classes of the head; by default the size of the answer vocabulary."""
    image: ImageEncoder = field(default_factory=ImageEncoder)
    """The image side."""
    text: TextEncoder = field(default_factory=TextEncoder)
    """The text side."""
    image_tokenizer: ImageTokenizerSettings = field(default_factory=ImageTokenizerSettings)
    """The image tokenizer; image generation must have that of the run `generation.tokenizer`."""
    init_from: Source[str | None] = None
    """Pretrained weights of the whole model to start from: VisualBERT's, or a run's."""
    compute_dtype: Identity[Literal["float32", "bfloat16"]] = "float32"
    """Type of activations and products; parameters, softmax, norms and loss stay float32."""
    remat: Identity[bool] = False
    """Recompute each layer in the backward pass: less memory, a third more work."""
    scan_layers: Identity[bool] = False
    """Compile one layer and loop over it: faster to compile, slower to run."""


@dataclass(frozen=True)
class Optimizer:
    """How gradients become updates."""

    name: Identity[Literal["adamw", "muon", "sgd"]] = "adamw"
    """AdamW; the same with Muon for the trunk's matrices, which takes fewer steps; or plain gradient descent."""
    learning_rate: Identity[float] = 1e-3
    """Peak learning rate."""
    schedule: Identity[Literal["cosine", "linear", "constant"]] = "cosine"
    """Shape of the decay after warm-up, to zero (or none)."""
    warmup_steps: Identity[int] = 100
    """Optimizer steps of linear warm-up."""
    weight_decay: Identity[float] = 0.05
    """Decoupled weight decay."""
    no_decay: Identity[tuple[str, ...]] = (r"(^|/)(bias|scale)$", r"(^|/)embedding$")
    """Parameters whose path matches one of these regular expressions are not decayed."""
    b1: Identity[float] = 0.9
    """AdamW's decay of the first moment."""
    b2: Identity[float] = 0.98
    """AdamW's decay of the second moment."""
    epsilon: Identity[float] = 1e-8
    """AdamW's epsilon."""
    clip_norm: Identity[float | None] = 1.0
    """Gradients are scaled down to this global norm."""
    multipliers: Identity[tuple[tuple[str, float], ...]] = ()
    """(regular expression, factor) pairs: learning-rate factors of the parameters whose path matches."""
    frozen: Identity[tuple[str, ...]] = ()
    """Parameters whose path matches one of these regular expressions are not trained."""
    ema: Identity[float | None] = None
    """Decay of an exponential moving average of the parameters, which evaluation then uses."""


@dataclass(frozen=True)
class Training:
    """How long and how often."""

    steps: Length[int] = 1000
    """Optimizer steps."""
    batch_images: Identity[int] = 32
    """Images of an optimizer step, over all devices and micro-batches."""
    accumulation: Identity[int] = 1
    """Micro-batches an optimizer step is computed in."""
    label_smoothing: Identity[float] = 0.0
    """Share of the target spread over all answers, or words."""
    log_every: Speed[int] = 50
    """Optimizer steps between progress lines."""
    evaluate_every: Use[int] = 500
    """Optimizer steps between validations, each of which saves a checkpoint."""
    evaluation_batch_images: Speed[int] = 64
    """Images of an evaluation batch."""


@dataclass(frozen=True)
class Decoding:
    """How words are said one after the other (captioning)."""

    method: Use[Literal["greedy", "sample", "beam"]] = "greedy"
    """The likeliest word each time, one drawn at random, or the likeliest whole text that a search finds."""
    num_return_sequences: Use[int] = 1
    """Texts of an image: so many draws, or the best of the search; `greedy` has one."""
    num_beams: Use[int] = 5
    """Texts that the search follows side by side."""
    length_penalty: Use[float] = 0.0
    """Power (alpha) of GNMT's length penalty: above 0 the search likes longer texts."""
    early_stopping: Use[bool] = False
    """End the search when `num_beams` texts have ended, not when none could become better."""
    temperature: Use[float] = 1.0
    """Divides the logits before a word is drawn."""
    top_k: Use[int | None] = None
    """Draw among this many of the likeliest words."""
    top_p: Use[float | None] = None
    """Draw among the likeliest words that together have this probability (nucleus)."""
    min_length: Use[int] = 0
    """Tokens that a text has at least, [SEP] left out."""
    no_repeat_ngram_size: Use[int] = 0
    """Say no run of so many tokens twice; 0 allows it."""
    prefix: Use[str] = ""
    """Words with which every text begins."""


@dataclass(frozen=True)
class Generation:
    """How images are learned and drawn, as image tokens (task image_generation)."""

    tokenizer: Source[str | None] = None
    """Folder of the image tokenizer's run. What it is is kept in the run, which needs it no more once it has begun."""
    mask_schedule: Identity[Literal["cosine", "linear", "square"]] = "cosine"
    """The share of image tokens that is hidden, from all to none: of a training image at random, while drawing in
    steps.
    This, `num_decoding_steps` and `choice_temperature` are not for `autoregressive`."""
    cond_drop_prob: Identity[float] = 0.1
    """Share of training images that are learned without their prompt, for guidance."""
    loss_weighting: Identity[Literal["uniform", "elbo"]] = "uniform"
    """With `elbo` every training image counts the same, however many of its image tokens are hidden: those with few
    hidden,
    which say
    how image tokens fit together, count for more. Not with `autoregressive`."""
    token_frequency_power: Identity[float] = 0.0
    """The loss of a mask token counts by its share among the training image tokens to the power of minus this: above 0
    edges
    of things count for more, and shades of a background for less. What is learned of each stays a probability."""
    num_decoding_steps: Use[int] = 12
    """Steps in which the image tokens of an image are drawn."""
    num_refinement_rounds: Use[int] = 0
    """Rounds in which each image token of a whole image is then drawn anew, an eighth at a time; not with
    `autoregressive`."""
    guidance: Use[float] = 2.0
    """How far logits are pushed from those without the prompt towards those with it; 0 draws with the prompt alone."""
    temperature: Use[float] = 1.0
    """Divides the logits before an image token is drawn."""
    choice_temperature: Use[float] = 4.5
    """How much chance there is in which image tokens are kept: at first so much, at the end none (MaskGIT's)."""
    num_images: Use[int] = 1
    """Images drawn of a prompt."""
    num_candidates: Use[int] = 1
    """Each image is the best of so many that are drawn: the likeliest, as the model sees them when they are whole."""
    reranker: Use[str | None] = None
    """Folder of a captioning run, which chooses among candidates: the best is the one of which it would most likely say
    the prompt. It is read whenever the run is opened."""
    features: Use[str | None] = None
    """A ported CNN (folder, file, `package:NAME/folder` or hub id): scoring adds Fréchet distances in its features."""
    features_sha256: Use[str | None] = None
    """Refuse a CNN whose file has another SHA-256, so that distances compare."""


@dataclass(frozen=True)
class Parallel:
    """How a step is spread over devices."""

    method: Rounding[Literal["jit", "pmap"]] = "jit"
    """One sharded program over a mesh, or one copy a device."""
    devices: Rounding[int | None] = None
    """Use only this many devices."""


@dataclass(frozen=True)
class Config:
    """One experiment."""

    name: Place[str] = "experiment"
    """Names the default run folder."""
    task: Identity[Task] = "vqa"
    """What is learned."""
    seed: Identity[int] = 0
    """The one seed: initial weights, data order, dropout, captions drawn at random."""
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    optimizer: Optimizer = field(default_factory=Optimizer)
    training: Training = field(default_factory=Training)
    decoding: Decoding = field(default_factory=Decoding)
    generation: Generation = field(default_factory=Generation)
    parallel: Parallel = field(default_factory=Parallel)


KINDS = kinds_of(Config)
"""The kind of every setting by its dotted path."""

# What of `generation`, like all of `decoding`, is about how a trained model is used: no optimizer step depends on it.
GENERATION_USE = tuple(entry.name for entry in fields(Generation) if KINDS[f"generation.{entry.name}"] is Kind.USE)


def training_of(config: Config) -> Config:
    """The config with how texts are said and images drawn left out: configs that have the same one train alike."""
    fresh = Generation()
    learned = replace(config.generation, **{name: getattr(fresh, name) for name in GENERATION_USE})
    return replace(config, decoding=Decoding(), generation=learned)


def limit_of(data: Data, split: str) -> int | None:
    """How many images of a split are used at most; None where all are."""
    limits = (data.limit, None if split == "train" else data.evaluation_limit)
    return min((limit for limit in limits if limit is not None), default=None)


def leaves(group: Any, path: str = "") -> dict[str, Any]:
    """Every setting of a group by its dotted path, such as `model.image.cnn`."""
    settings: dict[str, Any] = {}
    for entry in fields(group):
        value = getattr(group, entry.name)
        settings |= leaves(value, f"{path}{entry.name}.") if is_dataclass(value) else {path + entry.name: value}
    return settings
