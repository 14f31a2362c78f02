"""What the peers share: the workload, the clock, and what they print."""

import argparse
import json
import math
import os
import resource
import statistics
import sys
import time

# Libraries may write to standard output; the report is all that belongs there.
_report = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def emit(report):
    """Prints the one JSON object."""
    json.dump(report, _report)
    _report.write("\n")
    _report.flush()


def read_workload(path):
    """What to train: written by bench/workload from the spec."""
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def bench_arguments(parser):
    parser.add_argument("--workload", required=True, metavar="FILE")
    parser.add_argument("--pass", dest="passes", choices=("update", "forward"), default="update",
                        help="a training step, or logits without dropout")  # fmt: skip
    parser.add_argument("--batch", type=positive, help="of a forward pass (default: the workload's)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--threads", type=positive, help="of the CPU (default: the library's choice)")
    parser.add_argument("--precision", choices=("fp32", "tf32", "bf16"), default="fp32")
    parser.add_argument("--warmup", type=int, default=3, help="steps before the timed ones")
    parser.add_argument("--steps", type=int, default=10, help="timed steps")
    parser.add_argument("--chunk", type=int, default=1, help="steps between two looks at the loss")


def positive(text):
    n = int(text)
    if n < 1:
        raise argparse.ArgumentTypeError("must be positive")
    return n


def peak_rss():
    """The most memory this process had resident, in bytes; Linux counts KiB, macOS bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def batch_of(args, workload):
    """Only a forward pass has another batch than the workload's."""
    if args.batch and args.passes == "update":
        sys.exit("--batch is of --pass forward")
    return args.batch or workload["batch"]


def clock(step, wait, args):
    """Times steps that queue up on the device, in chunks that end with reading a result.

    step() starts one update or forward pass and returns what wait() makes a number
    of, the loss or a logit, once the device is done. Returns the keys of the
    trainer's bench --json.
    """
    start = time.perf_counter()
    value = wait(step())
    first = (time.perf_counter() - start) * 1e3
    for _ in range(args.warmup - 1):
        pending = step()
    if args.warmup > 1:
        value = wait(pending)
    times = []
    left = args.steps
    while left > 0:
        n = min(args.chunk, left)
        start = time.perf_counter()
        for _ in range(n):
            pending = step()
        value = wait(pending)
        times += [(time.perf_counter() - start) * 1e3 / n] * n
        left -= n
    if not math.isfinite(value):
        sys.exit(f"the result became {value}; a diverged run times nothing meaningful")
    return {
        "precision": args.precision,
        "warmup": args.warmup,
        "steps": args.steps,
        "step_ms": statistics.median(times),
        "step_ms_all": times,
        "first_step_ms": first,
        "peak_rss_bytes": peak_rss(),
    }
