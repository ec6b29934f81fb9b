"""Why a run stops before its end."""

from collections.abc import Sequence

SHOWN = 20  # ids that a message names


class Interrupted(Exception):
    """The run was asked to stop by a signal, and its state is saved."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class NotFinite(Exception):
    """Loss or gradient is not finite at an optimizer step; the state before that step is saved."""

    def __init__(self, step: int, ids: Sequence[str]) -> None:
        """`ids` are those of the texts in the batch of that step."""
        saved = f"the state before it is saved as step {step - 1}" if step > 1 else "nothing was trained before it"
        more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
        super().__init__(
            f"loss or gradient is not finite at optimizer step {step}; {saved}; texts of that batch: "
            f"{', '.join(ids[:SHOWN])}{more}"
        )
