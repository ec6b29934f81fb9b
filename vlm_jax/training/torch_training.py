"""The other side of a proof of training: the published class, in float64 at first, trained by PyTorch's AdamW."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from vlm_jax.config.optimizers import AdamW
from vlm_jax.training.proof_task import Batch, Task
from vlm_jax.trees import flatten
from vlm_jax.types import Parameters
from vlm_jax.weights.converted_model import ConvertedModel

Named = dict[str, np.ndarray]
"""Arrays by the names of a family's table."""


class TorchTraining:
    """A published class and its parameters by the names of the family's table."""

    def __init__(self, converted: ConvertedModel, model: torch.nn.Module) -> None:
        self._converted, self._model = converted, model
        if converted.architecture.is_image_encoder and model._supports_sdpa:
            model.set_attn_implementation("sdpa")  # the other one has its softmax in float32
        self._rows = converted.family.rows(converted.architecture)
        self._fold_norms()
        self.parameters = self._named()

    def named(self, params: Parameters) -> Named:
        """Our parameters, or their gradients, under the names of the family's table, in float64."""
        leaves = {path: np.asarray(leaf, np.float64) for path, leaf in flatten(params).items()}
        named: Named = {}
        for row in self._rows:
            arrays = tuple(leaves[path] for path in row.target)
            # Of a batch norm that is folded, weight and bias.
            values = row.transform.backward(*arrays) if row.transform.exact else arrays
            named |= dict(zip(row.source, values, strict=row.transform.exact))
        return named

    def gradients(self, task: Task, batch: Batch) -> Named:
        """The gradient of every parameter; of those that the loss does not depend on, 0."""
        self._model.zero_grad()
        self._loss(task, batch).backward()
        zeros = torch.zeros_like
        return {name: (zeros(p) if p.grad is None else p.grad).numpy().copy() for name, p in self.parameters.items()}

    def train(
        self, task: Task, batches: Sequence[Batch], rates: Sequence[float], settings: AdamW, snapshots: Sequence[int]
    ) -> tuple[list[float], dict[int, Named]]:
        """The loss before each step, and the parameters after some; a step for each of the rates.

        The rates are given, and gradients are scaled to the clip norm exactly: PyTorch's own clipping adds 1e-6 to it.
        """
        parameters = list(self.parameters.values())
        # Biases and scales are vectors, and so is CLIP's class token, which is a row of a table here.
        is_decayed = {name: p.ndim > 1 or name.endswith("class_embedding") for name, p in self.parameters.items()}
        groups = [
            {
                "params": [p for name, p in self.parameters.items() if is_decayed[name] == decayed],
                "weight_decay": settings.weight_decay * decayed,
            }
            for decayed in (True, False)
        ]
        optimizer = torch.optim.AdamW(groups, lr=1.0, betas=settings.betas, eps=settings.epsilon, foreach=False)
        losses, saved = [], {}
        for step, rate in enumerate(rates):
            optimizer.zero_grad()
            loss = self._loss(task, batches[step % len(batches)])
            loss.backward()
            losses.append(loss.item())
            for parameter in parameters:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
            if norm > settings.clip_norm:
                for parameter in parameters:
                    parameter.grad.mul_(settings.clip_norm / norm)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            if step + 1 in snapshots:
                saved[step + 1] = {name: p.detach().numpy().copy() for name, p in self.parameters.items()}
        return losses, saved

    def reset(self, dtype: Literal["float64", "float32"] = "float64") -> None:
        """The parameters as the port has them, and everything in one type."""
        self._model.to(getattr(torch, dtype))
        values = self.named(self._converted.params)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(torch.tensor(values[name]))

    def _loss(self, task: Task, batch: Batch) -> torch.Tensor:
        if task == "image classes":
            logits = self._model(torch.tensor(batch["image"]).permute(0, 3, 1, 2).to(self._model.dtype)).logits
            return _class_loss(logits, batch["labels"])
        mask = torch.tensor(batch["text_mask"])
        arguments = {"input_ids": torch.tensor(batch["input_ids"]).long(), "attention_mask": mask.long()}
        if "segments" in batch:
            arguments["token_type_ids"] = torch.tensor(batch["segments"]).long()
        if "image" in batch:  # states that a decoder attends to
            arguments["encoder_hidden_states"] = torch.tensor(batch["image"]).to(self._model.dtype)
            arguments["encoder_attention_mask"] = torch.tensor(batch["image_mask"]).long()
        output = self._model(**arguments, return_dict=True)
        if task == "sentence vectors":
            shown = mask[..., None].to(self._model.dtype)
            vectors = (output.last_hidden_state * shown).sum(1) / shown.sum(1)
            vectors = vectors / vectors.norm(dim=1, keepdim=True)
            first, second = vectors.chunk(2)
            return ((first * second).sum(1) - torch.tensor(batch["cosines"])).square().mean()
        if task == "text classes":
            return _class_loss(output.logits, batch["labels"])
        logits = output.prediction_logits if "prediction_logits" in output else output.logits
        loss = _cross_entropy(logits, batch["labels"])
        if "pairs" in batch:
            pairs = output["seq_relationship_logits" if "seq_relationship_logits" in output else "sop_logits"]
            loss = loss + _cross_entropy(pairs, batch["pairs"])
        return loss

    def _fold_norms(self) -> None:
        """Batch norms with the scale and bias that the port has, over statistics that change nothing."""
        leaves, modules = flatten(self._converted.params), dict(self._model.named_modules())
        prefix = f"{self._converted.family.prefix}." if self._converted.family.prefix else ""
        for row in self._rows:
            if not row.transform.exact:
                name = row.source[0].removesuffix(".weight")
                norm = modules.get(name) or modules[prefix + name]
                with torch.no_grad():
                    norm.weight.copy_(torch.tensor(leaves[row.target[0]]))
                    norm.bias.copy_(torch.tensor(leaves[row.target[1]]))
                    norm.running_mean.zero_()
                    norm.running_var.fill_(1 - norm.eps)

    def _named(self) -> dict[str, torch.nn.Parameter]:
        """Every tensor of the table, by its name or, where transformers renames it, by its content."""
        family, values = self._converted.family, self.named(self._converted.params)
        prefix = f"{family.prefix}." if family.prefix else ""
        parameters = dict(self._model.named_parameters())
        named = {}
        for name in [
            *family.aliases.values(),
            *family.aliases,
        ]:  # of two biases of a decoder, `decoder.bias` is trained
            table_name = family.aliases.get(name, name)
            if table_name in values and name in parameters:
                named[table_name] = parameters[name]
        for name, parameter in parameters.items():
            if (table_name := name.removeprefix(prefix)) in values:
                named.setdefault(table_name, parameter)
        others = [p for p in parameters.values() if not any(p is other for other in named.values())]
        for name in values.keys() - named.keys():
            equal = [p for p in others if p.shape == values[name].shape and np.array_equal(p.detach(), values[name])]
            if not equal:
                raise KeyError(f"no parameter of {type(self._model).__name__} is {name}")
            named[name] = equal[0]
        return named


def _class_loss(logits: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
    if logits.shape[-1] == 1:
        return (logits[:, 0] - torch.tensor(labels)).square().mean()
    return _cross_entropy(logits, labels)


def _cross_entropy(logits: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
    targets = torch.tensor(labels).long()
    return torch.nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=-1)
