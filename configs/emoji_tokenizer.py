"""Emoji drawings as 64 codes, and back: what images are drawn in by emoji_generation.

Question: how much of a drawing that was never seen do 8 x 8 codes of 1,000 keep, learned from 1,523 drawings?
Command: python -m experiments.train configs/emoji_tokenizer.py --data.files.images EMOJI
docs/captioning.md says how to get the drawings.
"""

from vlm_jax.config import Config, Data, ImageInput, ImageTokenizerSettings, Model, Optimizer, Training


def get_config() -> Config:
    return Config(
        name="emoji_tokenizer",
        task="image_tokenizer",
        # Nothing reads these drawings but the decoder: turned round and moved, there are more of them.
        data=Data(name="emoji", texts="captions", image=ImageInput(size=(64, 64), flip=True, shift=4)),
        model=Model(
            image_tokenizer=ImageTokenizerSettings(levels=(8, 5, 5, 5), patch_size=4, widths=(48, 96), depths=(1, 2))
        ),
        optimizer=Optimizer(learning_rate=2e-3, warmup_steps=100, b2=0.98, weight_decay=0.0, ema=0.99),
        training=Training(steps=5_000, batch_images=16, evaluate_every=1_000, log_every=100),
    )
