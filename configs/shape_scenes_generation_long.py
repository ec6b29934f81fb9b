"""Draw what the words say: scenes of one to four shapes, for a GPU or a night on a CPU.

Question: does what holds for one and two things hold for four, with a trunk that is half as deep again?
Command: python -m experiments.train configs/shape_scenes_tokenizer.py
    then python -m experiments.train configs/shape_scenes_generation_long.py
A code is of its cell alone, so that the tokenizer of one and two things does for four.
Time: 8,000 images a second on one H100 beside other runs. After 6,000 of the 8,000 steps, its last checkpoint, 90 %
of the things asked for are drawn, and 96 % of the numbers are right (100 validation prompts, docs/results.md).
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
        name="shape_scenes_generation_long",
        task="image_generation",
        data=Data(
            name="shape_scenes",
            drawing_things=(1, 4),
            texts="first_caption",
            texts_per_image=1,
            image=ImageInput(size=(64, 64)),
        ),
        model=Model(
            hidden_size=128,
            num_attention_heads=4,
            num_layers=6,
            intermediate_size=512,
            image_tokenizer=ImageTokenizerSettings(
                levels=(8, 5, 5, 5), patch_size=4, widths=(48, 96), depths=(1, 2)
            ),  # the tokenizer's
            image=ImageEncoder(positions="grid"),
            text=TextEncoder(vocab_size=128, feature_size=128, max_length=32),
        ),
        optimizer=Optimizer(name="muon", learning_rate=2e-3, warmup_steps=500, b2=0.98, weight_decay=0.05, ema=0.999),
        training=Training(steps=8_000, batch_images=128, evaluate_every=2_000, log_every=100),
        generation=Generation(
            tokenizer="runs/shape_scenes_tokenizer", num_decoding_steps=32, guidance=1.0, num_refinement_rounds=4
        ),
    )
