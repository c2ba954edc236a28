"""Everything that needs a CUDA device, in one run of under eight minutes: tests, agreement with independent counters,
repeatability, proof of kernels, FlashAttention on and off. Writes `profiles/measured/<gpu>.csv`.

    python benchmarks/gpu.py                              # on a machine with a GPU
    python benchmarks/gpu.py --device cpu --quick --out F # anywhere: tiny models, nothing is judged
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profile_csv import write_csv

from luma_cli.catalogue.names import resolve
from luma_cli.measure import sweep
from luma_cli.measure.attention import backends_by_kernel, backends_by_operator
from luma_cli.measure.timing import median
from luma_cli.store.records import Configuration, Metric, Profile

ROOT = Path(__file__).resolve().parent.parent
LONGEST_SECONDS = 480


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a run is."""

    attending: tuple[str, ...]  # backbones for FlashAttention on and off; the first is also run twice
    batches: dict[int, int]  # resolution -> batch
    attentions: tuple[str, ...]
    dtype: str
    max_seconds: float
    energy_seconds: float


FULL = Scale(
    ("vit_base_patch16_224", "swin_base_patch4_window7_224", "convnext_base"),
    {512: 32, 1024: 8},
    ("flash", "unfused"),
    "bfloat16",
    3.0,
    10.0,
)
QUICK = Scale(("test_vit", "test_convnext"), {64: 2}, ("math", "unfused"), "float32", 0.3, 0.0)


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report; `passed` is None where nothing can be judged."""

    name: str
    passed: bool | None
    detail: str

    def __str__(self) -> str:
        verdict = {True: "pass", False: "FAIL", None: "-"}[self.passed]
        return f"{verdict:5} {self.name}: {self.detail}"


class Bench:
    """The run: its device, its scale and the profiles that it has made so far."""

    def __init__(self, device: str, scale: Scale):
        self.device = device
        self.scale = scale
        self.judges = device != "cpu"
        self.profiles: list[Profile] = []

    def profile(self, name: str, resolution: int, *, energy: bool = False, **fields: Any) -> Profile:
        """Measure one configuration in a fresh process and keep it."""
        template = sweep.template(device=self.device, dtype=self.scale.dtype, **fields)
        settings = sweep.SweepSettings(
            device=self.device,
            again="all",
            timeout_seconds=180,
            max_seconds=self.scale.max_seconds,
            energy_seconds=self.scale.energy_seconds if energy else 0.0,
        )
        (found,) = sweep.measure_all(sweep.plan([resolve(name)], [resolution], template), settings)
        self.profiles.append(found)
        rate = found.metrics.get("throughput")
        shown = f"{rate.median:.1f} images/s" if rate else found.reason
        print(f"      {name}@{resolution} {found.configuration.attention}: {found.status}, {shown}", flush=True)
        return found

    def within(self, name: str, ratio: float, tolerance: float, detail: str) -> Check:
        """A check that a ratio is near one."""
        passed = abs(ratio - 1) <= tolerance if self.judges else None
        return Check(name, passed, f"{detail}, ratio {ratio:.4f} (within {tolerance:.0%} asked)")


def flash_on_and_off(bench: Bench) -> Iterator[Check]:
    """Attention switched on and off at every size, A B A B for the first backbone; its repeats must agree."""
    on, off = bench.scale.attentions
    for position, name in enumerate(bench.scale.attending):
        for resolution, batch in bench.scale.batches.items():
            rounds = 2 if position == 0 else 1
            runs = [
                (kind, bench.profile(name, resolution, batch=batch, attention=kind))
                for _ in range(rounds)
                for kind in (on, off)
            ]
            pairs = [(runs[i][1], runs[i + 1][1]) for i in range(0, len(runs), 2)]
            yield _on_off(bench, f"{on} against {off}, {name}@{resolution}", pairs)
            if rounds == 2 and all(run.status == "ok" for _, run in runs):
                first, second = (pair[0].metrics["throughput"].median for pair in pairs)
                detail = f"{first:.1f} and {second:.1f} images/s"
                yield bench.within(f"two fresh runs, {name}@{resolution}", second / first, 0.02, detail)


def _on_off(bench: Bench, name: str, pairs: list[tuple[Profile, Profile]]) -> Check:
    """What switching attention on does; where it cannot be switched on, why."""
    inapplicable = [on.reason for on, _ in pairs if on.status == "not_applicable"]
    if inapplicable:
        return Check(name, None, f"not applicable: {inapplicable[0]}")
    if any(side.status != "ok" for pair in pairs for side in pair):
        return Check(name, False, "; ".join(side.reason for pair in pairs for side in pair if side.reason))
    verdicts = [_verdict(on.metrics["throughput"], off.metrics["throughput"]) for on, off in pairs]
    ratios = [on.metrics["throughput"].median / off.metrics["throughput"].median for on, off in pairs]
    agreed = verdicts[0] if len(set(verdicts)) == 1 else "AMBIGUOUS"
    return Check(name, None, f"{agreed}, {median(ratios):.2f}x the throughput")


def _verdict(on: Metric, off: Metric) -> str:
    """Whether `on` is faster: only when the intervals do not overlap."""
    if on.ci_low <= off.ci_high and off.ci_low <= on.ci_high:
        return "AMBIGUOUS"
    return "FASTER" if on.ci_low > off.ci_high else "SLOWER"


def kernel_proof(bench: Bench) -> Iterator[Check]:
    """The kernels that ran are of the backend that was asked for."""
    kinds = ("flash", "efficient", "cudnn", "math") if bench.judges else ("math",)
    specs, resolution = [resolve(bench.scale.attending[0])], min(bench.scale.batches)
    templates = [
        sweep.template(device=bench.device, dtype=bench.scale.dtype, batch=1, attention=kind) for kind in kinds
    ]
    planned = [c for template in templates for c in sweep.plan(specs, [resolution], template)]
    # One process for all: its times are not used, nor are its rows kept.
    settings = sweep.SweepSettings(
        device=bench.device, isolation="backbone", timeout_seconds=180, max_seconds=0.1, energy_seconds=0.0
    )
    for kind, found in zip(kinds, sweep.measure_all(planned, settings), strict=True):
        yield kernel_check(kind, found, on_device=bench.judges)


def kernel_check(kind: str, found: Profile, *, on_device: bool) -> Check:
    """Whether the backend that was asked for ran, and no other; undecided where it cannot run."""
    if found.status != "ok":
        return Check(f"kernels of {kind}", None if found.status == "not_applicable" else False, found.reason)
    names = found.notes["attention_kernels"]
    passed = backends_by_operator(names) == {kind}
    if on_device:
        passed = passed and backends_by_kernel(names) == ({kind} - {"math"})
    return Check(f"kernels of {kind}", passed, ", ".join([*names["kernels"], *names["operators"]])[:200] or "none")


def full_row(bench: Bench) -> Iterator[Check]:
    """One configuration with everything: batch search, CUDA graph, energy."""
    found = bench.profile(bench.scale.attending[0], min(bench.scale.batches), energy=True)
    wanted = {"throughput", "latency_eager", "memory_allocated", "memory_device"}
    if bench.judges:
        wanted |= {"latency_cuda_graph", "memory_reserved", "energy"}
    missing = sorted(wanted - set(found.metrics))
    shown = f"batch {found.batch}, {len(found.notes.get('batch_search', {}).get('trials', []))} batches tried"
    yield Check(
        "a whole row", found.status == "ok" and not missing, found.reason or f"{shown}, missing: {missing or 'none'}"
    )


def against_plain_loop(bench: Bench) -> Iterator[Check]:
    """Throughput against the loop of timm's benchmark script, same model, same batch, taken in turns."""
    import torch

    from luma_cli.measure.accelerator import Cpu, Cuda
    from luma_cli.measure.devices import find
    from luma_cli.measure.session import MeasuredPart

    accelerator = Cuda(find(bench.device).uuid) if bench.judges else Cpu()
    resolution, batch = next(iter(bench.scale.batches.items()))
    name = bench.scale.attending[0]
    configuration = Configuration(name, name, resolution, dtype=bench.scale.dtype, device=bench.device)
    subject = MeasuredPart(configuration, accelerator.torch_device)
    with torch.inference_mode():
        ours, theirs = rates(bench, subject.caller(batch), accelerator, batch)
        detail = f"{ours:.1f} against {theirs:.1f} images/s"
        yield bench.within(f"host-clock loop, {name}@{resolution} batch {batch}", ours / theirs, 0.03, detail)
        # By now the inputs of the loops are gone: the worker held none of them when it read its memory.
        yield from memory_against_torch(bench, subject, accelerator, batch)


