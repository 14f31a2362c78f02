"""The PyTorch side of bench/cpu: training steps of d2l's published ViT.

    peer_torch.py bench [--attention plain|sdpa] [--compile MODE] [--fused-sgd] [--prune] …
    peer_torch.py check

`bench` times updates as a PyTorch user would write them and prints one JSON
object with the keys of the trainer's own `bench --json`. `check` holds every
variant, without dropout and in float64, to golden/models.py: the same
parameters under the same names, the same loss, the same gradients. So what is
timed is the model that vitgen's numbers are verified against.
"""

import argparse
import json
import math
import pathlib
import resource
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

IMAGE, PATCH, CLASSES = 96, 16, 10
DIM, HIDDEN, HEADS, BLOCKS = 512, 2048, 8, 2
DROPOUT, LR = 0.1, 0.1


class PlainAttention(nn.Module):
    """d2l's MultiHeadAttention over DotProductAttention, without a mask."""

    def __init__(self):
        super().__init__()
        self.W_q = nn.Linear(DIM, DIM, bias=False)
        self.W_k = nn.Linear(DIM, DIM, bias=False)
        self.W_v = nn.Linear(DIM, DIM, bias=False)
        self.W_o = nn.Linear(DIM, DIM, bias=False)
        self.dropout = nn.Dropout(DROPOUT)

    @staticmethod
    def split(x):
        """[B, T, D] → [B·heads, T, D/heads]"""
        x = x.reshape(x.shape[0], x.shape[1], HEADS, -1).permute(0, 2, 1, 3)
        return x.reshape(-1, x.shape[2], x.shape[3])

    def forward(self, x, keys):
        q, k, v = self.split(self.W_q(x)), self.split(self.W_k(keys)), self.split(self.W_v(keys))
        scores = torch.bmm(q, k.transpose(1, 2)) / math.sqrt(q.shape[-1])
        y = torch.bmm(self.dropout(F.softmax(scores, dim=-1)), v)
        y = y.reshape(-1, HEADS, y.shape[1], y.shape[2]).permute(0, 2, 1, 3)
        return self.W_o(y.reshape(y.shape[0], y.shape[1], -1))


class SDPAttention(PlainAttention):
    """The same through PyTorch's own attention function."""

    @staticmethod
    def split(x):
        """[B, T, D] → [B, heads, T, D/heads]"""
        return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)

    def forward(self, x, keys):
        q, k, v = self.split(self.W_q(x)), self.split(self.W_k(keys)), self.split(self.W_v(keys))
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=DROPOUT if self.training else 0.0)
        return self.W_o(y.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense1 = nn.Linear(DIM, HIDDEN)
        self.gelu = nn.GELU()
        self.dropout1 = nn.Dropout(DROPOUT)
        self.dense2 = nn.Linear(HIDDEN, DIM)
        self.dropout2 = nn.Dropout(DROPOUT)

    def forward(self, x):
        return self.dropout2(self.dense2(self.dropout1(self.gelu(self.dense1(x)))))


class Block(nn.Module):
    """x + attention(LN x), then x + mlp(LN x), for the first `rows` tokens (None: all)."""

    def __init__(self, attention):
        super().__init__()
        self.ln1 = nn.LayerNorm(DIM)
        self.attention = attention()
        self.ln2 = nn.LayerNorm(DIM)
        self.mlp = MLP()

    def forward(self, x, rows=None):
        keys = self.ln1(x)
        x = x[:, :rows] + self.attention(keys[:, :rows], keys)
        return x + self.mlp(self.ln2(x))


class PatchEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, DIM, kernel_size=PATCH, stride=PATCH)

    def forward(self, image):
        return self.conv(image).flatten(2).transpose(1, 2)


