"""Draw emoji from their names: real drawings, few of them.

Question: what does a model draw for names that it learned, and for names that it never saw?
Command: python -m experiments.train configs/emoji_tokenizer.py --data.files.images EMOJI
    then python -m experiments.train configs/emoji_generation.py --data.files.images EMOJI
Time: 24 minutes on one busy core, both together. Colours and kinds follow the name; docs/results.md has sheets.
docs/captioning.md says how to get the drawings; with --generation.features ports/efficientnet_lite0.safetensors
(ported as it says there, --generation.features-sha256
00f3dca275c189aaeb4da221cf3e1cd484ce20596a3c4b1f2db56f7b2140ae01) the result has the distance to real drawings.
"""

from vlm_jax.config import (
    Config,
    Data,
    Generation,
    ImageEncoder,
    ImageInput,
    ImageTokenizerSettings,
    Model,
    Optimizer,
    TextEncoder,
    Training,
)


def get_config() -> Config:
    return Config(
        name="emoji_generation",
        task="image_generation",
        # A drawing's label or one of its tags, another one each time.
        data=Data(name="emoji", texts="captions", texts_per_image=1, image=ImageInput(size=(64, 64))),
        model=Model(
            hidden_size=128,
            num_attention_heads=4,
            num_layers=4,
            intermediate_size=512,
            hidden_dropout_prob=0.1,
            image_tokenizer=ImageTokenizerSettings(
                levels=(8, 5, 5, 5), patch_size=4, widths=(48, 96), depths=(1, 2)
            ),  # the tokenizer's
            image=ImageEncoder(positions="grid"),
            text=TextEncoder(vocab_size=2_000, feature_size=128, max_length=16),
        ),
        optimizer=Optimizer(learning_rate=5e-4, warmup_steps=300, b2=0.98, weight_decay=0.05, ema=0.995),
        training=Training(steps=4_000, batch_images=16, evaluate_every=1_000, log_every=100),
        generation=Generation(tokenizer="runs/emoji_tokenizer", num_decoding_steps=12, guidance=2.0),
    )
