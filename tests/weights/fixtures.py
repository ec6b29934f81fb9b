"""Tiny published models as folders, by numpy from a seed alone: the sources of the proofs that ports are exact.

Names and shapes are those of the real files, written down from them and not from our tables. Weights are drawn in the
order of their names. Nothing is zero, one or equal to something else by accident, so that a mix-up shows.
"""

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file

GOLDENS = Path(__file__).parent.parent / "goldens" / "ports.npz"
WIDTH, HEADS, LAYERS, INNER, WORDS, POSITIONS, FEATURES, ANSWERS = 32, 4, 2, 48, 61, 12, 20, 5
LENGTHS, GRID_LENGTHS = (12, 6, 3), (7, 4, 6)  # visible words and cells of the three examples
IMAGE, CLASSES = (64, 48), 10

Shapes = Iterator[tuple[str, tuple[int, ...]]]


class Case(NamedTuple):
    """One published model."""

    name: str
    family: str
    parts: tuple[str, ...] = ()
    """Heads of an encoder; `untied` where its decoder is a matrix of its own."""
    config: Mapping[str, Any] = {}
    stds: tuple[float, ...] = (0.02, 0.2)
    """Of an encoder's weights, one fixture each."""

    @property
    def fixtures(self) -> list["Fixture"]:
        """Its two sets of weights, or a CNN's one."""
        return [Fixture(self, std) for std in self.stds]


class Fixture(NamedTuple):
    """A case and what its weights are drawn with."""

    case: Case
    std: float

    def __str__(self) -> str:
        return f"{self.case.name}-{self.std}"

    @property
    def seed(self) -> int:
        """Another one for each."""
        return zlib.crc32(str(self).encode())


# Encoders


def linear(name: str, columns: int, rows: int) -> Shapes:
    yield f"{name}.weight", (rows, columns)
    yield f"{name}.bias", (rows,)


def norm(name: str, width: int = WIDTH) -> Shapes:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def embeddings(*, positions: int, segments: int) -> Shapes:
    yield "embeddings.word_embeddings.weight", (WORDS, WIDTH)
    yield "embeddings.position_embeddings.weight", (positions, WIDTH)
    if segments:
        yield "embeddings.token_type_embeddings.weight", (segments, WIDTH)
    yield from norm("embeddings.LayerNorm")


def bert_layers() -> Shapes:
    for index in range(LAYERS):
        name = f"encoder.layer.{index}"
        for part in ("query", "key", "value"):
            yield from linear(f"{name}.attention.self.{part}", WIDTH, WIDTH)
        yield from linear(f"{name}.attention.output.dense", WIDTH, WIDTH)
        yield from norm(f"{name}.attention.output.LayerNorm")
        yield from linear(f"{name}.intermediate.dense", WIDTH, INNER)
        yield from linear(f"{name}.output.dense", INNER, WIDTH)
        yield from norm(f"{name}.output.LayerNorm")


def distilbert_layers() -> Shapes:
    for index in range(LAYERS):
        name = f"transformer.layer.{index}"
        for part in ("q_lin", "k_lin", "v_lin", "out_lin"):
            yield from linear(f"{name}.attention.{part}", WIDTH, WIDTH)
        yield from norm(f"{name}.sa_layer_norm")
        yield from linear(f"{name}.ffn.lin1", WIDTH, INNER)
        yield from linear(f"{name}.ffn.lin2", INNER, WIDTH)
        yield from norm(f"{name}.output_layer_norm")


def bert_heads(parts: tuple[str, ...]) -> Shapes:
    """The heads of BERT and VisualBERT."""
    if "words" in parts:
        yield from linear("cls.predictions.transform.dense", WIDTH, WIDTH)
        yield from norm("cls.predictions.transform.LayerNorm")
        yield "cls.predictions.bias", (WORDS,)
    if "untied" in parts:
        yield from linear("cls.predictions.decoder", WIDTH, WORDS)  # its bias has two names
    if "pairs" in parts:
        yield from linear("cls.seq_relationship", WIDTH, 2)
    if "answers" in parts:
        yield from linear("cls", WIDTH, ANSWERS)


