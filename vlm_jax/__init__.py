"""Vision-language models in JAX and Flax: train, compare, port and prove.

Importing this package is cheap: every heavy dependency is imported by the module that needs it, and the functions below
are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a type checker finds the names here, and reports those that are not there
    from vlm_jax.ablation.run_table import results
    from vlm_jax.inference.catalog import list_models, list_presets
    from vlm_jax.inference.model import Model
    from vlm_jax.inference.sources import from_pretrained
    from vlm_jax.training.run import train

__version__ = "0.1.0"
__all__ = ["Model", "from_pretrained", "list_models", "list_presets", "results", "train"]
_MODULES = {
    "Model": "inference.model",
    "from_pretrained": "inference.sources",
    "list_models": "inference.catalog",
    "list_presets": "inference.catalog",
    "results": "ablation.run_table",
    "train": "training.run",
}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """A name of `__all__`, from the module that has it (PEP 562)."""
        if name not in _MODULES:
            raise AttributeError(f"module 'vlm_jax' has no attribute {name!r}")
        return getattr(import_module(f"vlm_jax.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
