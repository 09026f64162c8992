# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Is each form of attention right, and how long does it take, forward and with its backward pass, on packs of images.

    python benchmarks/linear_attention.py --out results

makes the whole table on a machine with a GPU, and that of the forms that a CPU runs elsewhere. What the output and the
gradients of a form are off by against float64 comes first: a form that fails gets no time.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import harness
import torch
from linear_attention_forms import FORMS, INTERPRETED, Form, Pack, make_pack

from turingvit_hf.benchmarking.timing import Timing, clock
from turingvit_hf.kernels.linear_attention import roofline


PACKS = {
    "1 x 1,024": (1024,),
    "1 x 4,096": (4096,),
    "1 x 9,216": (9216,),
    "1 x 16,384": (16384,),
    "8 x 1,024": (1024,) * 8,
    "64 ragged": tuple(64 + 479 * i % 1072 for i in range(64)),
    "256 x 64": (64,) * 256,
}
# What a CPU is given where no pack is named; on two cores the others take minutes a form.
CPU_PACKS = ("1 x 1,024", "1 x 4,096", "8 x 1,024", "256 x 64")
SMOKE_PACKS = {"1 x 40": (40,), "3 ragged": (1, 17, 30)}
CHECKED, SMOKE_CHECKED = (1, 2, 15, 17, 64, 64, 300, 1025, 2049), (1, 2, 17, 40)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Largest error by norm against float64. float32 may be three TF32 products; in 16 bits the eager form rounds after
# each of its steps.
TOLERANCE = {"float32": 1e-4, "bfloat16": 2**-5, "float16": 2**-8}
PASSES = ("forward", "forward + backward")


def output_and_gradients(run: Callable[[Pack], torch.Tensor], pack: Pack) -> dict[str, torch.Tensor]:
    """The output of a form and the gradients of all it depends on, by name."""
    y = run(pack)
    direction = torch.randn(y.shape, generator=torch.Generator(y.device).manual_seed(1), device=y.device)
    grads = torch.autograd.grad(y, list(pack.leaves.values()), direction.to(y.dtype), allow_unused=True)
    named = {"output": y.detach(), **dict(zip(pack.leaves, grads, strict=True))}
    return {name: x for name, x in named.items() if x is not None}


def check(form: Form, pack: Pack) -> dict[str, float]:
    """The error by norm of the output and of each gradient of a form against float64."""
    exact = output_and_gradients(form.exact, pack.double())
    actual = output_and_gradients(form.run, pack)
    if actual["output"].shape != exact["output"].shape:
        raise ValueError(f"the output is {tuple(actual['output'].shape)}, not {tuple(exact['output'].shape)}")
    return {name: float((actual[name].double() - x).norm() / x.norm()) for name, x in exact.items()}


def fault(name: str, dtype: str, pack: Pack, errors: dict[str, dict[str, float]]) -> str | None:
    """Why a form gets no time, or None if it is right; its errors are added to `errors`."""
    if (reason := FORMS[name].why_missing(pack.q.device, DTYPES[dtype])) is not None:
        return reason
    try:
        errors[name] = check(FORMS[name], pack)
    except Exception as error:  # whatever other projects' kernels raise here, the others are still worth timing
        return f"fails: {type(error).__name__}: {error}".splitlines()[0]
    worst = max(errors[name], key=lambda tensor: errors[name][tensor])
    # not `>`: NaN is wrong, too
    if not errors[name][worst] <= TOLERANCE[dtype]:
        return f"wrong: {worst} is off by {errors[name][worst]:.1e}, allowed is {TOLERANCE[dtype]:.1e}"
    return None


class Clock:
    """Times calls, one at a time, on the device that they run on."""

    def __init__(self, device: torch.device):
        self.device = device
        # Written before each call, so that none finds its data in the L2 cache, and so that the GPU is busy for longer
        # than it takes to queue a launch.
        self.flush = torch.empty(256 * 2**20 if device.type == "cuda" else 0, dtype=torch.int8, device=device)

    def __call__(self, call: Callable[[], object]) -> float:
        """Seconds of one call."""
        if self.device.type != "cuda":
            start = clock()
            call()
            return clock() - start
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.flush.zero_()
        before.record()
        call()
        after.record()
        after.synchronize()
        return before.elapsed_time(after) / 1000


