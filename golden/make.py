"""Writes the golden files: python make.py [--check] [NAME…]

Everything is computed in float64 from float32-representable inputs. A second
evaluation, in float32, says how far honest single precision lands from it, and
sets each tensor's tolerance; others, with products in tf32 and bf16, say where
those precisions need more than their default. --check recomputes and compares with the files
that are there instead of writing (last bits may differ between machines).
"""

import argparse
import copy
import dataclasses
import json
import pathlib
import sys

import numpy as np
import safetensors.torch
import torch

import formula
import models
from replay import Train, replay
from torch.utils._python_dispatch import TorchDispatchMode

HERE = pathlib.Path(__file__).resolve().parent
VECTORS = HERE.parent / "runtime" / "formula" / "testdata" / "vectors.json"

# Relative-norm tolerances: never above CAP (the documented defaults), never
# below FLOOR (room for another summation order and other exp/erf polynomials).
CAP = {"forward": 1e-5, "gradient": 1e-4}
FLOOR = {"forward": 2e-6, "gradient": 4e-6}
# Gradients that vanish in exact arithmetic are stored as zeros and compared absolutely.
ZERO_FLOOR = 1e-6
MARGIN = 4
# What verify allows every tensor in a coarser precision. Rounding turns a ReLU
# on or off and gradients follow, so some need more: COARSE_MARGIN times what
# PyTorch itself is off by when its products are as coarse, at worst of COARSE_RUNS.
COARSE = {"tf32": 2e-3, "bf16": 2e-2}
COARSE_MARGIN = 2
COARSE_RUNS = 5
SAMPLES = 64


@dataclasses.dataclass(frozen=True)
class Noise:
    """A parameter of which some elements' gradients are rounding noise, and
    which Adam, dividing noise by its own size, moves all the same."""

    std: float  # at the start: large, so that the moves stay small beside the parameter
    part: tuple = (0.0, 1.0)  # where in the parameter the noise is, as fractions of its elements


# Softmax ignores a constant added to every key: the middle third of a joint bias.
KEYS = Noise(1.0, (1 / 3, 2 / 3))


@dataclasses.dataclass(frozen=True)
class Golden:
    name: str
    build: object  # () -> nn.Module
    image: tuple  # C, H, W
    classes: int
    batch: int
    train: Train
    steps: int = 5
    by_formula: bool = False
    stored_whole: int = 2048  # with by_formula: larger tensors go in as norm and samples
    # Name endings of parameters whose gradient is zero in exact arithmetic.
    zero_grad: tuple = ()
    noisy: dict = dataclasses.field(default_factory=dict)  # {name ending: Noise}


