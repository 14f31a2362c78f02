"""PyTorch's side of bench/gpu.sh and bench/cpu/run.sh.

    peer_torch.py bench --workload FILE --precision bf16 --mode reduce-overhead …
    peer_torch.py bench --workload FILE --device cpu --threads 2 --pass forward --batch 1 …
    peer_torch.py check --workload FILE [--dump FILE.npz]
    peer_torch.py roofs
    peer_torch.py versions

`bench` times training steps, or inference, as a PyTorch user would write them. `check` holds
the model to golden/models.py, and to timm's own where timm is installed, and
says what it has of parameters and work; --dump keeps a small case for other
frameworks. `roofs` measures what the device reaches on plain matrix products and
copies. Each prints one JSON object.
"""

import argparse
import contextlib
import dataclasses
import pathlib
import re
import sys
import time

import common
import torch
import torch.nn.functional as F
import vit

ROOT = pathlib.Path(__file__).resolve().parents[2]

# How a step is run, and what torch.compile is told.
MODES = {
    "eager": None,
    "graph": None,  # the whole step captured as one CUDA graph
    "compile": "default",
    "reduce-overhead": "reduce-overhead",
    "max-autotune": "max-autotune",
    "compile-graph": "default",  # compiled, then captured as one CUDA graph
}


def config(workload):
    model = dict(workload["model"])
    model["image"] = tuple(model["image"])
    return vit.Config(**model)


def set_precision(precision):
    """bf16 is automatic mixed precision; what it leaves in fp32 may use tf32."""
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    torch.backends.cudnn.allow_tf32 = precision != "fp32"


def make_optimizer(o, model, fused, capturable):
    fused = fused or None  # None: as the library chooses
    if o["kind"] == "sgd":
        return torch.optim.SGD(model.parameters(), lr=o["lr"], momentum=o["momentum"], nesterov=o["nesterov"],
                               weight_decay=o["weight_decay"], fused=fused)  # fmt: skip
    weights, others = [], []
    for name, p in model.named_parameters():
        decays = o["decay_all"] or (p.ndim >= 2 and name not in ("cls_token", "pos_embed"))
        (weights if decays else others).append(p)
    groups = [{"params": weights, "weight_decay": o["weight_decay"]}]
    if others:
        groups.append({"params": others, "weight_decay": 0.0})
    # A captured step counts its updates on the device.
    options = {"capturable": True} if capturable else {}
    return torch.optim.AdamW(groups, lr=o["lr"], betas=(o["beta1"], o["beta2"]), eps=o["eps"], fused=fused, **options)


