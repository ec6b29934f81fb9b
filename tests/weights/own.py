"""A tiny BERT of one's own as a folder: config.json, model.safetensors, vocab.txt."""

import json

import numpy as np
from safetensors.numpy import save_file

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


def write(folder, weights=None, **changes):
    """The folder; `changes` are settings of config.json, None leaves one out."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {name: value for name, value in (SETTINGS | changes).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    save_file(tensors() if weights is None else weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return folder