def bert(parts: tuple[str, ...], segments: int = 2, positions: int = POSITIONS) -> Shapes:
    yield from embeddings(positions=positions, segments=segments)
    yield from bert_layers()
    if "pooler" in parts:
        yield from linear("pooler.dense", WIDTH, WIDTH)


def visual_bert(parts: tuple[str, ...]) -> Shapes:
    yield from bert(parts)
    yield "embeddings.visual_token_type_embeddings.weight", (2, WIDTH)
    yield "embeddings.visual_position_embeddings.weight", (POSITIONS, WIDTH)
    yield from linear("embeddings.visual_projection", FEATURES, WIDTH)


def roberta_heads(parts: tuple[str, ...]) -> Shapes:
    if "words" in parts:
        yield from linear("lm_head.dense", WIDTH, WIDTH)
        yield from norm("lm_head.layer_norm")
        yield "lm_head.bias", (WORDS,)
    if "untied" in parts:
        yield from linear("lm_head.decoder", WIDTH, WORDS)


def distilbert(parts: tuple[str, ...]) -> Shapes:
    yield from embeddings(positions=POSITIONS, segments=0)
    yield from distilbert_layers()


def distilbert_heads(parts: tuple[str, ...]) -> Shapes:
    if "words" in parts:
        yield from linear("vocab_transform", WIDTH, WIDTH)
        yield from norm("vocab_layer_norm")
        yield "vocab_projector.bias", (WORDS,)
    if "untied" in parts:
        yield "vocab_projector.weight", (WORDS, WIDTH)


ENCODERS = {
    "bert": (bert, bert_heads),
    "roberta": (lambda parts: bert(parts, segments=1, positions=POSITIONS + 2), roberta_heads),
    "distilbert": (distilbert, distilbert_heads),
    "visual_bert": (visual_bert, bert_heads),
}


def encoder_shapes(case: Case) -> Shapes:
    """With heads, the encoder's names stand behind its own."""
    body, heads = ENCODERS[case.family]
    with_heads = {"words", "pairs", "answers"} & set(case.parts)
    for name, shape in body(case.parts):
        yield f"{case.family}.{name}" if with_heads else name, shape
    yield from heads(case.parts)


def encoder_config(case: Case) -> dict[str, Any]:
    if case.family == "distilbert":
        config = {"dim": WIDTH, "n_heads": HEADS, "n_layers": LAYERS, "hidden_dim": INNER, "activation": "gelu"}
        config |= {"pad_token_id": 0, "max_position_embeddings": POSITIONS}
    else:
        config = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS}
        config |= {"intermediate_size": INNER, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "type_vocab_size": 2}
        config |= {"pad_token_id": 0, "max_position_embeddings": POSITIONS}
    if case.family == "roberta":
        config |= {"layer_norm_eps": 1e-5, "type_vocab_size": 1, "pad_token_id": 1}
        config |= {"max_position_embeddings": POSITIONS + 2}
    if case.family == "visual_bert":
        config |= {"visual_embedding_dim": FEATURES, "pad_token_id": 1}
    if "answers" in case.parts:
        config |= {"id2label": {str(index): f"LABEL_{index}" for index in range(ANSWERS)}}
    if "untied" in case.parts:
        config |= {"tie_word_embeddings": False}
    return config | {"vocab_size": WORDS}


def encoder_tensors(fixture: Fixture) -> dict[str, np.ndarray]:
    random, tensors = np.random.default_rng(fixture.seed), {}
    for name, shape in sorted(encoder_shapes(fixture.case)):
        noise = random.standard_normal(shape, dtype=np.float32)
        if "norm" in name.lower():
            tensors[name] = np.float32(name.endswith("weight")) + np.float32(0.2) * noise
        else:
            tensors[name] = np.float32(fixture.std) * noise
    for second, first in (("cls.predictions.decoder", "cls.predictions"), ("lm_head.decoder", "lm_head")):
        if f"{second}.bias" in tensors:
            tensors[f"{second}.bias"] = tensors[f"{first}.bias"]
    return tensors


# CNNs


