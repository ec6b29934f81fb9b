"""Questions about how objects relate: the closest, the furthest, how many alike (Santoro et al. 2017).

Question: does one fused trunk learn relations, where a CNN with an MLP does not?
Command: python -m experiments.train configs/sort_of_clevr.py
Time: TO BE MEASURED
"""

from vlm_jax.config import Config, Data, ImageEncoder, ImageInput, Model, Optimizer, TextEncoder, Training


def get_config() -> Config:
    return Config(
        name="sort_of_clevr",
        # No flips and shifts: they would change what is left, right, at the top.
        data=Data(name="sort_of_clevr", questions_per_image=20, image=ImageInput(size=(75, 75))),
        model=Model(
            width=128,
            heads=4,
            layers=3,
            mlp_width=256,
            image=ImageEncoder(stem_width=16, widths=(32, 64, 128), blocks=(0, 0, 1), positions="grid"),
            text=TextEncoder(vocabulary_size=128, width=128, max_length=16),
        ),
        optimizer=Optimizer(learning_rate=5e-4, warmup_steps=300, b2=0.999, weight_decay=0.05, ema=0.999),
        training=Training(steps=6000, batch_images=32, evaluate_every=500, log_every=50),
    )
