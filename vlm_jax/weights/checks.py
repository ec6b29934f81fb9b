"""The lines of a proof: what was compared, how far it is off, and the verdict."""

import importlib.util
from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np

BOUND, KL_BOUND = 2e-5, 1e-6

Status = Literal["ok", "FAIL", "not compared", "note"]
"""`not compared`: an output of the class, or the tokenizer, that nothing was compared with."""


class Check(NamedTuple):
    """One line of a report."""

    name: str
    value: str
    status: Status

    def __str__(self) -> str:
        return f"{self.name:20s} {self.value:44s} {'' if self.status == 'note' else self.status}".rstrip()


def comparison(name: str, value: str, passed: bool) -> Check:
    """A comparison that took place."""
    return Check(name, value, "ok" if passed else "FAIL")


def verdict(checks: Iterable[Check]) -> tuple[str, int]:
    """The last line of a report and the exit code: FAIL 1, NOT COMPARED 3, and PASS 0 where all was compared."""
    checks = list(checks)
    if any(check.status == "FAIL" for check in checks):
        return "FAIL", 1
    left_out = [check.name for check in checks if check.status == "not compared"]
    return (f"NOT COMPARED: {', '.join(left_out)}", 3) if left_out else ("PASS", 0)


def score(output: np.ndarray, reference: np.ndarray) -> float:
    """The largest difference, relative to the largest entry of the reference where that is above 1."""
    return float(np.abs(output - reference).max() / max(1.0, float(np.abs(reference).max())))


def not_installed(*modules: str) -> str | None:
    """Why nothing can be compared; None where all modules are there."""
    lacking = [name for name in modules if importlib.util.find_spec(name) is None]
    return f"{' and '.join(lacking)} not installed" if lacking else None
