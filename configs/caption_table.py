"""Your own images and captions in a table: CSV, TSV, JSON and other files.

Question: does a small model name what is on your images, or only repeat the most common captions?
Command: vlm-jax train caption_table --data FILE --images FOLDER
Look first: vlm-jax inspect-data caption_table, with the same options
"""

from vlm_jax.config.captioning import Captioning, Model
from vlm_jax.config.encoders import SmallCNN
from vlm_jax.config.optimizers import AdamW
from vlm_jax.config.run import TextTraining
from vlm_jax.config.trunk import TextInput
from vlm_jax.data.image_settings import AugmentedImages, Pad
from vlm_jax.data.user_files.table import TableCaptions


def get_config() -> Captioning:
    return Captioning(
        name="caption_table",
        data=TableCaptions.model_construct(),  # its files are given on the command line
        image=AugmentedImages(size=(96, 96), resize=Pad(), shift=6),
        model=Model(
            hidden_size=128,
            num_attention_heads=4,
            num_layers=2,
            intermediate_size=256,
            hidden_dropout_prob=0.1,
            image=SmallCNN(stem_width=16, stem_stride=2, widths=(32, 64, 128), blocks=(0, 1, 1), positions="grid"),
            text=TextInput(vocab_size=2048, max_length=32),
        ),
        optimizer=AdamW(learning_rate=5e-4, warmup_steps=100, betas=(0.9, 0.98), weight_decay=0.05, ema=0.99),
        training=TextTraining(steps=600, batch_images=32, texts_per_image=5, evaluate_every=100, log_every=50),
    )
