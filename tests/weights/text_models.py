"""Tiny text models by transformers' own classes, all of whose parameters are shaken: names and shapes are the class's.

Weights have std 0.2 at width 32, norm weights are 1 and noise, nothing is zero or equal to something else.
"""

import zlib
from pathlib import Path

import torch
import transformers

WIDTH, EMBEDDING, HEADS, LAYERS, INNER, WORDS, POSITIONS, SEGMENTS, CLASSES = 32, 24, 4, 3, 48, 61, 40, 2, 5
BERT_LIKE = {
    "hidden_size": WIDTH, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "intermediate_size": INNER,
    "vocab_size": WORDS, "max_position_embeddings": POSITIONS,
}  # fmt: skip
ROBERTA_LIKE = BERT_LIKE | {"type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1}
CONFIGS = {
    "bert": BERT_LIKE,
    "ernie": BERT_LIKE,
    "roberta": ROBERTA_LIKE,
    "xlm-roberta": ROBERTA_LIKE,
    "camembert": ROBERTA_LIKE,
    "data2vec-text": ROBERTA_LIKE,
    "distilbert": {
        "dim": WIDTH, "n_heads": HEADS, "n_layers": LAYERS, "hidden_dim": INNER, "vocab_size": WORDS,
        "max_position_embeddings": POSITIONS,
    },
    "mpnet": BERT_LIKE | {"max_position_embeddings": 180, "layer_norm_eps": 1e-5},
    "electra": BERT_LIKE | {"embedding_size": EMBEDDING},
    "albert": BERT_LIKE | {"embedding_size": EMBEDDING, "num_hidden_groups": 2},
}  # fmt: skip
"""What config.json says besides the defaults, by `model_type`."""


def shaken(family: str, kind: str, std: float = 0.2, **settings) -> torch.nn.Module:
    """A model of a class with random parameters, the same for the same arguments."""
    labels = {"id2label": {index: f"label {index}" for index in range(CLASSES)}} if "Classification" in kind else {}
    settings = CONFIGS[family] | labels | settings
    model = getattr(transformers, kind)(transformers.AutoConfig.for_model(family, **settings)).eval()
    generator = torch.Generator().manual_seed(zlib.crc32(kind.encode()))
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        is_norm = "norm" in name.lower()
        value = (name.endswith("weight") + 0.2 * noise) if is_norm else std * noise
        parameter.data.copy_(value)
    return model


def publish(family: str, kind: str, folder: Path, std: float = 0.2, **settings) -> Path:
    """The model as a folder, as transformers saves it."""
    shaken(family, kind, std, **settings).save_pretrained(folder)
    return folder