def rates(bench: Bench, call: Callable[[int], object], accelerator: Any, batch: int) -> tuple[float, float]:
    """Median images/s by our rules and by the plain loop, three times each, in turns."""
    from luma_cli.measure.timing import Rule, measure

    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(3):
        samples = measure(call, accelerator.stopwatch(), Rule(max_seconds=bench.scale.max_seconds))
        ours.append(batch / median(samples.seconds))
        theirs.append(batch / plain_loop(lambda: call(0), accelerator.synchronize, 10, 40 if bench.judges else 10))
    return median(ours), median(theirs)


def plain_loop(call: Callable[[], object], synchronize: Callable[[], None], num_warm: int, num_steps: int) -> float:
    """Mean seconds per step by the host's clock with a wait after every step, as timm's benchmark script defines it."""
    for _ in range(num_warm):
        call()
    synchronize()
    total = 0.0
    for _ in range(num_steps):
        start = time.perf_counter()
        call()
        synchronize()
        total += time.perf_counter() - start
    return total / num_steps


def memory_against_torch(bench: Bench, subject: Any, accelerator: Any, batch: int) -> Iterator[Check]:
    """The worker's allocated bytes against torch's counter, read here for the same call."""
    if not bench.judges:
        yield Check("memory against torch's counter", None, "needs CUDA")
        return
    import torch

    name = subject._configuration.backbone
    resolution = subject._configuration.resolution
    found = next(
        p
        for p in bench.profiles
        if p.status == "ok"
        and p.configuration.backbone == name
        and p.configuration.resolution == resolution
        and p.configuration.attention == "flash"
        and p.batch == batch
    )
    call = subject.caller(batch, 1)
    call(0)
    accelerator.release()
    torch.cuda.reset_peak_memory_stats()
    call(0)
    torch.cuda.synchronize()
    here = torch.cuda.max_memory_allocated()
    there = found.metrics["memory_allocated_plateau"].median
    detail = f"{there / 2**20:.0f} MiB in the worker, {here / 2**20:.0f} MiB here"
    yield bench.within("memory against torch's counter", there / here, 0.02, detail)


