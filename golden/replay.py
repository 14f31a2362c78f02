"""One model, one batch, k optimizer steps: everything a golden file records.

The loss, the clip and the learning-rate schedule are written out; the update
itself is torch.optim's.
"""

import dataclasses
import math

import torch

# Roles for `decay: weights`: only matrices of linear maps decay.
DECAYED = (torch.nn.Linear, torch.nn.Conv2d)


@dataclasses.dataclass(frozen=True)
class Train:
    """A spec's train section; update counts k start at 1."""

    kind: str  # "sgd" | "adamw"
    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    betas: tuple = (0.9, 0.999)
    weight_decay: float = 0.0
    decay: str = "all"  # "all" | "weights"
    clip_norm: float = 0.0
    schedule: str = "constant"  # "constant" | "cosine" | "step"
    warmup: int = 0
    steps: int = 0  # cosine: total updates
    final_lr: float = 0.0
    every: int = 0  # step: updates between drops
    gamma: float = 1.0
    label_smoothing: float = 0.0

    def rate(self, k: int) -> float:
        """The learning rate of update k."""
        if k <= self.warmup:
            return self.lr * k / self.warmup
        past = k - 1 - self.warmup
        if self.schedule == "cosine":
            t = min(max(past / (self.steps - self.warmup), 0.0), 1.0)
            return self.final_lr + (self.lr - self.final_lr) * 0.5 * (1 + math.cos(math.pi * t))
        if self.schedule == "step":
            return self.lr * self.gamma ** (past // self.every)
        return self.lr


def cross_entropy(logits, label, smoothing):
    """Mean over the batch of -Σ q·log softmax; q = (1-ε)·onehot + ε/K."""
    top = logits.amax(1, keepdim=True)
    logp = logits - top - torch.log(torch.exp(logits - top).sum(1, keepdim=True))
    hit = logp.gather(1, label[:, None])[:, 0]
    return -((1 - smoothing) * hit + smoothing * logp.mean(1)).mean()


def optimizer(model, t: Train):
    params = dict(model.named_parameters())
    if t.decay == "weights":
        decayed = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, DECAYED)}
        groups = [{"params": [p for n, p in params.items() if n in decayed]},
                  {"params": [p for n, p in params.items() if n not in decayed], "weight_decay": 0.0}]
    else:
        groups = [{"params": list(params.values())}]
    if t.kind == "sgd":
        return torch.optim.SGD(groups, lr=t.lr, momentum=t.momentum, nesterov=t.nesterov,
                               weight_decay=t.weight_decay, foreach=False)
    return torch.optim.AdamW(groups, lr=t.lr, betas=t.betas, weight_decay=t.weight_decay, foreach=False)


def clip(params, limit: float) -> bool:
    """Scales all gradients by limit/norm when their global norm exceeds limit."""
    norm = math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in params))
    if limit <= 0 or norm <= limit:
        return False
    for p in params:
        p.grad.mul_(limit / norm)
    return True


@dataclasses.dataclass
class Trace:
    """logits, loss and gradients (before clipping) at the start; per update its loss and the parameters after it."""

    logits: torch.Tensor
    loss: torch.Tensor
    grads: dict
    steps: list  # of (loss, {name: parameter})
    clipped: list  # of bool


def replay(model, image, label, t: Train, steps: int) -> Trace:
    """Trains `model` in place for `steps` updates on the one batch."""
    params = dict(model.named_parameters())
    opt = optimizer(model, t)
    schedule = torch.optim.lr_scheduler.LambdaLR(opt, lambda done: t.rate(done + 1) / t.lr)
    trace = None
    for k in range(steps):
        opt.zero_grad()
        logits = model(image)
        loss = cross_entropy(logits, label, t.label_smoothing)
        loss.backward()
        if k == 0:
            grads = {n: p.grad.clone() for n, p in params.items()}
            trace = Trace(logits.detach().clone(), loss.detach().clone(), grads, [], [])
        trace.clipped.append(clip(params.values(), t.clip_norm))
        opt.step()
        schedule.step()
        trace.steps.append((loss.detach().clone(), {n: p.detach().clone() for n, p in params.items()}))
    return trace
