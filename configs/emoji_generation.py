"""Emoji from their names, learned from few images.

Question: what does a model generate for names that it learned, and for names that it never saw?
Command: python -m experiments.train configs/emoji_tokenizer.py --data.images EMOJI
    then python -m experiments.train configs/emoji_generation.py --data.images EMOJI
Time: 24 minutes on one busy core, both together. Colours and kinds follow the name; docs/results.md has sheets.
docs/tasks.md says how to get the images; with --features ports/efficientnet_lite0.safetensors
(converted as it says there, --features-sha256
00f3dca275c189aaeb4da221cf3e1cd484ce20596a3c4b1f2db56f7b2140ae01) the result has the distance to real emoji.
"""

from pathlib import Path

from vlm_jax.config.image_generation import ImageGeneration, Masked, Model, TrainedImageTokenizer
from vlm_jax.config.optimizers import AdamW
from vlm_jax.config.quantizers import FSQ
from vlm_jax.config.run import TextTraining
from vlm_jax.config.trunk import TextInput
from vlm_jax.data.image_settings import ImageInput
from vlm_jax.data.user_files.emoji import Emoji


def get_config() -> ImageGeneration:
    return ImageGeneration(
        name="emoji_generation",
        data=Emoji.model_construct(),  # its images are given on the command line
        image=ImageInput(size=(64, 64)),
        image_tokenizer=TrainedImageTokenizer(
            run=Path("runs/emoji_tokenizer"), quantizer=FSQ(levels=(8, 5, 5, 5)), widths=(48, 96), depths=(1, 2)
        ),
        model=Model(
            hidden_size=128,
            num_attention_heads=4,
            num_layers=4,
            intermediate_size=512,
            hidden_dropout_prob=0.1,
            text=TextInput(vocab_size=2_000, max_length=16),
        ),
        optimizer=AdamW(learning_rate=5e-4, warmup_steps=300, betas=(0.9, 0.98), weight_decay=0.05, ema=0.995),
        training=TextTraining(
            steps=4_000, batch_images=16, texts_per_image=1, evaluate_every=1_000, log_every=100
        ),  # an image's label or one of its tags, another one each time
        generation=Masked(num_decoding_steps=12, guidance_scale=3.0),
    )