def gpu_tests(bench: Bench) -> Iterator[Check]:
    """The tests that are marked `gpu`; on the CPU they are all skipped."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-o",
        "addopts=--strict-markers",
        "-m",
        "gpu",
        str(ROOT / "tests" / "test_gpu.py"),
        str(ROOT / "tests" / "test_gpu_training.py"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    last = (done.stdout.strip().splitlines() or ["no output"])[-1].strip()
    if done.returncode:
        print(done.stdout[-4000:])
    skipped_right = bench.judges or "skipped" in last
    yield Check("GPU tests", done.returncode == 0 and skipped_right, last)


def other_benchmarks(bench: Bench) -> Iterator[Check]:
    """The benchmarks of heads, ways to compute the head, experts and training, each in a process of its own."""
    on = ["--device", bench.device]
    commands: dict[str, list[str]] = {
        "heads.py": [*on, "--sizes", "s", "b", "--pairs", "7", "--dtype", "bfloat16"] if bench.judges else ["--quick"],
        "head_paths.py": on if bench.judges else ["--width", "64", "--resolution", "64", "--pairs", "3"],
        "moe.py": on if bench.judges else ["--size", "tiny", "--pairs", "3", "--batch", "1"],
        "train.py": [*on, "--size", "b", "--res", "512", "--batch", "16"] if bench.judges else ["--quick"],
    }
    for name, options in commands.items():
        command = [sys.executable, str(ROOT / "benchmarks" / name), *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        print(done.stdout, flush=True)
        last = ((done.stdout + done.stderr).strip().splitlines() or ["no output"])[-1].strip()
        yield Check(name, done.returncode == 0 if bench.judges else None, last[:200])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny models, seconds instead of minutes")
    parser.add_argument(
        "--out", type=Path, help="folder for the CSV; default profiles/measured for a GPU, none for the CPU"
    )
    options = parser.parse_args(arguments)
    bench = Bench(options.device, QUICK if options.quick else FULL)
    start = time.monotonic()
    checks: list[Check] = []
    # What needs CUDA in this process comes last: until then the workers have the GPU to themselves.
    for step in (gpu_tests, flash_on_and_off, kernel_proof, full_row, other_benchmarks, against_plain_loop):
        for check in step(bench):
            checks.append(check)
            print(check, flush=True)
    folder = options.out or (ROOT / "profiles" / "measured" if bench.judges else None)
    if folder is not None:
        device = str(bench.profiles[0].environment.identity["device_name"])
        path = folder / f"{re.sub(r'[^a-z0-9]+', '_', device.lower()).strip('_')}.csv"
        write_csv(bench.profiles, path)
        print(f"wrote {len(bench.profiles)} rows to {path}")
    elapsed = time.monotonic() - start
    in_time = elapsed < LONGEST_SECONDS if bench.judges else None
    checks.append(Check("time", in_time, f"{elapsed:.0f} s (less than {LONGEST_SECONDS} s asked)"))
    print(checks[-1])
    failed = sum(check.passed is False for check in checks)
    print(f"{len(checks)} checks, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
