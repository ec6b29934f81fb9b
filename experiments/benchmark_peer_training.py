"""The training of `benchmark_peers`' models in plain PyTorch: AdamW, schedule, clipping and moving average."""

import math
import re
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlm_jax.config.optimizers import AdamW
from vlm_jax.config.vqa import VQA

from .benchmark_peers import Peer, state_from, torch_name


def rate_factor(settings: AdamW, steps: int) -> Callable[[int], float]:
    """Share of the peak learning rate at a step: linear warm-up, then the decay."""
    warmup = min(settings.warmup_steps, steps)
    decays = {"cosine": lambda p: (1 + math.cos(math.pi * p)) / 2, "linear": lambda p: 1 - p, "constant": lambda p: 1.0}

    def factor(step: int) -> float:
        if step < warmup:
            return (1 + step) / (warmup + 1)
        return decays[settings.schedule](min(1.0, (step - warmup) / max(1, steps - warmup)))

    return factor


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
        held = {torch_name(path) for path in parameters if any(re.search(p, path) for p in settings.no_decay)}
        groups = [
            {"params": [p for name, p in self.model.named_parameters() if name not in held]},
            {"params": [p for name, p in self.model.named_parameters() if name in held], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, settings.learning_rate, settings.betas, settings.epsilon, settings.weight_decay, fused=True
        )
        factor = rate_factor(settings, config.training.steps)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)
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
        done = self.schedule.last_epoch
        self.optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        if self.decay is not None:
            rate = min(self.decay, (1 + done) / (10 + done))
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self.parameters, 1 - rate)  # as torch.optim.swa_utils does
        return loss.detach()
