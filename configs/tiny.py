"""The smallest run that goes through everything: for tests and for a first look at the code.

Question: does it work here?
Command: python -m experiments.train configs/tiny.py
Time: 17 seconds on two cores, most of them compilation. Accuracy: 64 %, about what the question alone gives.
"""

from vlm_jax.config import Config, Data, ImageEncoder, ImageInput, Model, Optimizer, TextEncoder, Training


def get_config() -> Config:
    return Config(
        name="tiny",
        data=Data(texts_per_image=4, limit=64, image=ImageInput(size=(16, 16))),
        model=Model(
            hidden_size=32,
            num_attention_heads=2,
            num_layers=2,
            intermediate_size=64,
            image=ImageEncoder(stem_width=8, widths=(16, 32), blocks=(0, 0), stem_stride=1),
            text=TextEncoder(vocab_size=128, feature_size=32, max_length=16),
        ),
        optimizer=Optimizer(learning_rate=3e-3, warmup_steps=5),
        training=Training(steps=40, batch_images=8, log_every=10, evaluate_every=20, evaluation_batch_images=16),
    )