def captured(step):
    """The step as one CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()

    def replay():
        graph.replay()
        return loss

    return replay


def mixed(args, device):
    """The context that products run in."""
    if args.precision == "bf16":
        return lambda: torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext


def make_update(args, workload, device):
    """A function that starts one update and returns its loss on the device."""
    c, mode = config(workload), MODES[args.mode]
    model = vit.build(c, args.attention, args.prune).to(device).train()
    optimizer = make_optimizer(workload["optimizer"], model, not args.unfused, args.mode.endswith("graph"))
    image, label = vit.random_batch(c, workload["batch"], device=device)
    smoothing, clip, amp = workload["label_smoothing"], workload["clip_norm"], mixed(args, device)

    def compute_loss(image, label):
        with amp():
            return F.cross_entropy(model(image), label, label_smoothing=smoothing)

    if mode:
        compute_loss = torch.compile(compute_loss, mode=mode)

    def step():
        if mode in ("reduce-overhead", "max-autotune"):
            torch.compiler.cudagraph_mark_step_begin()
        optimizer.zero_grad(set_to_none=True)
        loss = compute_loss(image, label)
        loss.backward()
        if clip > 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        return loss.detach()

    return step


def make_forward(args, workload, device):
    """A function that starts a forward pass and returns its logits on the device."""
    c, mode, amp = config(workload), MODES[args.mode], mixed(args, device)
    model = vit.build(c, args.attention, args.prune).to(device).eval()
    image, _ = vit.random_batch(c, common.batch_of(args, workload), device=device)
    run = torch.compile(model, mode=mode) if mode else model

    def step():
        with torch.inference_mode(), amp():
            return run(image)

    return step


def number(result):
    """Of a loss itself, of logits the first; waits for the device."""
    return float(result.cpu().flatten()[0])


def bench(args):
    start_rss = common.peak_rss()  # the interpreter and PyTorch's libraries, no model yet
    device = torch.device(args.device)
    workload = common.read_workload(args.workload)
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    set_precision(args.precision)
    start = time.perf_counter()
    step = (make_forward if args.passes == "forward" else make_update)(args, workload, device)
    graph = args.mode.endswith("graph")
    if graph:
        step = captured(step)
    made = (time.perf_counter() - start) * 1e3  # includes the compilation that capturing waits for
    report = common.clock(step, number, args)
    if graph:
        report["first_step_ms"] += made
    report |= {"batch": common.batch_of(args, workload), "start_rss_bytes": start_rss}
    if device.type == "cpu":
        report["device"] = f"cpu ({torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability().lower()})"
    else:
        report |= {
            "device": torch.cuda.get_device_name(device),
            "peak_allocated_bytes": torch.cuda.max_memory_allocated(device),
            "peak_reserved_bytes": torch.cuda.max_memory_reserved(device),
        }
    common.emit(report)


# --- check -------------------------------------------------------------------


def small(c):
    """The same architecture with less of everything."""
    return dataclasses.replace(c, image=(c.image[0], 2 * c.patch, 3 * c.patch), classes=min(c.classes, 11),
                               dim=8 * c.heads, hidden=24 * c.heads, blocks=min(c.blocks, 3))  # fmt: skip


def shapes(model):
    return {name: list(p.shape) for name, p in model.named_parameters()}


def timm_model(c):
    from timm.models.vision_transformer import VisionTransformer

    assert c.hidden % c.dim == 0, "timm wants a whole ratio"
    return VisionTransformer(img_size=c.image[1:], patch_size=c.patch, in_chans=c.image[0], num_classes=c.classes,
                             embed_dim=c.dim, depth=c.blocks, num_heads=c.heads, mlp_ratio=c.hidden // c.dim,
                             drop_path_rate=c.drop_path, weight_init="skip")  # fmt: skip


def check_timm(c, tiny, golden, image, label, want, smoothing):
    """None where timm is not installed, else its version."""
    if c.family != "timm":
        return None
    try:
        import timm
    except ImportError:
        return None
    with torch.device("meta"):
        theirs, ours = shapes(timm_model(c)), shapes(vit.build(c))
    assert theirs == ours, f"timm's parameters differ: {set(theirs.items()) ^ set(ours.items())}"
    model = timm_model(tiny).double().eval()
    model.load_state_dict(golden.state_dict(), strict=True)
    got = vit.loss_and_gradients(model, image, label, smoothing)
    for name, tensor in want.items():
        error = ((got[name] - tensor).norm() / tensor.norm()).item()
        assert error < 1e-10, f"timm {timm.__version__}: {name} is {error:.1e} away from golden/models.py"
    return timm.__version__


def check(args):
    sys.path.insert(0, str(ROOT / "golden"))
    import models

    workload = common.read_workload(args.workload)
    c, smoothing = config(workload), workload["label_smoothing"]
    torch.manual_seed(1)
    try:
        with torch.device("meta"):
            assert shapes(vit.build(c)) == shapes(vit.reference(models, c)), "parameters differ from golden/models.py's"
        tiny = small(c)
        golden, image, label, want = vit.compare(models, tiny, smoothing=smoothing)
        timm_version = check_timm(c, tiny, golden, image, label, want, smoothing)
    except AssertionError as e:
        sys.exit(f"peer_torch.py: {e}")
    if args.dump:
        dump(args.dump, tiny, golden, image, label, want, smoothing)
    with torch.device("meta"):
        model = vit.build(c)
    common.emit({
        "torch": torch.__version__,
        "timm": timm_version,
        "parameters": shapes(model),
        "step_flops": vit.step_flops(c, workload["batch"], "meta"),
    })  # fmt: skip


def dump(path, c, golden, image, label, want, smoothing):
    import numpy as np

    arrays = {"image": image.numpy(), "label": label.numpy(), "loss": want["loss"].numpy(), "smoothing": smoothing}
    for name, p in golden.named_parameters():
        arrays["param." + name], arrays["grad." + name] = p.detach().numpy(), want[name].numpy()
    for field in dataclasses.fields(c):
        arrays["config." + field.name] = getattr(c, field.name)
    np.savez(path, **arrays)


# --- the machine -------------------------------------------------------------


def best(run, device, times):
    """The least seconds of one run."""
    least = float("inf")
    for _ in range(times + 2):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        least = min(least, time.perf_counter() - start)
    return least


def roofs(args):
    """What plain matrix products and copies reach, on random numbers."""
    device = torch.device(args.device)
    n, elements = args.size, args.copy
    report = {"size": n, "copy_bytes": 4 * elements}
    for precision, dtype in (("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16)):
        set_precision(precision)
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        y = torch.empty(n, n, device=device, dtype=dtype)
        report[precision + "_flops"] = 2 * n**3 / best(lambda: torch.mm(a, b, out=y), device, args.times)
    x = torch.randn(elements, device=device)
    y = torch.empty_like(x)
    report["bytes_per_sec"] = 8 * elements / best(lambda: y.copy_(x), device, args.times)
    common.emit(report)


def versions(args):
    report = {"torch": torch.__version__, "python": sys.version.split()[0], "torch-cuda": str(torch.version.cuda)}
    if torch.cuda.is_available():
        report["device"] = torch.cuda.get_device_name()
        report["capability"] = "sm_%d%d" % torch.cuda.get_device_capability()
        report["cudnn"] = str(torch.backends.cudnn.version())
    # The libraries behind it on the CPU, as it was built.
    for name, pattern in {"mkl": r"Math Kernel Library Version ([\d.]+)", "onednn": r"MKL-DNN v([\d.]+)"}.items():
        if found := re.search(pattern, torch.__config__.show()):
            report[name] = found[1]
    try:
        import triton

        report["triton"] = triton.__version__
    except ImportError:
        pass
    common.emit(report)


def main():
    parser = argparse.ArgumentParser(description="training steps and inference of Vision Transformers in PyTorch")
    commands = parser.add_subparsers(dest="command", required=True)
    b = commands.add_parser("bench")
    common.bench_arguments(b)
    b.add_argument("--mode", choices=sorted(MODES), default="eager")
    b.add_argument("--attention", choices=sorted(vit.ATTENTION), default="sdpa")
    b.add_argument("--unfused", action="store_true", help="the optimizer as the library chooses, not its fused kernel")
    b.add_argument("--prune", action="store_true", help="last block: class token only")
    c = commands.add_parser("check")
    c.add_argument("--workload", required=True, metavar="FILE")
    c.add_argument("--dump", metavar="FILE.npz", help="keep a small case for other frameworks")
    r = commands.add_parser("roofs")
    r.add_argument("--device", default="cuda")
    r.add_argument("--size", type=common.positive, default=8192, help="rows and columns of the matrices")
    r.add_argument("--copy", type=common.positive, default=1 << 28, help="floats to copy")
    r.add_argument("--times", type=common.positive, default=10)
    commands.add_parser("versions")
    args = parser.parse_args()
    {"bench": bench, "check": check, "roofs": roofs, "versions": versions}[args.command](args)


if __name__ == "__main__":
    main()