def convolution(conv: str, batch_norm: str, shape: tuple[int, int, int]) -> Shapes:
    """A kernel [out, in, k, k] and the batch norm behind it."""
    out, inside, size = shape
    yield f"{conv}.weight", (out, inside, size, size)
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        yield f"{batch_norm}.{leaf}", (out,)
    yield f"{batch_norm}.num_batches_tracked", ()


class Block(NamedTuple):
    """One block of a ResNet: its place and its convolutions [out, in, k], the shortcut's last if there is one."""

    stage: int
    number: int
    convolutions: list[tuple[int, int, int]]
    shortcut: tuple[int, int, int] | None


def resnet_blocks(depths: tuple[int, ...], *, bottleneck: bool) -> Iterator[Block]:
    channels = 64
    for stage, depth in enumerate(depths):
        for number in range(depth):
            inner = 64 * 2**stage
            out = 4 * inner if bottleneck else inner
            convolutions = [(inner, channels, 3), (inner, inner, 3)]
            if bottleneck:
                convolutions = [(inner, channels, 1), (inner, inner, 3), (out, inner, 1)]
            yield Block(stage, number, convolutions, (out, channels, 1) if channels != out else None)
            channels = out


def resnet(depths: tuple[int, ...], bottleneck: bool) -> Shapes:
    """transformers' names."""
    stem = "resnet.embedder.embedder"
    yield from convolution(f"{stem}.convolution", f"{stem}.normalization", (64, 3, 7))
    for block in resnet_blocks(depths, bottleneck=bottleneck):
        name = f"resnet.encoder.stages.{block.stage}.layers.{block.number}"
        places = [(f"layer.{index}", shape) for index, shape in enumerate(block.convolutions)]
        places += [("shortcut", block.shortcut)] if block.shortcut else []
        for place, shape in places:
            yield from convolution(f"{name}.{place}.convolution", f"{name}.{place}.normalization", shape)
    yield from linear("classifier.1", 2048 if bottleneck else 512, CLASSES)


def torchvision_resnet(depths: tuple[int, ...], bottleneck: bool) -> Shapes:
    yield from convolution("conv1", "bn1", (64, 3, 7))
    for block in resnet_blocks(depths, bottleneck=bottleneck):
        name = f"layer{block.stage + 1}.{block.number}"
        for index, shape in enumerate(block.convolutions, 1):
            yield from convolution(f"{name}.conv{index}", f"{name}.bn{index}", shape)
        if block.shortcut:
            yield from convolution(f"{name}.downsample.0", f"{name}.downsample.1", block.shortcut)
    yield from linear("fc", 2048 if bottleneck else 512, CLASSES)


# Expansion, channels that come out and size of the depthwise kernels, of each row of blocks; and how many there are.
MOBILENET = ((1, 16, 3, 1), (6, 24, 3, 2), (6, 32, 3, 3), (6, 64, 3, 4), (6, 96, 3, 3), (6, 160, 3, 3), (6, 320, 3, 1))
LITE = ((1, 16, 3, 1), (6, 24, 3, 2), (6, 40, 5, 2), (6, 80, 3, 3), (6, 112, 5, 3), (6, 192, 5, 4), (6, 320, 3, 1))


def torchvision_mobilenet_v2() -> Shapes:
    yield from convolution("features.0.0", "features.0.1", (32, 3, 3))
    channels, number = 32, 1
    for expansion, out, size, depth in MOBILENET:
        for _ in range(depth):
            name, inner, place = f"features.{number}.conv", expansion * channels, 0
            if expansion > 1:
                yield from convolution(f"{name}.0.0", f"{name}.0.1", (inner, channels, 1))
                place = 1
            yield from convolution(f"{name}.{place}.0", f"{name}.{place}.1", (inner, 1, size))
            yield from convolution(f"{name}.{place + 1}", f"{name}.{place + 2}", (out, inner, 1))
            channels, number = out, number + 1
    yield from convolution(f"features.{number}.0", f"features.{number}.1", (1280, channels, 1))
    yield from linear("classifier.1", 1280, CLASSES)