class ViT(nn.Module):
    """With prune, the last block computes only the class token's row, as a user
    who knows that nothing else is read could write it."""

    def __init__(self, attention=PlainAttention, prune=False):
        super().__init__()
        self.prune = prune
        self.patch_embedding = PatchEmbedding()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, DIM))
        self.pos_embedding = nn.Parameter(torch.randn(1, (IMAGE // PATCH) ** 2 + 1, DIM))
        self.dropout = nn.Dropout(DROPOUT)
        self.blks = nn.Sequential(*(Block(attention) for _ in range(BLOCKS)))
        self.head = nn.Sequential(nn.LayerNorm(DIM), nn.Linear(DIM, CLASSES))

    def forward(self, image):
        x = self.patch_embedding(image)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), 1)
        x = self.dropout(x + self.pos_embedding)
        for block in self.blks[:-1]:
            x = block(x)
        return self.head(self.blks[-1](x, 1 if self.prune else None)[:, 0])


ATTENTION = {"plain": PlainAttention, "sdpa": SDPAttention}


def random_batch(batch, dtype=torch.float32):
    """Never zeros, on which processors run faster."""
    return torch.randn(batch, 1, IMAGE, IMAGE, dtype=dtype), torch.randint(CLASSES, (batch,))


def peak_rss():
    """Bytes; Linux counts KiB, macOS bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def bench(args):
    start_rss = peak_rss()  # the interpreter and PyTorch's libraries, no model yet
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    model = ViT(ATTENTION[args.attention], args.prune).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, fused=args.fused_sgd or None)
    image, label = random_batch(args.batch)

    def compute_loss(image, label):
        return F.cross_entropy(model(image), label)

    if args.compile != "off":
        compute_loss = torch.compile(compute_loss, mode=args.compile)

    times = []
    for _ in range(args.warmup + args.steps):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = compute_loss(image, label)
        loss.backward()
        optimizer.step()
        value = loss.item()
        times.append((time.perf_counter() - start) * 1e3)
    if not math.isfinite(value):
        sys.exit(f"peer_torch.py: the loss became {value}; a diverged run times nothing meaningful")
    timed = times[args.warmup :]
    print(json.dumps({
        "device": f"cpu ({torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability().lower()})",
        "precision": "fp32",
        "batch": args.batch,
        "warmup": args.warmup,
        "steps": args.steps,
        "step_ms": statistics.median(timed),
        "step_ms_all": timed,
        "first_step_ms": times[0],
        "loss": value,
        "start_rss_bytes": start_rss,
        "peak_rss_bytes": peak_rss(),
    }))  # fmt: skip


def loss_and_gradients(model, image, label):
    loss = F.cross_entropy(model(image), label)
    loss.backward()
    return {"loss": loss.detach(), **{name: p.grad for name, p in model.named_parameters()}}


def step_flops(model, batch):
    """Multiplications and additions of the matrix products of a forward and backward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    image, label = random_batch(batch)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(image), label).backward()
    return counter.get_total_flops()


def check(args):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "golden"))
    import models

    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    # eval() only switches dropout off; there is nothing else it could change.
    reference = models.D2LViT((1, IMAGE, IMAGE), CLASSES, PATCH, DIM, HIDDEN, HEADS, BLOCKS).double().eval()
    for p in reference.parameters():
        nn.init.normal_(p, std=0.05)  # no zero and no one left that could hide a mistake
    image, label = random_batch(3, torch.float64)
    want = loss_and_gradients(reference, image, label)
    for attention in ATTENTION:
        for prune in (False, True):
            model = ViT(ATTENTION[attention], prune).double().eval()
            model.load_state_dict(reference.state_dict(), strict=True)
            got = loss_and_gradients(model, image, label)
            for name, tensor in want.items():
                error = ((got[name] - tensor).norm() / tensor.norm()).item()
                if not error < 1e-10:
                    sys.exit(f"peer_torch.py: attention {attention}, prune {prune}: "
                             f"{name} is {error:.1e} away from golden/models.py")  # fmt: skip
    print(json.dumps({
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "parameters": sum(p.numel() for p in reference.parameters()),
        "step_flops": step_flops(ViT().train(), args.batch),
    }))  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description="training steps of d2l's ViT in PyTorch, on the CPU")
    parser.add_argument("command", choices=("bench", "check"))
    parser.add_argument("--attention", choices=sorted(ATTENTION), default="plain")
    parser.add_argument("--compile", choices=("off", "default", "max-autotune"), default="off")
    parser.add_argument("--fused-sgd", action="store_true", help="PyTorch's one-pass optimizer kernel")
    parser.add_argument("--prune", action="store_true", help="last block: class token only")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    args = parser.parse_args()
    (check if args.command == "check" else bench)(args)


if __name__ == "__main__":
    main()
