"""Text to image: scenes of one to four shapes, for a GPU or a night on a CPU.

Question: does what holds for one and two objects hold for four, with a trunk that is half as deep again?
Command: python -m experiments.train configs/shape_scenes_tokenizer.py
    then python -m experiments.train configs/shape_scenes_generation_long.py
An image token is of its own patch alone: the tokenizer of one and two objects serves four.
Time: 8,000 images a second on one H100 beside other runs. After 6,000 of the 8,000 steps 90 %
of the objects are generated, and 96 % of the numbers are right (100 validation prompts, docs/results.md).
"""

from pathlib import Path

from vlm_jax.config.image_generation import ImageGeneration, Masked, Model, TrainedImageTokenizer
from vlm_jax.config.optimizers import Muon
from vlm_jax.config.quantizers import FSQ
from vlm_jax.config.run import TextTraining
from vlm_jax.config.trunk import TextInput
from vlm_jax.data.datasets.shape_scenes import SceneCaptions
from vlm_jax.data.image_settings import ImageInput


def get_config() -> ImageGeneration:
    return ImageGeneration(
        name="shape_scenes_generation_long",
        data=SceneCaptions(objects=(1, 4), captions="first"),
        image=ImageInput(size=(64, 64)),
        image_tokenizer=TrainedImageTokenizer(
            run=Path("runs/shape_scenes_tokenizer"), quantizer=FSQ(levels=(8, 5, 5, 5)), widths=(48, 96), depths=(1, 2)
        ),
        model=Model(
            hidden_size=128,
            num_attention_heads=4,
            num_layers=6,
            intermediate_size=512,
            text=TextInput(vocab_size=128, max_length=32),
        ),
        optimizer=Muon(learning_rate=2e-3, warmup_steps=500, betas=(0.9, 0.98), weight_decay=0.05, ema=0.999),
        training=TextTraining(steps=8_000, batch_images=128, texts_per_image=1, evaluate_every=2_000, log_every=100),
        generation=Masked(num_decoding_steps=32, guidance_scale=2.0, num_refinement_rounds=4),
    )
