"""The PyTorch side of bench/cpu: training steps of d2l's published ViT.

    peer_torch.py bench [--attention plain|sdpa] [--compile MODE] [--fused-sgd] [--prune] …
    peer_torch.py check

`bench` times updates as a PyTorch user would write them and prints one JSON
object with the keys of the trainer's own `bench --json`. `check` holds every
variant, without dropout and in float64, to golden/models.py: the same
parameters under the same names, the same loss, the same gradients. So what is
timed is the model that vitgen's numbers are verified against. The model itself
is bench/peers/vit.py's.
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

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench" / "peers"), str(ROOT / "golden")]
import models  # noqa: E402
import vit  # noqa: E402

CONFIG = vit.Config("d2l", (1, 96, 96), classes=10, patch=16, dim=512, hidden=2048, heads=8, blocks=2, dropout=0.1)
LR = 0.1


def peak_rss():
    """Bytes; Linux counts KiB, macOS bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def bench(args):
    start_rss = peak_rss()  # the interpreter and PyTorch's libraries, no model yet
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    model = vit.build(CONFIG, args.attention, args.prune).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, fused=args.fused_sgd or None)
    image, label = vit.random_batch(CONFIG, args.batch)

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


def check(args):
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    try:
        reference, *_ = vit.compare(models, CONFIG)
    except AssertionError as e:
        sys.exit(f"peer_torch.py: {e}")
    print(json.dumps({
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "parameters": sum(p.numel() for p in reference.parameters()),
        "step_flops": vit.step_flops(CONFIG, args.batch),
    }))  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description="training steps of d2l's ViT in PyTorch, on the CPU")
    parser.add_argument("command", choices=("bench", "check"))
    parser.add_argument("--attention", choices=sorted(vit.ATTENTION), default="plain")
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
