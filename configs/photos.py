"""Your own photographs with captions or questions: frozen DINOv2-S, MiniLM's word vectors, a small trunk.

Question: what does a small trunk learn in two or three minutes, over features and word vectors of large data?
Command: vlm-jax train photos --data FILE --images FOLDER (the columns decide: questions, or captions)
Look first: vlm-jax inspect-data photos, with the same options. Another encoder: --image-encoder SOURCE
"""

from vlm_jax.config import captioning, vqa
from vlm_jax.config.encoders import VisionTransformer
from vlm_jax.config.initialization import WordsInit
from vlm_jax.config.optimizers import AdamW
from vlm_jax.config.run import TextTraining
from vlm_jax.config.trunk import CustomLayout, TextInput
from vlm_jax.data.image_settings import AugmentedImages, Stretch
from vlm_jax.data.user_files.table import TableCaptions, TableQuestions

WORDS = "published:minilm"
DINOV2_SMALL = VisionTransformer(
    hidden_size=384, num_attention_heads=6, num_layers=12, intermediate_size=1536,
    patch_size=14, image_size=(518, 518), layer_norm_eps=1e-6, layer_scale=True, positions="grid",
)  # fmt: skip
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def get_config(texts: str = "captions") -> captioning.Captioning | vqa.VQA:
    task, model, data = captioning.Captioning, captioning.Model, TableCaptions
    # A caption is written in tokens of the training captions: the softmax over all of MiniLM's takes most of a step.
    text = TextInput(vocab_size=4096, max_length=24)
    if texts == "questions":
        task, model, data = vqa.VQA, vqa.Model, TableQuestions
        text = TextInput(tokenizer=WORDS, vocab_size=30_522, max_length=24)
    trunk = {"hidden_size": 192, "num_attention_heads": 4, "num_layers": 2, "intermediate_size": 384}
    return task(
        name="photos",
        # Its files are given on the command line. The encoder computes each image once, in 9 x 9 patches.
        data=data.model_construct(stored_views=1),
        image=AugmentedImages(size=(126, 126), resize=Stretch(), **IMAGENET),
        model=model(
            **trunk, hidden_dropout_prob=0.1, image=DINOV2_SMALL, text=text, layout=CustomLayout(text_feature_size=384)
        ),
        init=WordsInit(text=WORDS, image="published:dinov2-small"),
        optimizer=AdamW(learning_rate=5e-4, warmup_steps=50, weight_decay=0.05, frozen=("^image/", "^text/word/")),
        training=TextTraining(steps=300, batch_images=16, texts_per_image=4, evaluate_every=100),
    )
