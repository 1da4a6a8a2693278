"""Gradients -> better weights: Muon for the matrices between hidden states, AdamW for the rest."""

import torch
from torch import Tensor

from charrnn.network.model import CharRNN
from charrnn.training.settings import Settings

MOMENTUM = 0.95
ITERATIONS = 3  # of Newton-Schulz; more of them took longer than they were worth
EVERY = 4  # steps that use the same direction: on a CPU, a new one takes as long as a step


def make_optimizers(
    model: CharRNN, settings: Settings, dtype: torch.dtype
) -> list[torch.optim.Optimizer]:
    """Return the optimizers of a model's weights. ``peak_lr`` of each group of weights is its
    learning rate before the schedule. ``dtype`` is that of Muon's products."""
    scale = settings.muon_scale or 0.0  # without Muon, AdamW moves all weights
    hidden: list[Tensor] = []
    others: list[Tensor] = []
    for name, weight in model.named_parameters():
        (hidden if scale and is_hidden_to_hidden(name) else others).append(weight)
    adamw = torch.optim.AdamW(
        [{"params": others, "peak_lr": settings.lr}],
        betas=(0.9, settings.beta2),
        weight_decay=settings.weight_decay,
        fused=True,  # only the fused one reads found_inf
    )
    if not hidden:
        return [adamw]
    widths = sorted({weight.shape[1] for weight in hidden})  # one, but for an added cell
    groups = [
        {"params": [w for w in hidden if w.shape[1] == width], "peak_lr": settings.lr * scale}
        for width in widths
    ]
    return [adamw, Muon(groups, EVERY, settings.weight_decay, dtype)]


def step_unless(bad: Tensor, optimizers: list[torch.optim.Optimizer]) -> None:
    """Take a step with all optimizers, or change no weight if ``bad`` is true.

    The optimizers read ``found_inf`` on the device (as GradScaler sets it), so that the CPU does
    not have to wait for the answer.
    """
    for optimizer in optimizers:
        optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
        optimizer.step()


def is_hidden_to_hidden(name: str) -> bool:
    """Return whether a weight multiplies a hidden state: the recurrent weights, and the input
    weights of every layer but the first."""
    return name.startswith(("lstm.weight_hh", "lstm.weight_ih")) and name != "lstm.weight_ih_l0"


class Muon(torch.optim.Optimizer):
    """An optimizer that moves matrices in orthogonal directions (Jordan et al. 2024, "Muon: an
    optimizer for hidden layers in neural networks").

    A direction is the momentum with all singular values set to about 1, so that rare directions are
    learned as fast as common ones. The square block of each gate is one matrix. A direction is used
    for ``every`` steps. ``weight_decay`` is decoupled, as in AdamW (Loshchilov and Hutter 2019).
    The weights of a group have the same number of columns.
    """

    def __init__(
        self, params: list[dict], every: int, weight_decay: float, dtype: torch.dtype
    ) -> None:
        super().__init__(params, {"lr": 0.0})
        self.every, self.weight_decay, self.dtype = every, weight_decay, dtype
        self.found_inf = torch.zeros(())
        for weight in (weight for group in self.param_groups for weight in group["params"]):
            zeros = torch.zeros_like(weight, requires_grad=False)
            self.state[weight] = {"step": 0, "momentum": zeros, "direction": zeros.clone()}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is called
        """Move all weights, or none if ``found_inf`` is 1. On an accelerator the step is counted in
        any case, since reading ``found_inf`` would mean waiting for the device."""
        if self.found_inf.device.type == "cpu" and self.found_inf:
            return
        good = self.found_inf.eq(0)
        for group in self.param_groups:  # all weights at once: few kernels, so little to launch
            weights = group["params"]
            states = [self.state[weight] for weight in weights]
            momenta = [state["momentum"] for state in states]
            # with the momentum in place of a bad gradient, lerp changes nothing
            gradients = [w.grad.where(good, m) for w, m in zip(weights, momenta, strict=True)]
            torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
            if states[0]["step"] % self.every == 0:
                nesterov = torch.cat(torch._foreach_lerp(gradients, momenta, MOMENTUM))
                directions = orthogonal(nesterov, self.dtype).split([len(w) for w in weights])
                for state, direction in zip(states, directions, strict=True):
                    state["direction"] = direction.where(good, state["direction"])
            for state in states:
                state["step"] += 1
            lr = group["lr"] * good
            torch._foreach_mul_(weights, 1 - lr * self.weight_decay)
            moves = torch._foreach_mul([state["direction"] for state in states], lr)
            torch._foreach_sub_(weights, moves)


def orthogonal(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``[n_blocks * n_hidden, n_hidden]`` with each square block, of one gate, replaced by
    the nearest matrix whose singular values are all about 1, by Newton-Schulz iteration with
    Jordan's quintic polynomial."""
    blocks = matrix.view(-1, matrix.shape[1], matrix.shape[1])
    x = blocks / blocks.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    x = x.to(dtype)
    for _ in range(ITERATIONS):
        a = x @ x.mT
        b = torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, b, x, beta=3.4445)  # 3.4445 x - 4.7750 a x + 2.0315 a a x
    return x.to(matrix.dtype).view_as(matrix)
