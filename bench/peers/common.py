"""What the peers share: the workload, the clock, and what they print."""

import argparse
import json
import math
import os
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
    """What to train: written by bench/gpu from the spec; see workload.go."""
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def bench_arguments(parser):
    parser.add_argument("--workload", required=True, metavar="FILE")
    parser.add_argument("--precision", choices=("fp32", "tf32", "bf16"), default="fp32")
    parser.add_argument("--warmup", type=int, default=3, help="steps before the timed ones")
    parser.add_argument("--steps", type=int, default=10, help="timed steps")
    parser.add_argument("--chunk", type=int, default=1, help="steps between two looks at the loss")


def positive(text):
    n = int(text)
    if n < 1:
        raise argparse.ArgumentTypeError("must be positive")
    return n


def clock(step, wait, args):
    """Times steps that queue up on the device, in chunks that end with reading the loss.

    step() starts one update and returns what wait() makes a number of, once the
    device is done. Returns the keys of the trainer's bench --json.
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
        sys.exit(f"the loss became {value}; a diverged run times nothing meaningful")
    return {
        "precision": args.precision,
        "warmup": args.warmup,
        "steps": args.steps,
        "step_ms": statistics.median(times),
        "step_ms_all": times,
        "first_step_ms": first,
        "loss": value,
    }