def time_interleaved(
    calls: dict[str, Callable[[], object]], clock: Clock, *, seconds: float, repeats: int
) -> dict[str, Timing]:
    """Timings of each call, by name: in turns, so that what disturbs the machine disturbs all of them.

    Args:
        calls: What to time, by name.
        clock: Times one call.
        seconds: Time for each call after which it is not repeated.
        repeats: How often each call is timed at most.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(3 if clock.device.type == "cuda" else 1):
            clock(call)  # compiles, tunes other projects' kernels, and fills caches of allocators
    for _ in range(repeats):
        for name, call in calls.items():
            if sum(times[name]) < seconds:
                times[name].append(clock(call))
    return {name: Timing(tuple(seconds)) for name, seconds in times.items()}


def moved_bytes(lengths: tuple[int, ...], num_heads: int, head_dim: int, *, itemsize: int) -> dict[str, float]:
    """Bytes that the Triton kernels move for a pack, by pass; the README of the kernels counts them."""
    images = [roofline.Image(length, num_heads, head_dim, itemsize) for length in lengths]
    forward = sum(work.bytes for image in images for work in roofline.forward_work(image))
    backward = sum(work.bytes for image in images for work in roofline.backward_work(image))
    return dict(zip(PASSES, (forward, forward + backward), strict=True))


def copy_bandwidth(clock: Clock) -> float:
    """Bytes a second that a large copy reads and writes here."""
    num_bytes = 2**30 if clock.device.type == "cuda" else 2**27
    source = torch.ones(num_bytes, dtype=torch.int8, device=clock.device)
    target = torch.empty_like(source)
    return 2 * num_bytes / min(clock(lambda: target.copy_(source)) for _ in range(10))


def calls_of(form: Form, pack: Pack) -> dict[str, Callable[[], object]]:
    """What is timed of a form, by pass."""
    leaves, direction = list(pack.leaves.values()), torch.ones_like(pack.gate)

    def forward() -> None:
        with torch.no_grad():
            form.run(pack)

    def both() -> None:
        torch.autograd.grad(form.run(pack), leaves, direction, allow_unused=True)

    return dict(zip(PASSES, (forward, both), strict=True))


def measure_pack(forms: list[str], dtype: str, pack_name: str, *, clock: Clock, options: argparse.Namespace):
    """What the JSON file holds of one pack: a row for each form and pass."""
    shape, lengths = (options.heads, options.head_dim), options.packs[pack_name]
    pack = make_pack(lengths, *shape, dtype=DTYPES[dtype], device=clock.device)
    moved = moved_bytes(lengths, *shape, itemsize=DTYPES[dtype].itemsize)
    by_form = {name: calls_of(FORMS[name], pack) for name in forms}
    rows = []
    for direction in PASSES:
        calls = {name: calls[direction] for name, calls in by_form.items()}
        for name, timing in time_interleaved(calls, clock, seconds=options.seconds, repeats=options.repeats).items():
            row = {"dtype": dtype, "pack": pack_name, "pass": direction, "form": name, "seconds": timing.seconds}
            row |= {"median_ms": 1000 * timing.median, "text": timing.text}
            rows.append(row | {"bytes_per_second": moved[direction] / timing.median if name == "triton" else None})
    return rows


def measure(report: harness.Report, options: argparse.Namespace) -> list[dict]:
    """Checks and times everything, prints it, and gives all rows of all packs."""
    device, times = torch.device(options.device), []
    clock = Clock(device)
    bandwidth = copy_bandwidth(clock)
    report.line(f"a copy reads and writes {bandwidth / 1e9:.0f} GB/s here")
    report.content |= {"copy_bytes_per_second": bandwidth, "checks": {}, "times": times}
    for dtype in options.dtypes:
        checked = make_pack(options.checked, options.heads, options.head_dim, dtype=DTYPES[dtype], device=device)
        errors: dict[str, dict[str, float]] = {}
        faults = {name: fault(name, dtype, checked, errors) for name in options.forms}
        report.content["checks"][dtype] = {"errors": errors, "faults": faults}
        columns = ("form", "errors by norm against float64", "timed")
        cells = [
            (
                name,
                ", ".join(f"{tensor} {error:.0e}" for tensor, error in errors.get(name, {}).items()),
                reason or "yes",
            )
            for name, reason in faults.items()
        ]
        report.table(f"{dtype}: allowed is {TOLERANCE[dtype]:.0e}", columns, cells)
        right = [name for name, reason in faults.items() if reason is None]
        for pack_name in options.packs:
            rows = measure_pack(right, dtype, pack_name, clock=clock, options=options)
            show_times(report, f"{dtype}, {pack_name}", rows, bandwidth)
            times += rows
    return times


def show_times(report: harness.Report, title: str, rows: list[dict], bandwidth: float) -> None:
    """Prints the times of one pack."""
    cells = {row["form"]: [row["form"]] for row in rows}
    for row in rows:
        rate = row["bytes_per_second"]
        share = f", {rate / 1e9:.0f} GB/s, {rate / bandwidth:.0%} of a copy" if rate else ""
        cells[row["form"]].append(row["text"] + share)
    report.table(title, ["ms: best / median / worst", *PASSES], list(cells.values()))


def draw(times: list[dict], file: Path, title: str) -> None:
    """Draws the times as a grid of bars, a row for each dtype and pass, a column for each pack, and saves it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    packs, forms = (list(dict.fromkeys(row[key] for row in times)) for key in ("pack", "form"))
    lines = list(dict.fromkeys((row["dtype"], row["pass"]) for row in times))
    size = (1.6 + 2.2 * len(packs), 1.0 + len(lines) * (0.8 + 0.2 * len(forms)))
    figure, axes = pyplot.subplots(len(lines), len(packs), figsize=size, squeeze=False, sharey=True)
    for (dtype, direction), line in zip(lines, axes, strict=True):
        for pack, axis in zip(packs, line, strict=True):
            for row in (row for row in times if (row["dtype"], row["pass"], row["pack"]) == (dtype, direction, pack)):
                bar = axis.barh(row["form"], row["median_ms"], color=f"C{forms.index(row['form']) % 10}")
                axis.bar_label(bar, labels=[f"{row['median_ms']:.3g}"], padding=2, fontsize=7)
            axis.set_title(f"{pack}\n{dtype}, {direction}", fontsize=8)
            axis.margins(x=0.3)
            axis.tick_params(labelsize=7)
            axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].invert_yaxis()  # of all, since they share it
    figure.supxlabel("median milliseconds", fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line, with what follows from them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES))
    parser.add_argument("--packs", nargs="+", choices=[*PACKS, "all"])
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), default=list(FORMS))
    parser.add_argument("--heads", type=int, default=20)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=50, help="timed runs of a form at most")
    parser.add_argument("--seconds", type=float, default=2.0, help="time after which a form is not run again")
    parser.add_argument("--out", type=Path, help="folder for linear_attention.json and linear_attention.png")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes and two repeats: does it run, in seconds")
    options = parser.parse_args(arguments)
    on_gpu = torch.device(options.device).type == "cuda"
    names = list(PACKS) if options.packs == ["all"] or (on_gpu and not options.packs) else options.packs or CPU_PACKS
    options.packs, options.checked = {name: PACKS[name] for name in names}, CHECKED
    options.dtypes = options.dtypes or (["bfloat16", "float16", "float32"] if on_gpu else ["float32", "bfloat16"])
    if options.smoke:
        options.packs, options.checked, options.repeats = SMOKE_PACKS, SMOKE_CHECKED, 2
        options.heads, options.head_dim = 2, 32
    options.json = None if options.out is None else options.out / "linear_attention.json"
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints, and writes what was asked for."""
    options = parse(arguments)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"a CPU, {torch.get_num_threads()} threads"
    title = f"Attention of one layer, {options.heads} heads of {options.head_dim}, on {name}"
    report = harness.Report(title, options)
    if INTERPRETED:
        report.line("Triton kernels are interpreted on the CPU: their times mean nothing")
    times = measure(report, options)
    if options.out is not None and times:
        draw(times, options.out / "linear_attention.png", title)
    report.finish()


if __name__ == "__main__":
    main()