def efficientnet_lite0() -> Shapes:
    yield from convolution("_conv_stem", "_bn0", (32, 3, 3))
    channels, number = 32, 0
    for expansion, out, size, depth in LITE:
        for _ in range(depth):
            name, inner = f"_blocks.{number}", expansion * channels
            if expansion > 1:
                yield from convolution(f"{name}._expand_conv", f"{name}._bn0", (inner, channels, 1))
            yield from convolution(f"{name}._depthwise_conv", f"{name}._bn1", (inner, 1, size))
            yield from convolution(f"{name}._project_conv", f"{name}._bn2", (out, inner, 1))
            channels, number = out, number + 1
    yield from convolution("_conv_head", "_bn1", (1280, channels, 1))
    yield from linear("_fc", 1280, CLASSES)


RESNET18, RESNET50 = ((2, 2, 2, 2), False), ((3, 4, 6, 3), True)
CNN_SHAPES = {
    "resnet18": lambda: resnet(*RESNET18),
    "resnet50": lambda: resnet(*RESNET50),
    "torchvision_resnet18": lambda: torchvision_resnet(*RESNET18),
    "torchvision_resnet50": lambda: torchvision_resnet(*RESNET50),
    "mobilenet_v2": torchvision_mobilenet_v2,
    "efficientnet_lite0": efficientnet_lite0,
}


def cnn_tensors(fixture: Fixture, statistics: np.ndarray | None) -> dict[str, np.ndarray]:
    """`statistics` are all running means and variances in the order of their names; without them 0 and 1."""
    random, tensors, place = np.random.default_rng(fixture.seed), {}, 0
    shallow = "resnet" in fixture.case.name
    for name, shape in sorted(CNN_SHAPES[fixture.case.name]()):
        if name.endswith(("running_mean", "running_var")):
            tensors[name] = np.full(shape, name.endswith("var"), np.float32)
            if statistics is not None:
                tensors[name] = statistics[place : place + shape[0]].astype(np.float32)
                place += shape[0]
            continue
        if name.endswith("num_batches_tracked"):
            tensors[name] = np.asarray(random.integers(1, 1_000_000, shape))
            continue
        noise = random.standard_normal(shape, dtype=np.float32)
        if len(shape) == 4:
            # Half of He's variance for 50 layers that are cut off at 6: with his, float32 itself is chaotic there.
            noise *= np.float32(math.sqrt((2 if shallow else 1) / math.prod(shape[1:])))
        elif len(shape) == 2:
            noise *= np.float32(0.05)
        elif name.endswith("weight"):
            noise = 1 + noise * np.float32(fixture.std)
            if name.endswith((".bn3.weight", ".layer.2.normalization.weight")):
                noise /= 2  # what a bottleneck adds, below what it passes on, as in trained ones
        else:
            noise *= np.float32(0.2)
        tensors[name] = noise
    return tensors


def cnn_config(case: Case) -> dict[str, Any]:
    if case.family != "resnet":
        return {}
    depths, bottleneck = RESNET50 if case.name == "resnet50" else RESNET18
    return {
        "depths": list(depths),
        "layer_type": "bottleneck" if bottleneck else "basic",
        "embedding_size": 64,
        "hidden_sizes": [256, 512, 1024, 2048] if bottleneck else [64, 128, 256, 512],
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "id2label": {str(index): f"LABEL_{index}" for index in range(CLASSES)},
    }


# Cases

