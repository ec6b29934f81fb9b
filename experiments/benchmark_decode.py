"""Speed of decoding, ours against transformers' `generate` with the same weights.

`python -m experiments.benchmark_decode --size small`: a `cross` model, which is BERT as an encoder-decoder, reads 49
cells and says 20 words. Each side runs in a process of its own, and they take turns, so that whatever else the machine
does slows both. Before any timing both must say the same words. Reading the image counts on both sides. Each side
takes a GPU if it finds one, and products are full float32 on both.
"""

import dataclasses
import importlib.util
import json
import os
import re
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vlm_jax.command_line import run_command
from vlm_jax.config.architecture import Architecture
from vlm_jax.config.captioning import Beam, Greedy
from vlm_jax.config.encoders import Features
from vlm_jax.errors import InputError
from vlm_jax.invocation import command_name
from vlm_jax.settings.command_line import parse_options
from vlm_jax.settings.groups import Group

from .benchmark_sides import Child, by_path, shaken

GRID_POSITIONS, FEATURES = 49, 512
WIDTHS = {"small": (256, 4, 4), "base": (768, 12, 12)}  # width, layers, heads
POSITIONS = 64
BEGIN, END, PAD = 101, 102, 0  # BERT's [CLS], [SEP] and [PAD]

# Paths of ours in a layer, and their names.
LAYER = tuple(
    (re.compile(rf"trunk/(?P<side>image|text)_layer_(?P<layer>\d+)/{path}/(?P<leaf>\w+)"), name)
    for path, name in (
        (r"attention/(?P<what>query|key|value)", r"attention.self.\g<what>"),
        (r"attention/output", "attention.output.dense"),
        (r"attention_norm", "attention.output.LayerNorm"),
        (r"cross_attention/(?P<what>query|key|value)", r"crossattention.self.\g<what>"),
        (r"cross_attention/output", "crossattention.output.dense"),
        (r"cross_attention_norm", "crossattention.output.LayerNorm"),
        (r"intermediate", "intermediate.dense"),
        (r"output", "output.dense"),
        (r"output_norm", "output.LayerNorm"),
    )
)
SIDES = {"image": "encoder.encoder.layer", "text": "decoder.bert.encoder.layer"}
OTHERS = {
    "embed/image_position/embedding": ("encoder.embeddings.position_embeddings.weight",),
    "embed/image_segment": ("encoder.embeddings.token_type_embeddings.weight",),
    "embed/norm/scale": ("encoder.embeddings.LayerNorm.weight", "decoder.bert.embeddings.LayerNorm.weight"),
    "embed/norm/bias": ("encoder.embeddings.LayerNorm.bias", "decoder.bert.embeddings.LayerNorm.bias"),
    "text/word/embedding": ("decoder.bert.embeddings.word_embeddings.weight", "decoder.cls.predictions.decoder.weight"),
    "text/position/embedding": ("decoder.bert.embeddings.position_embeddings.weight",),
    "text/segment/embedding": ("decoder.bert.embeddings.token_type_embeddings.weight",),
    "head/words/transform/kernel": ("decoder.cls.predictions.transform.dense.weight",),
    "head/words/transform/bias": ("decoder.cls.predictions.transform.dense.bias",),
    "head/words/norm/scale": ("decoder.cls.predictions.transform.LayerNorm.weight",),
    "head/words/norm/bias": ("decoder.cls.predictions.transform.LayerNorm.bias",),
    "head/words/bias": ("decoder.cls.predictions.bias", "decoder.cls.predictions.decoder.bias"),
}


@dataclass(frozen=True)
class Case:
    """What is decoded."""

    size: str
    words: int
    vocabulary: int
    batch: int
    beams: int

    @property
    def model(self) -> Architecture:
        """Our model."""
        width, layers, heads = WIDTHS[self.size]
        return Architecture(
            fusion="cross",
            attention_pattern="prefix",
            head="lm",
            hidden_size=width,
            num_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            image=Features(feature_size=FEATURES),
            max_image_positions=GRID_POSITIONS,
            vocab_size=self.vocabulary,
            text_feature_size=width,
            max_position_embeddings=POSITIONS,
        )

    @property
    def work(self) -> dict[str, int]:
        """Arithmetic and bytes of weights of a word, and arithmetic of reading the images; attention left out."""
        width, layers, _ = WIDTHS[self.size]
        # Of the decoder: four products of attention to the words, two to the image, and eight of the feed-forward.
        weights = layers * 14 * width**2 + width * (width + self.vocabulary)
        image = self.batch * GRID_POSITIONS * layers * 14 * width**2  # 12 of the encoder, 2 for keys and values
        return {
            "word_flops": 2 * self.batch * self.beams * weights,
            "word_bytes": 4 * weights,
            "image_flops": 2 * image,
        }

    @property
    def image(self) -> np.ndarray:
        """Grid features of a batch."""
        return np.random.default_rng(0).normal(size=(self.batch, GRID_POSITIONS, FEATURES)).astype(np.float32)


