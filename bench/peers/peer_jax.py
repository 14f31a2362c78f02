"""JAX's side of bench/gpu.sh and bench/cpu/run.sh: the same models, written for jit.

    peer_jax.py bench --workload FILE --precision bf16 [--attention plain|library]
    peer_jax.py bench --workload FILE --device cpu --threads 2 --pass forward --batch 1 …
    peer_jax.py check --reference FILE.npz
    peer_jax.py versions

Parameters are a dict with PyTorch's names and shapes. `check` holds loss and
gradients, in float64 and without dropout, to a case that peer_torch.py check
--dump kept of golden/models.py.
"""

import argparse
import functools
import os
import pathlib
import sys
import types

import common

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

PRECISION = {"fp32": "highest", "tf32": "tensorfloat32", "bf16": "bfloat16"}


class Net:
    """One forward pass. half: what products multiply in where that is not float32."""

    def __init__(self, c, params, key=None, half=None, attention="plain"):
        self.c, self.p, self.key, self.half, self.attention = c, params, key, half, attention

    def linear(self, x, name, bias=True):
        w = self.p[name + ".weight"]
        if self.half:
            x, w = x.astype(self.half), w.astype(self.half)
        y = x @ w.T
        return y + self.p[name + ".bias"].astype(y.dtype) if bias else y

    def layernorm(self, x, name, eps):
        x = x if self.half is None else x.astype(jnp.float32)
        d = x - x.mean(-1, keepdims=True)
        y = d * lax.rsqrt((d * d).mean(-1, keepdims=True) + eps)
        return y * self.p[name + ".weight"] + self.p[name + ".bias"]

    def draw(self, rate, shape, dtype):
        """Multipliers: 0 with probability rate, else 1/(1 - rate)."""
        self.key, key = jax.random.split(self.key)
        return (jax.random.bernoulli(key, 1 - rate, shape) / (1 - rate)).astype(dtype)

    def dropout(self, x, rate=None):
        rate = self.c.dropout if rate is None else rate
        return x if self.key is None or rate == 0 else x * self.draw(rate, x.shape, x.dtype)

    def drop_path(self, x, rate):
        return x if self.key is None or rate == 0 else x * self.draw(rate, (x.shape[0], 1, 1), x.dtype)

    def patches(self, image, name):
        """The patch convolution: patches do not overlap, so it is a matrix product."""
        c = self.c
        B, C, H, W = image.shape
        x = image.reshape(B, C, H // c.patch, c.patch, W // c.patch, c.patch)
        x = x.transpose(0, 2, 4, 1, 3, 5).reshape(B, -1, C * c.patch * c.patch)
        w = self.p[name + ".weight"].reshape(c.dim, -1)
        if self.half:
            x, w = x.astype(self.half), w.astype(self.half)
        y = x @ w.T
        return y + self.p[name + ".bias"].astype(y.dtype)

    def attend(self, q, k, v):
        """q, k, v: [B, T, D]."""
        heads = self.c.heads
        q, k, v = (x.reshape(*x.shape[:2], heads, -1) for x in (q, k, v))
        if self.attention == "library":
            y = jax.nn.dot_product_attention(q, k, v)
        else:
            scores = jnp.einsum("bthd,bshd->bhts", q, k) / np.sqrt(q.shape[-1]).astype(q.dtype)
            weights = jax.nn.softmax(scores.astype(jnp.float32) if self.half else scores).astype(v.dtype)
            y = jnp.einsum("bhts,bshd->bthd", self.dropout(weights), v)
        return y.reshape(*y.shape[:2], -1)

    def residual(self, x):
        """The stream between blocks stays float32 unless everything is wider."""
        return x if self.half is None else x.astype(jnp.float32)

    def d2l(self, image):
        c, p = self.c, self.p
        x = self.residual(self.patches(image, "patch_embedding.conv"))
        x = jnp.concatenate((jnp.broadcast_to(p["cls_token"], (len(x), 1, c.dim)), x), 1)
        x = self.dropout(x + p["pos_embedding"])
        for i in range(c.blocks):
            at = f"blks.{i}."
            h = self.layernorm(x, at + "ln1", 1e-5)
            q, k, v = (self.linear(h, f"{at}attention.W_{w}", bias=False) for w in "qkv")
            x = x + self.residual(self.linear(self.attend(q, k, v), at + "attention.W_o", bias=False))
            h = self.linear(self.layernorm(x, at + "ln2", 1e-5), at + "mlp.dense1")
            h = self.dropout(jax.nn.gelu(h, approximate=False))
            x = x + self.residual(self.dropout(self.linear(h, at + "mlp.dense2")))
        return self.linear(self.layernorm(x[:, 0], "head.0", 1e-5), "head.1")

    def blocks(self, image, patch, mlp, eps):
        """timm's encoder; patch and mlp are the beginnings of names."""
        c, p = self.c, self.p
        x = self.residual(self.patches(image, patch))
        x = jnp.concatenate((jnp.broadcast_to(p["cls_token"], (len(x), 1, c.dim)), x), 1) + p["pos_embed"]
        for i in range(c.blocks):
            at, rate = f"blocks.{i}.", c.drop_path * i / max(c.blocks - 1, 1)
            q, k, v = jnp.split(self.linear(self.layernorm(x, at + "norm1", eps), at + "attn.qkv"), 3, -1)
            x = x + self.drop_path(self.residual(self.linear(self.attend(q, k, v), at + "attn.proj")), rate)
            h = jax.nn.gelu(self.linear(self.layernorm(x, at + "norm2", eps), f"{at}{mlp}fc1"), approximate=False)
            x = x + self.drop_path(self.residual(self.linear(h, f"{at}{mlp}fc2")), rate)
        return x

    def timm(self, image):
        x = self.blocks(image, "patch_embed.proj", "mlp.", 1e-6)
        return self.linear(self.layernorm(x, "norm", 1e-6)[:, 0], "head")

    def tiny(self, image):
        x = self.blocks(image, "patch", "", 1e-5)
        return self.linear(self.layernorm(x[:, 0], "norm", 1e-5), "head")

    def logits(self, image):
        return {"d2l": self.d2l, "timm": self.timm, "tiny": self.tiny}[self.c.family](image)

    def loss(self, image, label, smoothing):
        logits = self.residual(self.logits(image))
        log_p = jax.nn.log_softmax(logits)
        hit = jnp.take_along_axis(log_p, label[:, None], 1)[:, 0]
        return -((1 - smoothing) * hit + smoothing * log_p.mean(-1)).mean()


def shapes(c):
    tokens = (c.image[1] // c.patch) * (c.image[2] // c.patch)
    D, M = c.dim, c.hidden
    patch = (D, c.image[0], c.patch, c.patch)
    vector = lambda name: {name + ".weight": (D,), name + ".bias": (D,)}  # noqa: E731
    linear = lambda name, out, into: {name + ".weight": (out, into), name + ".bias": (out,)}  # noqa: E731
    p = {"cls_token": (1, 1, D)}
    if c.family == "d2l":
        p |= {"pos_embedding": (1, tokens + 1, D), "patch_embedding.conv.weight": patch, "patch_embedding.conv.bias": (D,)}
        for i in range(c.blocks):
            at = f"blks.{i}."
            p |= vector(at + "ln1") | {f"{at}attention.W_{w}.weight": (D, D) for w in "qkvo"} | vector(at + "ln2")
            p |= linear(at + "mlp.dense1", M, D) | linear(at + "mlp.dense2", D, M)
        return p | vector("head.0") | linear("head.1", c.classes, D)
    name, mlp = ("patch", "") if c.family == "tiny" else ("patch_embed.proj", "mlp.")
    p |= {"pos_embed": (1, tokens + 1, D), name + ".weight": patch, name + ".bias": (D,)}
    for i in range(c.blocks):
        at = f"blocks.{i}."
        p |= vector(at + "norm1") | linear(at + "attn.qkv", 3 * D, D) | linear(at + "attn.proj", D, D) | vector(at + "norm2")
        p |= linear(f"{at}{mlp}fc1", M, D) | linear(f"{at}{mlp}fc2", D, M)
    return p | vector("norm") | linear("head", c.classes, D)


def initial(c, random):
    """Small random matrices, norms at one."""
    params = {}
    for name, shape in shapes(c).items():
        norm = len(shape) == 1 and name.endswith(".weight")
        params[name] = np.ones(shape, np.float32) if norm else (0.02 * random.standard_normal(shape)).astype(np.float32)
    return params


# --- updates -----------------------------------------------------------------


def clipped(grads, most):
    norm = jnp.sqrt(sum((g * g).sum() for g in jax.tree.leaves(grads)))
    return jax.tree.map(lambda g: g * jnp.minimum(1.0, most / (norm + 1e-6)), grads)


def sgd(o, params, grads, state):
    def one(p, g, m):
        g = g + o["weight_decay"] * p
        if o["momentum"] == 0:
            return p - o["lr"] * g, m
        m = o["momentum"] * m + g
        return p - o["lr"] * (g + o["momentum"] * m if o["nesterov"] else m), m

    new = {name: one(p, grads[name], state["m"].get(name)) for name, p in params.items()}
    momenta = {name: m for name, (_, m) in new.items() if m is not None}
    return {name: p for name, (p, _) in new.items()}, {"m": momenta}


def adamw(o, params, grads, state):
    k = state["k"] + 1
    c1, c2 = 1 - o["beta1"] ** k, 1 - o["beta2"] ** k

    def one(name, p, g, m, v):
        m = o["beta1"] * m + (1 - o["beta1"]) * g
        v = o["beta2"] * v + (1 - o["beta2"]) * g * g
        decays = o["decay_all"] or (p.ndim >= 2 and name not in ("cls_token", "pos_embed"))
        p = p * (1 - o["lr"] * o["weight_decay"]) if decays else p
        return p - o["lr"] * (m / c1) / (jnp.sqrt(v / c2) + o["eps"]), m, v

    new = {n: one(n, p, grads[n], state["m"][n], state["v"][n]) for n, p in params.items()}
    p, m, v = ({n: t[i] for n, t in new.items()} for i in range(3))
    return p, {"k": k, "m": m, "v": v}


def zeros(params):
    return jax.tree.map(jnp.zeros_like, params)


def start_state(o, params):
    if o["kind"] == "adamw":
        return {"k": jnp.zeros((), jnp.float32), "m": zeros(params), "v": zeros(params)}
    return {"m": zeros(params) if o["momentum"] else {}}


def place(args):
    """Chooses the device before there is one."""
    if args.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    if args.threads:
        # XLA's pool has a thread for each CPU that the process may run on, or as
        # many as this says; there is no option for it.
        os.environ["PJRT_NPROC"] = str(args.threads)


def pool_size():
    """How many threads XLA's pool on the CPU has; None where the system does not tell."""
    names = [task.read_text() for task in pathlib.Path("/proc/self/task").glob("*/comm")]
    return sum("XLAEigen" in name for name in names) or None


def make_forward(args, c, params, image, half):
    run = jax.jit(lambda params, image: Net(c, params, None, half, args.attention).logits(image))
    return lambda: run(params, image)


def make_update(args, c, workload, params, image, label, half):
    o, smoothing, clip = workload["optimizer"], workload["label_smoothing"], workload["clip_norm"]
    if args.attention == "library" and c.dropout > 0:
        sys.exit("peer_jax.py: jax.nn.dot_product_attention knows no dropout")

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def update(params, state, key, image, label):
        key, now = jax.random.split(key)
        compute = lambda p: Net(c, p, now, half, args.attention).loss(image, label, smoothing)  # noqa: E731
        loss, grads = jax.value_and_grad(compute)(params)
        if clip > 0:
            grads = clipped(grads, clip)
        params, state = (adamw if o["kind"] == "adamw" else sgd)(o, params, grads, state)
        return params, state, key, loss

    carry = [params, start_state(o, params), jax.random.key(1)]

    def step():
        *carry[:], loss = update(*carry, image, label)
        return loss

    return step


def bench(args):
    start_rss = common.peak_rss()  # the interpreter and JAX's libraries, no model yet
    place(args)
    jax.config.update("jax_default_matmul_precision", PRECISION[args.precision])
    jax.config.update("jax_default_prng_impl", "rbg")  # the fast one
    if cache := os.environ.get("VITGEN_JAX_CACHE"):
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    workload = common.read_workload(args.workload)
    c = types.SimpleNamespace(**{"dropout": 0.0, "drop_path": 0.0} | workload["model"])
    half = jnp.bfloat16 if args.precision == "bf16" else None
    random = np.random.default_rng(1)
    params = jax.device_put(initial(c, random))
    batch = common.batch_of(args, workload)
    image = jax.device_put(random.standard_normal((batch, *c.image), np.float32))
    label = jax.device_put(random.integers(c.classes, size=batch).astype(np.int32))
    if args.passes == "forward":
        step = make_forward(args, c, params, image, half)
    else:
        step = make_update(args, c, workload, params, image, label, half)
    device = jax.devices()[0]
    report = common.clock(step, lambda result: float(np.ravel(result)[0]), args)
    report |= {"batch": batch, "device": device.device_kind, "start_rss_bytes": start_rss}
    if device.platform == "cpu" and (threads := pool_size()):
        report["device"] += f" ({threads} threads)"
    if stats := device.memory_stats():
        report["peak_allocated_bytes"] = stats.get("peak_bytes_in_use", 0)
        report["peak_reserved_bytes"] = stats.get("peak_pool_bytes", 0)
    common.emit(report)


def check(args):
    jax.config.update("jax_enable_x64", True)
    data = np.load(args.reference)
    c = types.SimpleNamespace(**{n.removeprefix("config."): data[n].tolist() for n in data.files if n.startswith("config.")})
    params = {n.removeprefix("param."): jnp.asarray(data[n]) for n in data.files if n.startswith("param.")}
    ours, theirs = shapes(c), {n: p.shape for n, p in params.items()}
    if ours != theirs:
        sys.exit(f"peer_jax.py: parameters differ from golden/models.py's: {set(ours.items()) ^ set(theirs.items())}")
    smoothing = float(data["smoothing"])
    for attention in ("plain", "library"):
        compute = lambda p: Net(c, p, attention=attention).loss(data["image"], data["label"], smoothing)  # noqa: B023, E731
        loss, grads = jax.jit(jax.value_and_grad(compute))(params)
        got = {"loss": loss} | {"grad." + n: g for n, g in grads.items()}
        for name, x in got.items():
            error = float(np.linalg.norm(np.ravel(x - data[name])) / np.linalg.norm(np.ravel(data[name])))
            if not error < (1e-10 if attention == "plain" else 1e-5):  # the library's softmax is float32
                sys.exit(f"peer_jax.py: attention {attention}: {name} is {error:.1e} away from golden/models.py")
    common.emit({"jax": jax.__version__, "parameters": {n: list(s) for n, s in ours.items()}})


def versions(args):
    common.emit({"jax": jax.__version__, "python": sys.version.split()[0], "platform": jax.default_backend(),
                 "device": jax.devices()[0].device_kind})  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description="training steps and inference of Vision Transformers in JAX")
    commands = parser.add_subparsers(dest="command", required=True)
    b = commands.add_parser("bench")
    common.bench_arguments(b)
    # library: jax.nn.dot_product_attention, which knows no dropout.
    b.add_argument("--attention", choices=("plain", "library"), default="plain")
    c = commands.add_parser("check")
    c.add_argument("--reference", required=True, metavar="FILE.npz")
    commands.add_parser("versions")
    args = parser.parse_args()
    {"bench": bench, "check": check, "versions": versions}[args.command](args)


if __name__ == "__main__":
    main()