POOLED = ("pooler",)
CASES = (
    Case("bert", "bert", POOLED),
    Case("bert_no_pooler", "bert", config={"layer_norm_eps": 1e-5}),
    Case("bert_masked", "bert", ("words",)),
    Case("bert_masked_untied", "bert", ("words", "untied"), {"hidden_act": "relu"}),
    Case("bert_pretraining", "bert", ("pooler", "words", "pairs"), {"hidden_act": "gelu_new"}),
    Case("bert_pretraining_untied", "bert", ("pooler", "words", "untied", "pairs")),
    Case("roberta", "roberta", POOLED),
    Case("roberta_masked", "roberta", ("words",)),
    Case("roberta_masked_untied", "roberta", ("words", "untied")),
    Case("distilbert", "distilbert"),
    Case("distilbert_masked", "distilbert", ("words",)),
    Case("distilbert_masked_untied", "distilbert", ("words", "untied"), {"activation": "relu"}),
    Case("visual_bert", "visual_bert", POOLED),
    Case("visual_bert_pretraining", "visual_bert", ("pooler", "words", "pairs")),
    Case("visual_bert_pretraining_untied", "visual_bert", ("pooler", "words", "untied", "pairs")),
    Case("visual_bert_answers", "visual_bert", ("pooler", "answers")),
    # CNNs; their deviation is that of the norms' scales.
    Case("resnet18", "resnet", stds=(0.2,)),
    Case("resnet50", "resnet", stds=(0.2,)),
    Case("torchvision_resnet18", "torchvision_resnet", stds=(0.2,)),
    Case("torchvision_resnet50", "torchvision_resnet", stds=(0.2,)),
    Case("mobilenet_v2", "torchvision_mobilenet_v2", stds=(0.2, 0.5)),
    Case("efficientnet_lite0", "efficientnet_lite0", stds=(0.2, 0.5)),
)
BY_NAME = {case.name: case for case in CASES}
CLASSES_OF = {
    "bert": {"words": "BertForMaskedLM", "pairs": "BertForPreTraining", "": "BertModel"},
    "roberta": {"words": "RobertaForMaskedLM", "": "RobertaModel"},
    "distilbert": {"words": "DistilBertForMaskedLM", "": "DistilBertModel"},
    "visual_bert": {
        "pairs": "VisualBertForPreTraining", "answers": "VisualBertForQuestionAnswering", "": "VisualBertModel",
    },
    "resnet": {"": "ResNetForImageClassification"},
}  # fmt: skip


def transformers_class(case: Case) -> str | None:
    """The class that published it; None for CNNs that transformers does not have under these names."""
    classes = CLASSES_OF.get(case.family)
    if classes is None:
        return None
    best = [part for part in ("pairs", "answers", "words", "") if part in classes and (not part or part in case.parts)]
    return classes[best[0]]


def is_cnn(case: Case) -> bool:
    return case.name in CNN_SHAPES


def tensors(fixture: Fixture, statistics: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The tensors of the file; a CNN's with the statistics that the goldens hold."""
    if not is_cnn(fixture.case):
        return encoder_tensors(fixture)
    return cnn_tensors(fixture, goldens()[f"{fixture}/statistics"] if statistics is None else statistics)


def config(case: Case) -> dict[str, Any]:
    """config.json; empty where such files have none."""
    kind = transformers_class(case)
    if kind is None:  # as timm's: many networks have the names and shapes of a ResNet
        return {"architecture": case.name.removeprefix("torchvision_")} if case.family == "torchvision_resnet" else {}
    known = cnn_config(case) if is_cnn(case) else encoder_config(case)
    return {"model_type": case.family, "architectures": [kind]} | known | case.config


def fingerprint(content: Mapping[str, np.ndarray]) -> int:
    """A checksum of all tensors, by which goldens know their fixture."""
    checksum = 0
    for name in sorted(content):
        checksum = zlib.crc32(content[name].tobytes(), zlib.crc32(name.encode(), checksum))
    return checksum


def write(folder: Path, content: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> Path:
    """config.json, if there are settings, and model.safetensors."""
    folder.mkdir(parents=True)
    if settings:
        (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    save_file(dict(content), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def publish(fixture: Fixture, folder: Path) -> Path:
    """A fixture as a folder, as it would be published."""
    return write(folder, tensors(fixture), config(fixture.case))


@cache
def goldens() -> dict[str, np.ndarray]:
    """What `tests/goldens/make_ports.py` stored."""
    with np.load(GOLDENS) as file:
        return {name: file[name] for name in file.files}


def inputs(case: Case, stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The stored inputs that a case takes: images [B, h, w, 3], or what `converted_outputs` takes."""
    if is_cnn(case):
        return {"pixels": (stored["inputs/pixels"].astype(np.float32) - 127) / 64}
    names = ["input_ids", "text_mask"]
    names += ["segments"] if case.family in ("bert", "visual_bert") else []
    names += ["image", "image_mask"] if case.family == "visual_bert" else []
    return {name: stored[f"inputs/{name}"] for name in names}
