"""Muon in plain PyTorch, in float32 as Optax has it: `torch.optim.Muon` has no convolutions and rounds to bfloat16."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

MOMENTUM, UPDATE, STEPS = 0.95, 0.2, 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024


class Muon(torch.optim.Optimizer):
    """Nesterov momentum made orthogonal, with decoupled decay; a convolution is the matrix [out, in k k]."""

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": learning_rate, "weight_decay": weight_decay})
        self._count = 0

    @torch.no_grad()
    def step(self) -> None:
        """One step."""
        self._count += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                update = UPDATE * orthogonal(self._ahead(parameter).flatten(1)).view(parameter.shape)
                update *= max(parameter.shape[0], parameter[0].numel()) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])

    def _ahead(self, parameter: nn.Parameter) -> Tensor:
        """Nesterov's look ahead, with Adam's correction of the bias."""
        momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
        momentum.lerp_(parameter.grad, 1 - MOMENTUM)
        old, new = 1 - MOMENTUM ** (self._count + 1), 1 - MOMENTUM**self._count
        return MOMENTUM / old * momentum + (1 - MOMENTUM) / new * parameter.grad


def orthogonal(matrix: Tensor) -> Tensor:
    """Five steps of Newton and Schulz."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-8)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
