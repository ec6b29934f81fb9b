"""Package metadata. Floors are what the code needs, ceilings what it was tried with."""

from pathlib import Path

from setuptools import find_packages, setup

FOLDERS = {
    "vlm_jax.commands": "experiments",
    "vlm_jax.presets": "configs",
    "vlm_jax.presets.ablations": "configs/ablations",
}
"""Packages whose files lie outside `vlm_jax/`."""

setup(
    name="vlm_jax",
    version="0.1.0",
    description="Vision-language models in JAX and Flax: train, compare, port and prove",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["vlm_jax", "vlm_jax.*"]), *FOLDERS],
    package_dir=FOLDERS,
    entry_points={"console_scripts": ["vlm-jax = vlm_jax.__main__:console"]},
    package_data={"vlm_jax": ["py.typed", "quickstart/*"], "vlm_jax.ablation": ["page.css"]},
    install_requires=[
        "array-record>=0.8,<0.9",
        "filelock>=3.15,<5",
        "flax>=0.12.8,<0.13",
        "grain>=0.2.18,<0.3",
        "importlib_resources>=6",  # tensorflow-datasets needs it and does not say so
        "jax>=0.10.2,<0.12",
        "jaxtyping>=0.3.11,<0.4",
        "matplotlib>=3.10,<4",
        "numpy>=2,<3",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12.8,<0.13",
        "pillow>=12,<14",
        "pydantic>=2.12,<3",
        "rich>=14,<16",
        "safetensors>=0.7,<0.9",
        "scipy>=1.11,<2",
        "tensorboardX>=2.6.5,<3",
        "tensorflow-datasets>=4.9.10,<5",
        "tokenizers>=0.22,<0.24",
        "transformers>=5.17,<6",
        "easy-vqa==1.0",  # the quickstart's data, in the wheel
    ],
    extras_require={
        "cuda": ["jax[cuda12]"],
        "cuda13": ["jax[cuda13]"],
        "onnx": ["onnx>=1.19,<2"],
        "pandas": ["pandas>=2.2,<4"],
        "test": [
            "beartype>=0.23,<0.24",
            "hypothesis>=6",
            "onnx>=1.19,<2",
            "pandas>=2.2,<4",
            "pytest>=9,<10",
            "pytest-timeout>=2.4",
            "pytest-xdist>=3.8",
            "ruff>=0.14",
            "sacrebleu>=2.6,<3",
        ],
        "parity": ["torch==2.13.0"],
    },
)
