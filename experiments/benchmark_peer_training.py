"""The training of `benchmark_peers`' models in plain PyTorch: AdamW, Muon, schedule, clipping and moving average."""

import math
import re
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlm_jax.config.optimizers import AdamW, Muon
from vlm_jax.config.vqa import VQA

from . import benchmark_peer_muon
from .benchmark_peers import Peer, state_from, torch_name


def rate_factor(settings: AdamW | Muon, steps: int) -> Callable[[int], float]:
    """Share of the peak learning rate at a step: linear warm-up, then the decay."""
    warmup = min(settings.warmup_steps, steps)
    decays = {"cosine": lambda p: (1 + math.cos(math.pi * p)) / 2, "linear": lambda p: 1 - p, "constant": lambda p: 1.0}

    def factor(step: int) -> float:
        if step < warmup:
            return (1 + step) / (warmup + 1)
        return decays[settings.schedule](min(1.0, (step - warmup) / max(1, steps - warmup)))

    return factor


def make_optimizers(
    settings: AdamW | Muon, model: Peer, parameters: Mapping[str, np.ndarray]
) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon for what the settings choose; `parameters` are ours, by path."""

    def matching(patterns: tuple[str, ...]) -> set[str]:
        return {torch_name(path) for path in parameters if any(re.search(pattern, path) for pattern in patterns)}

    chosen = matching(settings.matrices) if isinstance(settings, Muon) else set()
    optimizers, spared = [], matching(settings.no_decay)
    for by_muon in (False, True):
        named = {n: p for n, p in model.named_parameters() if (n in chosen and p.ndim in (2, 4)) == by_muon}
        groups = [
            {"params": [p for name, p in named.items() if name not in spared]},
            {"params": [p for name, p in named.items() if name in spared], "weight_decay": 0.0},
        ]
        rate, decay = settings.learning_rate, settings.weight_decay
        if by_muon and named:
            optimizers.append(benchmark_peer_muon.Muon(groups, rate, decay))
        elif named:
            optimizers.append(torch.optim.AdamW(groups, rate, settings.betas, settings.epsilon, decay, fused=True))
    return optimizers


class PeerTraining:
    """A model with its optimizer and one batch, which stay on the device; `parameters` are ours, by path."""

    def __init__(
        self, config: VQA, classes: int, parameters: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]
    ) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = Peer(config.architecture, classes)
        self.model.load_state_dict(state_from(parameters))  # strict: the names and shapes are the same set
        self.model.to(self.device, memory_format=torch.channels_last)
        settings = config.optimizer
        self.optimizers = make_optimizers(settings, self.model, parameters)
        factor = rate_factor(settings, config.training.steps)
        self.schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, factor) for optimizer in self.optimizers]
        self.clip_norm, self.decay, self.smoothing = settings.clip_norm, settings.ema, config.training.label_smoothing
        self.parameters = list(self.model.parameters())
        self.average = [p.detach().clone() for p in self.parameters] if self.decay is not None else []
        self.batch = {name: torch.from_numpy(x).to(self.device) for name, x in batch.items()}
        self.image = self.batch["image"].permute(0, 3, 1, 2)  # a view, already channels last
        self.ids = self.batch["input_ids"].long()
        answers = self.batch["answers"].long()
        self.target = torch.zeros(*answers.shape[:2], classes, device=self.device)
        self.target.scatter_add_(-1, answers, self.batch["answer_weights"])

    def logits(self) -> Tensor:
        return self.model(self.image, self.ids, self.batch["text_mask"])

    def answer_logits(self) -> np.ndarray:
        """[I, K, A] in full float32, dropout off."""
        with torch.no_grad():
            logits = self.model.eval()(self.image, self.ids, self.batch["text_mask"])
        self.model.train()
        return logits.cpu().numpy()

    def loss(self) -> Tensor:
        """Cross-entropy with soft targets, averaged over the real questions."""
        weight = self.batch["weight"].flatten()
        logits, target = self.logits().flatten(0, 1), self.target.flatten(0, 1)
        losses = F.cross_entropy(logits, target, reduction="none", label_smoothing=self.smoothing)
        return (losses * weight).sum() / weight.sum().clamp(min=1.0)

    def step(self) -> Tensor:
        """One optimizer step; the loss before it."""
        done = self.schedules[0].last_epoch
        self.model.zero_grad()
        loss = self.loss()
        loss.backward()
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        for part in (*self.optimizers, *self.schedules):
            part.step()
        if self.decay is not None:
            rate = min(self.decay, (1 + done) / (10 + done))
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self.parameters, 1 - rate)  # as torch.optim.swa_utils does
        return loss.detach()
