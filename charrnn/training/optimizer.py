"""Gradients -> better weights: Muon for the matrices between hidden states, AdamW for the rest."""

import torch
from torch import Tensor

from charrnn.network.model import CharRNN
from charrnn.training.settings import Settings

MOMENTUM = 0.95
ITERATIONS = 3  # of Newton-Schulz: more cost more than they gained (benchmarks/README.md)
EVERY = 4  # steps for which a direction is kept: on a CPU making one costs as much as a step


def make_optimizers(
    model: CharRNN, settings: Settings, dtype: torch.dtype
) -> list[torch.optim.Optimizer]:
    """The optimizers of a model's weights; all of them skip a step where ``found_inf`` is set, on
    the device, so that the CPU need not wait to ask. ``peak_lr`` of each group: its learning rate
    before the schedule; ``dtype``: of Muon's products."""
    hidden = [w for name, w in model.named_parameters() if is_between_hidden(name)]
    if settings.muon_scale is None:
        hidden = []
    others = [w for w in model.parameters() if not any(w is h for h in hidden)]
    adamw = torch.optim.AdamW(
        [{"params": others, "peak_lr": settings.lr}],
        betas=(0.9, settings.beta2),
        weight_decay=settings.weight_decay,
        fused=True,  # obeys found_inf
    )
    if not hidden:
        return [adamw]
    groups = [{"params": hidden, "peak_lr": settings.lr * settings.muon_scale}]
    return [adamw, Muon(groups, EVERY, settings.weight_decay, dtype)]


def is_between_hidden(name: str) -> bool:
    """Whether a weight multiplies a hidden state: the recurrent ones, and above the first layer
    the input's."""
    return name.startswith(("lstm.weight_hh", "lstm.weight_ih")) and name != "lstm.weight_ih_l0"


class Muon(torch.optim.Optimizer):
    """Steps whose directions are orthogonal matrices (Jordan et al. 2024, "Muon: an optimizer for
    hidden layers in neural networks"): all singular values of the momentum are made 1, so that rare
    directions are learned as fast as common ones. Each gate's square block is one matrix.

    ``every``: steps for which a direction is kept; ``weight_decay``: as AdamW's, apart from the
    gradient (Loshchilov and Hutter 2019).
    """

    def __init__(
        self, params: list[dict], every: int, weight_decay: float, dtype: torch.dtype
    ) -> None:
        super().__init__(params, {"lr": 0.0})
        self.every, self.weight_decay, self.dtype = every, weight_decay, dtype
        self.found_inf: Tensor | None = None
        for weight in (weight for group in self.param_groups for weight in group["params"]):
            zeros = torch.zeros_like(weight, requires_grad=False)
            self.state[weight] = {"step": 0, "momentum": zeros, "direction": zeros.clone()}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Move all weights, or change nothing where ``found_inf`` is 1, except that on an
        accelerator the step is counted: to ask would be to wait for the device."""
        if self.found_inf.device.type == "cpu" and self.found_inf:
            return
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                momentum, good = state["momentum"], self.found_inf == 0
                gradient = weight.grad.where(good, momentum)  # then lerp changes nothing
                momentum.lerp_(gradient, 1 - MOMENTUM)
                if state["step"] % self.every == 0:
                    nesterov = gradient.lerp(momentum, MOMENTUM)
                    direction = orthogonal(nesterov, self.dtype)
                    state["direction"] = direction.where(good, state["direction"])
                state["step"] += 1
                lr = group["lr"] * good
                weight.mul_(1 - lr * self.weight_decay).sub_(state["direction"] * lr)


def orthogonal(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """The nearest matrix whose singular values are all about 1, of each gate's square block in
    ``[n_gates * n_hidden, n_hidden]``: Newton-Schulz iteration with Jordan's quintic."""
    blocks = matrix.view(-1, matrix.shape[1], matrix.shape[1])
    x = blocks / blocks.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    x = x.to(dtype)
    for _ in range(ITERATIONS):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.to(matrix.dtype).view_as(matrix)