SMALL = [
    Golden(
        "draft_small",
        lambda: models.D2LDraft((1, 12, 12), 10, patch=4, dim=24, hidden=40, heads=3, blocks=2, max_len=20),
        (1, 12, 12), 10, batch=6,
        train=Train("sgd", lr=0.05, momentum=0.9),
        # A constant added to every key shifts a row of scores, which softmax ignores.
        zero_grad=("attention.W_k.bias",),
    ),
    Golden(
        "vit_small",
        lambda: models.D2LViT((1, 16, 16), 10, patch=4, dim=32, hidden=64, heads=4, blocks=2),
        (1, 16, 16), 10, batch=5,
        train=Train("sgd", lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    ),
    Golden(
        "timm_small",
        lambda: models.TimmViT((3, 24, 16), 7, patch=8, dim=40, hidden=72, heads=2, blocks=3, layer_scale=True),
        (3, 24, 16), 7, batch=4,
        train=Train("adamw", lr=1e-3, weight_decay=0.05, decay="weights", clip_norm=0.5, schedule="cosine",
                    warmup=3, steps=20, final_lr=1e-5, label_smoothing=0.1),
        noisy={"attn.qkv.bias": KEYS},
    ),
    Golden(
        "mixer_small",
        lambda: models.TimmMixer((3, 16, 16), 5, patch=4, dim=24, token_hidden=20, channel_hidden=48, blocks=2),
        (3, 16, 16), 5, batch=5,
        train=Train("adamw", lr=2e-3, weight_decay=0.01, clip_norm=1.0, warmup=2),
        # A constant per token is what every later layer norm takes out.
        zero_grad=("mlp_tokens.fc2.bias",),
        noisy={"mlp_tokens.fc2.bias": Noise(3.0)},
    ),
    Golden(
        "norm_tc_small",
        lambda: models.NormTC((1, 8, 8), 4, patch=2, dim=20, hidden=36, heads=5),
        (1, 8, 8), 4, batch=3,
        train=Train("sgd", lr=0.05, weight_decay=1e-2, clip_norm=0.3, schedule="step", every=2, gamma=0.5),
    ),
]

# What the files of examples/ say. Where the schedule is a cosine that ends with
# the run, whose updates the spec does not count, all steps lie in the warm-up.
FULL = [
    Golden(
        "vit",
        lambda: models.D2LViT((1, 96, 96), 10, patch=16, dim=512, hidden=2048, heads=8, blocks=2),
        (1, 96, 96), 10, batch=4, steps=2, by_formula=True,
        train=Train("sgd", lr=0.1),
    ),
    Golden(
        "vit_draft",
        lambda: models.D2LDraft((1, 96, 96), 10, patch=16, dim=512, hidden=2048, heads=8, blocks=2, max_len=1000),
        (1, 96, 96), 10, batch=4, steps=2, by_formula=True,
        train=Train("sgd", lr=0.05),
        zero_grad=("attention.W_k.bias",),
    ),
    Golden(
        "vit_tiny",
        lambda: models.TinyViT((1, 8, 8), 10, patch=2, dim=64, hidden=128, heads=4, blocks=2),
        (1, 8, 8), 10, batch=4, steps=2, by_formula=True,
        train=Train("adamw", lr=2e-3, weight_decay=0.05, decay="weights", clip_norm=1.0, schedule="cosine",
                    warmup=50, final_lr=1e-5, label_smoothing=0.1),
        noisy={"attn.qkv.bias": KEYS},
    ),
    Golden(
        "mixer",
        lambda: models.TimmMixer((1, 28, 28), 10, patch=4, dim=128, token_hidden=64, channel_hidden=512, blocks=4),
        (1, 28, 28), 10, batch=4, steps=2, by_formula=True,
        train=Train("adamw", lr=1e-3, weight_decay=0.05, decay="weights", clip_norm=1.0, schedule="cosine",
                    warmup=200, final_lr=1e-5),
        zero_grad=("mlp_tokens.fc2.bias",),
        noisy={"mlp_tokens.fc2.bias": Noise(1.0)},
    ),
    Golden(
        "vit_b16",
        lambda: models.TimmViT((3, 224, 224), 1000, patch=16, dim=768, hidden=3072, heads=12, blocks=12,
                               layer_scale=False),
        (3, 224, 224), 1000, batch=2, steps=2, by_formula=True, stored_whole=512,
        train=Train("adamw", lr=5e-4, weight_decay=0.05, decay="weights", clip_norm=1.0, schedule="cosine",
                    warmup=10, final_lr=1e-6, label_smoothing=0.1),
        noisy={"attn.qkv.bias": KEYS},
    ),
]


def fan_in(shape):
    return int(np.prod(shape[1:]))


def is_norm(model, name):
    module = model.get_submodule(name.rpartition(".")[0])
    return isinstance(module, models.LayerNorm)


def noise(g: Golden, name):
    return next((noise for ending, noise in g.noisy.items() if name.endswith(ending)), None)


def drawn(model, g: Golden):
    """Seeded normal inputs, rounded to float32."""
    rng = torch.Generator().manual_seed(20240531)
    normal = lambda shape, std, mean=0.0: (torch.randn(shape, generator=rng, dtype=torch.float64) * std + mean).float()
    image = normal((g.batch, *g.image), 1.0)
    label = torch.randint(g.classes, (g.batch,), generator=rng)
    params = {}
    for name, p in model.named_parameters():
        if noisy := noise(g, name):
            params[name] = normal(p.shape, noisy.std)
        elif name.endswith(".bias"):
            params[name] = normal(p.shape, 0.1)
        elif name.endswith(".gamma"):
            params[name] = normal(p.shape, 0.1, 0.5)
        elif is_norm(model, name):
            params[name] = normal(p.shape, 0.1, 1.0)
        elif name.endswith(".weight"):
            params[name] = normal(p.shape, fan_in(p.shape) ** -0.5)
        else:  # class token, positions
            params[name] = normal(p.shape, 0.5)
    return image, label, params, None


def formula_made(model, g: Golden):
    """Inputs by formula, and the {name: [scale, offset]} that says which."""
    table = {"image": [0.5, 0.5]}
    for name, p in model.named_parameters():
        if noisy := noise(g, name):
            table[name] = [noisy.std * 3.0**0.5, 0.0]
        elif is_norm(model, name):
            table[name] = [0.1, 1.0 if name.endswith(".weight") else 0.0]
        elif name.endswith(".weight"):
            table[name] = [fan_in(p.shape) ** -0.5, 0.0]
        elif name.endswith(".bias"):
            table[name] = [0.1, 0.0]
        else:  # class token, positions: unit variance
            table[name] = [3.0**0.5, 0.0]

    def tensor(name, shape):
        return torch.from_numpy(formula.values(name, int(np.prod(shape)), *table[name])).reshape(tuple(shape))

    image = tensor("image", (g.batch, *g.image))
    label = torch.from_numpy(formula.labels(g.batch, g.classes))
    return image, label, {n: tensor(n, p.shape) for n, p in model.named_parameters()}, table


def run(g: Golden, inputs, dtype, order=None):
    """The trace in `dtype`; `order` permutes the batch (only rounding may notice)."""
    image, label, params, _ = inputs
    order = torch.arange(g.batch) if order is None else order
    model = g.build()
    model.load_state_dict(params)  # strict: every parameter, nothing else
    trace = replay(model.to(dtype), image[order].to(dtype), label[order], g.train, g.steps)
    trace.logits = trace.logits[order.argsort()]
    return trace


def entries(g: Golden, trace):
    """The trace as {entry name: (kind, tensor)} in the golden format."""
    out = {"logits": ("forward", trace.logits), "loss": ("forward", trace.loss)}

    def put(prefix, kind, name, tensor):
        if not g.by_formula or tensor.numel() <= g.stored_whole:
            out[f"{prefix}.{name}"] = kind, tensor
            return
        at = torch.from_numpy(formula.indices(name, SAMPLES, tensor.numel()))
        out[f"{prefix}_norm.{name}"] = kind, torch.linalg.vector_norm(tensor.double())
        out[f"{prefix}_sample.{name}"] = kind, tensor.flatten()[at]

    for name, grad in trace.grads.items():
        put("grad", "gradient", name, grad)
    for k, (loss, params) in enumerate(trace.steps, 1):
        out[f"step{k}.loss"] = "forward", loss
        for name, p in params.items():
            put(f"step{k}.param", "gradient", name, p)
    return out


def error(got, want):
    """Relative norm of the difference; absolute where the reference is zero."""
    diff = torch.linalg.vector_norm(got.double() - want)
    norm = torch.linalg.vector_norm(want)
    return float(diff / norm if norm > 0 else diff)


def zero_exact(g: Golden, trace):
    """Replaces gradients that vanish in exact arithmetic by zeros, and asserts that just those are rounding noise."""
    total = sum(float((v**2).sum()) for v in trace.grads.values()) ** 0.5
    for name, grad in trace.grads.items():
        noise = float(torch.linalg.vector_norm(grad)) < 1e-12 * total
        expected = bool(g.zero_grad) and name.endswith(g.zero_grad)
        assert noise == expected, f"{g.name}: gradient of {name} is {'' if noise else 'not '}zero"
        if noise:
            grad.zero_()


def adam_reach(g: Golden, noisy: Noise, name, tensor, params):
    """How far, relative to its norm, the noise in Adam's updates can take an entry.

    An update moves an element by at most about the learning rate, whatever the
    gradient's size: float64's noise, far below Adam's epsilon, by nothing, and
    float32's by anything up to that. So n such elements are no further off than
    √n times the sum of the rates so far, and neither is their norm.
    """
    step, part, param = name.split(".", 2)
    moved = sum(g.train.rate(j) for j in range(1, int(step.removeprefix("step")) + 1))
    size = params[param].numel()
    at = formula.indices(param, SAMPLES, size) if part == "param_sample" else np.arange(size)
    n = np.count_nonzero((at >= noisy.part[0] * size) & (at < noisy.part[1] * size))
    return moved * n**0.5 / float(torch.linalg.vector_norm(tensor))


def tolerance(g: Golden, name, kind, tensor, params, err):
    noisy = noise(g, name)
    if noisy and name.startswith("step"):
        # How much noise there is depends on how the softmax is differentiated, so
        # PyTorch's says little about another implementation's: up to the default,
        # everything within reach is allowed.
        reach = adam_reach(g, noisy, name, tensor, params)
        return max(min(max(4 * MARGIN * err, CAP[kind]), reach), FLOOR[kind])
    assert err < CAP[kind], f"{g.name}: {name}: float32 misses the default tolerance: {err:.2e}"
    floor = FLOOR[kind] if tensor.any() else ZERO_FLOOR
    return min(max(MARGIN * err, floor), CAP[kind])


def tolerances(g: Golden, want, inputs):
    """{entry: relative norm}, from the worst float32 error over four orders of the batch."""
    rng = torch.Generator().manual_seed(1)
    worst = dict.fromkeys(want, 0.0)
    for _ in range(4):
        got = entries(g, run(g, inputs, torch.float32, torch.randperm(g.batch, generator=rng)))
        for name, (_, tensor) in want.items():
            worst[name] = max(worst[name], error(got[name][1], tensor))
    return {name: float(f"{tolerance(g, name, kind, tensor, inputs[2], worst[name]):.1e}")
            for name, (kind, tensor) in want.items()}


class Products(TorchDispatchMode):
    """Matrix products as a tensor core computes them, forward and backward.

    Operands are rounded, sums are float32. With bf16 results are rounded too,
    as they are when they go to memory. Rounding is to nearest, or by chance if
    there is a generator: which element is on the other side of zero then, is
    another in every implementation.
    """

    # Which arguments are operands.
    OPERANDS = {torch.ops.aten.mm.default: (0, 1), torch.ops.aten.bmm.default: (0, 1),
                torch.ops.aten.addmm.default: (1, 2), torch.ops.aten.baddbmm.default: (1, 2),
                torch.ops.aten.convolution.default: (0, 1),
                torch.ops.aten.convolution_backward.default: (0, 1, 2)}

    def __init__(self, precision, rng):
        super().__init__()
        self.bf16 = precision == "bf16"
        self.rng = rng
        self.count = 0

    def round(self, t):
        if not isinstance(t, torch.Tensor):
            return t
        if self.bf16 and self.rng is None:
            return t.bfloat16().float()
        bits = t.contiguous().view(torch.int32)
        unit = 1 << (16 if self.bf16 else 13)  # tf32 keeps 10 bits of mantissa
        add = unit // 2 if self.rng is None else torch.randint(unit, t.shape, generator=self.rng, dtype=torch.int32)
        return ((bits + add) & -unit).view(torch.float32)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        operands = self.OPERANDS.get(func)
        if operands is None:
            return func(*args, **(kwargs or {}))
        self.count += 1
        args = [self.round(a) if i in operands else a for i, a in enumerate(args)]
        out = func(*args, **(kwargs or {}))
        if not self.bf16:
            return out
        return tuple(map(self.round, out)) if isinstance(out, tuple) else self.round(out)


def coarse_tolerances(g: Golden, want, inputs, precision):
    """{entry: relative norm} for the entries that need more than the precision's default."""
    rng = torch.Generator().manual_seed(2)
    worst = dict.fromkeys(want, 0.0)
    for i in range(COARSE_RUNS):
        with Products(precision, rng if i else None) as products:
            got = entries(g, run(g, inputs, torch.float32))
        assert products.count > 3 * g.steps, "PyTorch computed its products in another way"
        for name, (_, tensor) in want.items():
            worst[name] = max(worst[name], error(got[name][1], tensor))
    assert max(worst.values()) < 0.25, f"{g.name}: {precision} is off by {max(worst.values()):.2e}"
    return {name: float(f"{COARSE_MARGIN * err:.1e}") for name, err in worst.items() if COARSE_MARGIN * err > COARSE[precision]}


def build(g: Golden):
    """(tensors, metadata) of one golden file."""
    model = g.build()
    inputs = (formula_made if g.by_formula else drawn)(model, g)
    image, label, params, table = inputs
    trace = run(g, inputs, torch.float64)
    zero_exact(g, trace)
    assert any(trace.clipped) == (g.train.clip_norm > 0), f"{g.name}: clip_norm never acts: {trace.clipped}"
    want = entries(g, trace)

    meta = {"vitgen.golden": "1", "torch": torch.__version__.partition("+")[0],
            "tolerance": json.dumps(tolerances(g, want, inputs), sort_keys=True)}
    for precision in COARSE:
        meta[f"tolerance.{precision}"] = json.dumps(coarse_tolerances(g, want, inputs, precision), sort_keys=True)
    tensors = {}
    if table is None:
        tensors = {"image": image, "label": label} | {f"param.{n}": p for n, p in params.items()}
    else:
        meta |= {"formula": json.dumps(table, sort_keys=True), "batch": str(g.batch)}
    for name, (_, tensor) in want.items():
        # Parameters after a step are float32 in a small golden: half the size, and
        # the rounding is far below every tolerance.
        narrow = not g.by_formula and ".param" in name
        tensors[name] = tensor.float() if narrow else tensor.double()
    return tensors, meta


def serialize(tensors, meta) -> bytes:
    """safetensors bytes with the header's keys in a fixed order (the library leaves the metadata's to chance)."""
    raw = safetensors.torch.save({n: t.contiguous() for n, t in tensors.items()}, meta)
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    ordered = {"__metadata__": dict(sorted(header.pop("__metadata__").items()))}
    ordered |= sorted(header.items(), key=lambda kv: kv[1]["data_offsets"])
    text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + raw[8 + size :]


def check(path, tensors, meta):
    """Names, shapes and metadata equal, values to 1e-9 (float32: its rounding)."""
    with safetensors.safe_open(path, "pt") as f:
        stored, stored_meta = {n: f.get_tensor(n) for n in f.keys()}, f.metadata()
    assert stored.keys() == tensors.keys(), f"{path}: {stored.keys() ^ tensors.keys()}"
    assert stored_meta.keys() == meta.keys(), path
    for name, t in tensors.items():
        s = stored[name]
        assert (s.shape, s.dtype) == (t.shape, t.dtype), f"{path}: {name}"
        bound = 1e-9 if t.dtype == torch.float64 else 1e-6
        assert error(s, t.double()) <= bound, f"{path}: {name} is off by {error(s, t.double()):.2e}"


# Parameters of the published models.
COUNTS = {"vit": 6_457_866, "vit_b16": 86_567_656}


def selfcheck():
    models.selfcheck()
    with torch.device("meta"):
        for g in FULL:
            count = sum(p.numel() for p in g.build().parameters())
            assert COUNTS.get(g.name, count) == count, f"{g.name}: {count:,} parameters"


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the files instead of writing them")
    parser.add_argument("names", nargs="*", metavar="NAME", help="goldens to make (default: all)")
    args = parser.parse_args()
    known = {g.name: g for g in [*SMALL, *FULL]}
    if unknown := set(args.names) - known.keys():
        sys.exit(f"make.py: no golden named {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    selfcheck()
    vectors = json.dumps(formula.vectors(), indent=1, ensure_ascii=False) + "\n"
    if args.check:
        assert VECTORS.read_text(encoding="utf-8") == vectors, VECTORS
    else:
        VECTORS.parent.mkdir(parents=True, exist_ok=True)
        VECTORS.write_text(vectors, encoding="utf-8")
    for name in args.names or known:
        tensors, meta = build(known[name])
        path = HERE / f"{name}.safetensors"
        if args.check:
            check(path, tensors, meta)
        else:
            path.write_bytes(serialize(tensors, meta))
        print(f"{'checked' if args.check else 'wrote'} {path.name}: {len(tensors)} tensors, "
              f"{path.stat().st_size:,} bytes, tolerances up to {max(json.loads(meta['tolerance']).values()):.0e}")


if __name__ == "__main__":
    main()
