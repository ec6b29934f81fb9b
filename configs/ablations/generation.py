"""What pictures are drawn in: rounded numbers against a learned codebook, and how much a code is of its own cell.

Command: python -m experiments.ablate configs/ablations/generation.py
Time: 12 runs of up to six minutes on two cores. Steps and guidance change no training: experiments.evaluate RUN
--split validation --change generation.steps=4 scores a trained run with others.
"""

from vlm_jax.ablation.study import Comparison, Study, chain, variant, vary


def get_study() -> Study:
    return Study(
        question="Which quantizer keeps most of a picture, in codes that do not change with its noise?",
        comparisons=(
            Comparison(
                title="shape_scenes of one or two things, 2,000 steps",
                base="../shape_scenes_tokenizer.py",
                variants=chain(
                    vary({}),
                    variant({"model.codes.encoder": "neighbours"}, name="scalar, the encoder looks around"),
                    variant({"model.codes.encoder_noise": 8.0}, name="scalar, noise on what is encoded"),
                    variant({"model.codes.quantizer": "codebook"}, name="learned codebook"),
                ),
                common={"training.steps": 2_000, "training.evaluate_every": 500},
                metrics=("psnr", "ssim", "codebook_use", "codebook_perplexity", "codes_stable"),
            ),
        ),
    )
