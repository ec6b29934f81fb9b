"""The quickstart's recipe, one part at a time: norms, Muon on the convolutions, a stem of stride 2.

Command: python -m experiments.ablate configs/ablations/quickstart_recipe.py --jobs 2
Time: 35 runs of two to six minutes on one core, an hour and a half in all.
"""

from vlm_jax.ablation.study import Comparison, Study, chain, variant

ADAMW = {"optimizer.kind": "adamw"}
LARGE_GRIDS = {
    "model.image.stem_stride": 1,
    "model.image.widths": (32, 64, 128),
    "model.image.blocks": (0, 1, 1),
}


def get_study() -> Study:
    return Study(
        question="What is each part of the quickstart's recipe worth after 400 steps?",
        comparisons=(
            Comparison(
                title="easy-VQA, 400 steps, one part less",
                base="../quickstart.py",
                variants=chain(
                    variant({}, name="all"),
                    variant({"model.image.norm": "group"}, name="group norm"),
                    variant({"model.use_qk_norm": False}, name="no norm of queries and keys"),
                    variant({"optimizer.matrices": ("^trunk/",)}, name="Muon on the trunk only"),
                    variant(ADAMW | {"optimizer.learning_rate": 1e-3}, name="AdamW at 1e-3"),
                    variant(ADAMW | {"optimizer.learning_rate": 5e-4}, name="AdamW at 5e-4"),
                    variant(LARGE_GRIDS, name="stem of stride 1, widths 32, 64, 128"),
                ),
                metrics=("accuracy", "accuracy/open", "accuracy/yes_no"),
            ),
        ),
        seeds=(0, 1, 2, 3, 4),
    )