class Benchmark(Group):
    """Median seconds to decode a batch, ours and transformers', greedily and with beams."""

    size: Literal["small", "base"] = "small"
    """4 layers of width 256, or 12 of 768."""
    words: int = 20
    """Words that are said; no text ends before."""
    vocabulary: int = 30_522
    """Words to choose from."""
    batches: tuple[int, ...] = (1, 16)
    """Images at once."""
    beams: tuple[int, ...] = (1, 5)
    """1 is greedy."""
    rounds: int = 7
    """Samples of each side."""
    json_: bool = False
    """One line of JSON a row instead of text."""


def main(argv: list[str]) -> int:
    arguments = parse_options(argv, Benchmark, prog=command_name("benchmark_decode"))
    if not 1 <= arguments.words <= POSITIONS - 2:
        raise InputError(f"--words is {arguments.words}; it must be 1 to {POSITIONS - 2}")
    if importlib.util.find_spec("torch") is None:
        raise InputError("transformers' generate needs PyTorch; install it with: pip install torch==2.13.0")
    if not arguments.json_:
        print(f"{'size':6s}{'batch':>6s}{'beams':>6s}{'ours':>10s}{'peer':>10s}{'ratio':>7s}  compiled in")
    for batch in arguments.batches:
        for beams in arguments.beams:
            case = Case(arguments.size, arguments.words, arguments.vocabulary, batch, beams)
            row = measure(case, arguments.rounds)
            print(json.dumps(row) if arguments.json_ else _text(row), flush=True)
    return 0


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Both sides in turn, after they have said the same."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "parameters.npz"
        jax_side = Child(Own, case, file)
        transformers_side = Child(PeerSide, case, file)
    if not np.array_equal(jax_side.call("token_ids"), transformers_side.call("token_ids")):
        raise InputError("the two sides say different words: not one model")
    samples = [(jax_side.call("timed"), transformers_side.call("timed")) for _ in range(rounds)]
    jax_seconds, peer_seconds = (statistics.median(column) for column in zip(*samples, strict=True))
    ratios = [own / other for own, other in samples]
    row = {"ours_seconds": jax_seconds, "transformers_seconds": peer_seconds, "ratio": jax_seconds / peer_seconds}
    row |= {"ratios": ratios, **case.work}
    return dataclasses.asdict(case) | row | jax_side.metadata | transformers_side.metadata


def _text(row: dict[str, Any]) -> str:
    jax_ms, peer_ms = 1e3 * row["ours_seconds"], 1e3 * row["transformers_seconds"]
    return (
        f"{row['size']:6s}{row['batch']:6d}{row['beams']:6d}{jax_ms:7.1f} ms{peer_ms:7.1f} ms{row['ratio']:7.2f}"
        f"  {row['compile_seconds']:.1f} s"
    )


class Own:
    """Our decoder; its parameters go to `file`."""

    def __init__(self, case: Case, file: Path) -> None:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peer needs the same GPU's memory
        from vlm_jax.allocator import tune_malloc

        tune_malloc()
        import jax
        import jax.numpy as jnp

        from vlm_jax.decoding import Decoder, Special
        from vlm_jax.models.vlm import VisualLanguageModel

        if jax.default_backend() != "cpu":
            jax.config.update("jax_default_matmul_precision", "highest")  # or it would be TF32
        model = VisualLanguageModel(case.model, 1)
        image, ids = jnp.asarray(case.image), jnp.zeros((case.batch, 1, 2), jnp.int32)
        params = jax.jit(lambda key: model.init(key, image, ids, jnp.ones(ids.shape, bool)))(jax.random.key(0))[
            "params"
        ]
        fresh = params["embed"]["text_fc"]
        params = shaken(params)
        params["embed"]["text_fc"] = fresh  # the identity, which BERT has not
        np.savez(file, **by_path(params))
        settings = (
            Beam(num_beams=case.beams, min_length=case.words + 1)
            if case.beams > 1
            else Greedy(min_length=case.words + 1)
        )
        self._decoder = Decoder(model, settings, Special(BEGIN, END, PAD), max_tokens=case.words)
        self._inputs, self._jax = ({"params": params}, image), jax
        began = time.perf_counter()
        self._run()
        self.metadata = {"compile_seconds": time.perf_counter() - began, "our_device": jax.default_backend()}

    def _run(self) -> Any:
        return self._jax.block_until_ready(self._decoder(*self._inputs))

    def token_ids(self) -> np.ndarray:
        """Token ids of the best text of each image."""
        return np.asarray(self._run().ids[:, 0])

    def timed(self) -> float:
        """Seconds of a batch."""
        began = time.perf_counter()
        self._run()
        return time.perf_counter() - began


