"""A tiny BERT of one's own as a folder: config.json, model.safetensors, vocab.txt; and a run that nobody trained."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from tests.parameters import random_parameters
from vlm_jax.config.encoders import SmallCNN
from vlm_jax.config.initialization import PartsInit, Scratch
from vlm_jax.config.trunk import CustomLayout, TextInput
from vlm_jax.config.vqa import VQA, Model
from vlm_jax.data.answers import AnswerVocabulary
from vlm_jax.data.image_settings import AugmentedImages
from vlm_jax.data.wordpiece import bert_tokenizer
from vlm_jax.models.vlm import VisualLanguageModel
from vlm_jax.run_folder import SETUP, RunFolder
from vlm_jax.settings.changes import to_json, with_changes
from vlm_jax.training.checkpoint import Checkpoints
from vlm_jax.training.optimizer import make_optimizer
from vlm_jax.training.step import create_state
from vlm_jax.trees import flatten, unflatten

WORDS = (
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "is", "there", "a", "circle", "?", "what", "color", "the", "shape",
)  # fmt: skip
SETTINGS = {
    "model_type": "bert", "architectures": ["BertModel"], "vocab_size": len(WORDS), "hidden_size": 16,
    "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "hidden_act": "gelu",
    "layer_norm_eps": 1e-12, "max_position_embeddings": 20, "type_vocab_size": 2, "pad_token_id": 0,
}  # fmt: skip


def tensors(seed=0):
    """Random weights under BertModel's names."""
    random, width, inner = np.random.default_rng(seed), SETTINGS["hidden_size"], SETTINGS["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (len(WORDS), width),
        "embeddings.position_embeddings.weight": (SETTINGS["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (2, width),
    }
    linear = {"pooler.dense": (width, width)}
    norms = ["embeddings.LayerNorm"]
    for index in range(SETTINGS["num_hidden_layers"]):
        name = f"encoder.layer.{index}"
        linear |= {f"{name}.attention.self.{part}": (width, width) for part in ("query", "key", "value")}
        linear |= {f"{name}.attention.output.dense": (width, width), f"{name}.intermediate.dense": (inner, width)}
        linear |= {f"{name}.output.dense": (width, inner)}
        norms += [f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"]
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name in norms:
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    return {
        name: (random.normal(0, 0.2, shape) + name.endswith("LayerNorm.weight")).astype(np.float32)
        for name, shape in shapes.items()
    }


def masked_tensors():
    """Random weights under the names of BertForMaskedLM, its decoder tied."""
    random = np.random.default_rng(1)
    weights = {f"bert.{name}": x for name, x in tensors().items() if "pooler" not in name}
    head = "cls.predictions"
    shapes = {
        f"{head}.transform.dense.weight": (16, 16), f"{head}.transform.dense.bias": (16,),
        f"{head}.transform.LayerNorm.weight": (16,), f"{head}.transform.LayerNorm.bias": (16,),
        f"{head}.bias": (len(WORDS),),
    }  # fmt: skip
    return weights | {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write(folder, weights=None, **changes):
    """The folder; `changes` are settings of config.json, None leaves one out."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {name: value for name, value in (SETTINGS | changes).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    save_file(tensors() if weights is None else weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return folder


def config(source=None, changes=None):
    """A config that fits the tiny BERT, which its text side starts from if `source` is given; with dotted changes."""
    width = SETTINGS["hidden_size"]
    fitting = VQA(
        image=AugmentedImages(size=(16, 16)),
        model=Model(
            hidden_size=width,
            num_attention_heads=2,
            num_layers=2,
            intermediate_size=24,
            image=SmallCNN(widths=(8, 8), blocks=(0, 0), stem_width=8),
            text=TextInput(vocab_size=len(WORDS), max_length=12),
            layout=CustomLayout(max_position_embeddings=20),
        ),
        init=PartsInit(text=str(source)) if source else Scratch(),
    )
    return with_changes(fitting, changes or {})


def fresh(settings, classes=3):
    """Parameters of the config's model before anything is converted."""
    model, ids = VisualLanguageModel(settings.architecture, classes), jnp.zeros((1, 1, 5), jnp.int32)
    image, mask = jnp.zeros((1, *settings.image.size, 3)), jnp.ones(ids.shape, bool)
    return jax.tree.map(jnp.asarray, random_parameters(model.init, image, ids, mask)["params"])


def save_run(folder, settings, answers=("a", "b", "c")):
    """The folder of a run with one checkpoint, all of whose parameters are random; and these, by path."""
    random, untrained = np.random.default_rng(5), flatten(fresh(settings, len(answers)))
    leaves = {
        path: (random.normal(0, 0.2, leaf.shape) + path.endswith("scale")).astype(np.float32)
        for path, leaf in untrained.items()
    }
    params = jax.tree.map(jnp.asarray, unflatten(leaves))
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(to_json(settings), encoding="utf-8")
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    bert_tokenizer(vocabulary, lower_case=True).save(str(folder / "tokenizer.json"))
    AnswerVocabulary(answers).save(folder / "answers.json")
    run = RunFolder(folder)
    run.seal(*SETUP)
    state = create_state(params, make_optimizer(settings.optimizer, params, steps=2), ema=False)
    with Checkpoints(run.checkpoints, config=settings, made_with=run.made_with()) as checkpoints:
        checkpoints.save(state, {}, {"score": 0.5})
    return leaves


def text_layers(settings):
    """The paths of the trunk's layers that the text goes through."""
    form = {"concat": "layer_{}", "cross": "text_layer_{}", "late": "text_layer_{}", "co_attention": "layer_{}/text"}
    return [f"trunk/{form[settings.fusion].format(index)}" for index in range(settings.num_layers)]