class PeerSide:
    """transformers' `EncoderDecoderModel` of two BERTs, from the parameters in `file`."""

    def __init__(self, case: Case, file: Path) -> None:
        import torch
        from transformers import BertConfig, BertLMHeadModel, BertModel, EncoderDecoderModel

        width, layers, heads = WIDTHS[case.size]
        shape = {
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": 4 * width,
        }
        encoder = BertConfig(vocab_size=1, max_position_embeddings=GRID_POSITIONS, type_vocab_size=1, **shape)
        cross = {"is_decoder": True, "add_cross_attention": True}
        decoder = BertConfig(vocab_size=case.vocabulary, max_position_embeddings=POSITIONS, **cross, **shape)
        model = EncoderDecoderModel(encoder=BertModel(encoder, add_pooling_layer=False),
                                    decoder=BertLMHeadModel(decoder)).eval()  # fmt: skip
        leaves = dict(np.load(file))
        state = {name: torch.tensor(array) for name, array in transformers_state(leaves).items()}
        loaded = model.load_state_dict(state, strict=False)
        missing = set(loaded.missing_keys) - {"encoder.embeddings.word_embeddings.weight"}
        if missing or loaded.unexpected_keys:
            raise RuntimeError(f"missing {sorted(missing)}, unexpected {loaded.unexpected_keys}")
        self._project = torch.nn.Linear(FEATURES, width)
        self._project.weight.data = torch.tensor(leaves["embed/image_fc/kernel"].T)
        self._project.bias.data = torch.tensor(leaves["embed/image_fc/bias"])
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model, self._torch, self._image = model.to(device), torch, torch.tensor(case.image, device=device)
        self._project.to(device)
        self._options = {
            "num_beams": case.beams,
            "do_sample": False,
            "length_penalty": 0.0,
            "early_stopping": False,
            "max_new_tokens": case.words,
            "min_new_tokens": case.words,
            "decoder_start_token_id": BEGIN,
            "bos_token_id": BEGIN,
            "eos_token_id": END,
            "pad_token_id": PAD,
            "use_cache": True,
        }
        self._run()
        self.metadata = {
            "their_device": "gpu" if device == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
        }

    def _run(self) -> Any:
        with self._torch.inference_mode():
            states = self._model.encoder(inputs_embeds=self._project(self._image))
            return self._model.generate(encoder_outputs=states, **self._options)

    def token_ids(self) -> np.ndarray:
        """Token ids, [CLS] left out."""
        return self._run()[:, 1:].cpu().numpy()

    def timed(self) -> float:
        """Seconds of a batch."""
        began = time.perf_counter()
        self._run().cpu()  # which waits for a GPU
        return time.perf_counter() - began


def transformers_state(leaves: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our parameters as transformers' `EncoderDecoderModel` names and turns them; `image_fc` and `text_fc` left out."""
    named = {}
    for path, leaf in leaves.items():
        if path.startswith(("embed/image_fc/", "embed/text_fc/")):
            continue
        array = leaf.T if path.endswith("/kernel") else leaf
        for name in _transformers_names(path):
            named[name] = array
    return named


def _transformers_names(path: str) -> tuple[str, ...]:
    if path in OTHERS:
        return OTHERS[path]
    for pattern, name in LAYER:
        if match := pattern.fullmatch(path):
            leaf = "bias" if match["leaf"] == "bias" else "weight"
            return (f"{SIDES[match['side']]}.{match['layer']}.{match.expand(name)}.{leaf}",)
    raise KeyError(path)


if __name__ == "__main__":
    run_command(main)
