"""Tables larger than memory, and EM on a cluster: time, memory, and whether the result is the same.

    python benchmarks/large.py linear [--most 1e8]    one fit each of 1e5, 1e6, … rows: time of a pass, peak memory
    python benchmarks/large.py reread [--most 1e8]    a pass that reads all rows again, of each number of rows
    python benchmarks/large.py dask [--rows 1e6] [--runs 10]    a worker is killed in the middle of each run
    python benchmarks/large.py overhead [--rows 1e7]    a pass on two workers beside a pass of two threads

Rows are Normal + Poisson + Categorical of five groups, written to Parquet in a temporary folder (`--folder`), about 17
bytes a row, which is removed in the end. Each fit of `linear` runs in a process of its own, whose peak memory is what
the operating system says. Figures go to docs/benchmarks/large.json, and docs/benchmarks/large.md is made from all that
it holds. On two quiet cores `linear` takes about 45 minutes to 1e8 rows (to 1e7: 5), `dask` 5 and `overhead` 5.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import bayesmix as bm
from bayesmix.chunked import ChunkedEStep, learn
from bayesmix.inference.start import initial_params
from bayesmix.sources import source_of

DOCS = Path(__file__).parent.parent / "docs" / "benchmarks"
SPEC = bm.Mixture(bm.Composite(x=bm.Normal(), y=bm.Poisson(), s=bm.Categorical()), 5)
MEANS, RATES = np.array([-8.0, -3.0, 0.0, 4.0, 9.0]), np.array([1.0, 4.0, 9.0, 20.0, 2.0])
AT_ONCE = 2**20


def generate(path: Path, n_rows: int) -> Path:
    """Write rows in groups of 2^18, some at a time."""
    rng = np.random.default_rng(0)
    symbols = pa.array(list("abcdefg"))
    writer = None
    for begin in range(0, n_rows, AT_ONCE):
        z = rng.integers(0, 5, min(AT_ONCE, n_rows - begin))
        codes = pa.array(((z + rng.integers(0, 3, len(z))) % 7).astype(np.int32))
        x, y = rng.normal(MEANS[z], 1), rng.poisson(RATES[z])
        table = pa.table({"x": x, "y": y, "s": pa.DictionaryArray.from_arrays(codes, symbols)})
        writer = writer or pq.ParquetWriter(path, table.schema, compression="none", use_dictionary=["s"])
        writer.write_table(table, row_group_size=2**18)
    writer.close()
    return path


def raw_read(path: Path) -> float:
    """Seconds to decode the file, on one thread."""
    begin = time.perf_counter()
    for _ in pq.ParquetFile(path).iter_batches(2**18, use_threads=False):
        pass
    return time.perf_counter() - begin


def peak() -> float:
    """MiB that this process had at most; ``ru_maxrss`` would begin with what its parent had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def fit_one(path: str, n_jobs: int) -> dict[str, float]:
    """Fit a file in constant memory, and say what it took."""
    before, passes = peak(), []
    whole = ChunkedEStep.__call__

    def timed(self, params):
        begin = time.perf_counter()
        found = whole(self, params)
        passes.append(time.perf_counter() - begin)
        return found

    ChunkedEStep.__call__ = timed
    begin = time.perf_counter()
    fit = bm.fit_em(SPEC, path, n_starts=2, n_jobs=n_jobs, random_seed=1)
    total = time.perf_counter() - begin
    order = np.argsort(fit.params["x_mu"])
    error = np.abs(fit.params["x_mu"][order] - MEANS).max()
    return {
        "total": total, "passes": len(passes), "pass": float(np.median(passes)), "peak": peak(), "before": before,
        "per_row": fit.loglik / pq.ParquetFile(path).metadata.num_rows, "error": float(error),
        "converged": fit.status.converged,
    }  # fmt: skip


def linear(options: argparse.Namespace, folder: Path) -> None:
    for n_rows in (10**k for k in range(5, 10) if 10**k <= options.most):
        path = generate(folder / f"{n_rows}.parquet", n_rows)
        read = min(raw_read(path) for _ in range(2))
        command = [sys.executable, __file__, "one", str(path), "--jobs", str(options.jobs)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        record("linear", str(n_rows), {**found, "read": read, "file": path.stat().st_size / 2**20})
        path.unlink()


def reread(options: argparse.Namespace, folder: Path) -> None:
    """Passes of which each reads every row again, as all do where rows are more than `memory=` holds."""
    for n_rows in (10**k for k in range(5, 10) if 10**k <= options.most):
        path = generate(folder / f"{n_rows}.parquet", n_rows)
        e_step = ChunkedEStep(learn(SPEC, source_of(str(path)), None, options.jobs), options.jobs, memory=0)
        params = initial_params(e_step.bound, e_step.data, e_step.row_weights, np.random.default_rng(0), 0)
        seconds = []
        for _ in range(5):
            begin = time.perf_counter()
            e_step(params)
            seconds.append(time.perf_counter() - begin)
        read = min(raw_read(path) for _ in range(2))
        record("reread", str(n_rows), {"pass": float(np.median(seconds[1:])), "read": read})
        path.unlink()


def dask(options: argparse.Namespace, folder: Path) -> None:
    import distributed

    import bayesmix.dask

    path = str(generate(folder / "rows.parquet", int(options.rows)))
    local = bm.fit_em(SPEC, path, n_starts=2, tol=1e-10, memory="8 GiB", random_seed=1)
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50)
    worst = {"loglik": 0.0, "parameter": 0.0}
    killed, seconds = 0, []
    with cluster, distributed.Client(cluster) as client:
        whole = bayesmix.dask.DaskEStep.__call__
        for run in range(int(options.runs)):
            client.wait_for_workers(2)
            victim = list(client.run(os.getpid).values())[run % 2]
            passes: list[int] = []

            def killing(self, params, passes=passes, victim=victim, run=run):
                passes.append(1)
                if len(passes) == 4 + run:  # in the middle of a pass
                    threading.Timer(0.05, os.kill, (victim, 9)).start()
                return whole(self, params)

            bayesmix.dask.DaskEStep.__call__ = killing
            begin = time.perf_counter()
            fit = bayesmix.dask.fit_em(SPEC, path, client=client, n_starts=2, tol=1e-10, random_seed=1)
            seconds.append(time.perf_counter() - begin)
            bayesmix.dask.DaskEStep.__call__ = whole
            client.wait_for_workers(2)
            killed += victim not in client.run(os.getpid).values()
            worst["loglik"] = max(worst["loglik"], abs(fit.loglik / local.loglik - 1))
            for name, value in local.params.items():
                own = float(np.abs(fit.params[name] / value - 1).max())
                worst["parameter"] = max(worst["parameter"], own)
            print(run, worst, f"{seconds[-1]:.1f} s")
    result = {"runs": int(options.runs), "killed": killed, "seconds": float(np.median(seconds)), **worst}
    record("dask", str(int(options.rows)), result)


def overhead(options: argparse.Namespace, folder: Path) -> None:
    """A pass over rows that are kept, by threads and by workers; the median of many in turn."""
    import distributed

    from bayesmix.dask import DaskEStep, _shared_out

    path = str(generate(folder / "rows.parquet", int(options.rows)))
    rows = learn(SPEC, source_of(path))
    threads = ChunkedEStep(rows, n_jobs=2, memory="8 GiB")
    params = initial_params(rows.bound, threads.data, threads.row_weights, np.random.default_rng(0), 0)
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50)
    with cluster, distributed.Client(cluster) as client:
        workers = DaskEStep(rows, client, _shared_out(rows.source.parts, client))
        times: dict[str, list[float]] = {"threads": [], "workers": []}
        for _ in range(16):
            for name, e_step in (("threads", threads), ("workers", workers)):
                begin = time.perf_counter()
                loglik = e_step(params)[0]
                times[name].append(time.perf_counter() - begin)
        assert abs(loglik / threads(params)[0] - 1) < 1e-12
    found = {name: float(np.median(own[1:])) for name, own in times.items()}
    record("overhead", str(int(options.rows)), {**found, "overhead": found["workers"] / found["threads"] - 1})


def record(kind: str, key: str, result: dict) -> None:
    """Keep a result, and write the page anew."""
    path = DOCS / "large.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known.setdefault(kind, {})[key] = {name: _short(value) for name, value in result.items()}
    path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    (DOCS / "large.md").write_text(page(known))
    print(kind, key, known[kind][key])


def _short(value):
    return float(f"{value:.4g}") if isinstance(value, float) else value


def page(known: dict) -> str:
    lines = [
        "# Large tables",
        "",
        "Made by `benchmarks/large.py` on two cores, from rows of a normal, a Poisson and a categorical field in five "
        "groups.\nSee [how to](../how_to/large_data.md) for what to use when.",
    ]
    if known.get("linear"):
        lines += [
            "",
            "## A Parquet file in constant memory",
            "",
            "`fit_em` with two starts, two threads and the default `memory=`, each in a process of its own. A pass",
            "reads, encodes and lays out rows that do not fit into `memory=`, and runs the E-step; raw read is Arrow",
            "decoding the file on one thread. Peak memory is the whole process's, with what it had before.",
            "",
            "| rows | file, MiB | raw read, s | a pass, s | passes | fit, s | peak memory, MiB | before, MiB |",
            "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for n, r in sorted(known["linear"].items(), key=lambda pair: int(pair[0])):
            lines.append(
                f"| {int(n):,} | {r['file']:.1f} | {r['read']:.3g} | {r['pass']:.3g} | {r['passes']} | "
                f"{r['total']:.3g} | {r['peak']:.0f} | {r['before']:.0f} |"
            )
    if known.get("reread"):
        lines += [
            "",
            "A pass without memory for rows, so that each reads, encodes and lays out all of them:",
            "",
            "| rows | raw read, s | a pass, s | ns a row |",
            "| ---: | ---: | ---: | ---: |",
        ]
        for n, r in sorted(known["reread"].items(), key=lambda pair: int(pair[0])):
            lines.append(f"| {int(n):,} | {r['read']:.3g} | {r['pass']:.3g} | {1e9 * r['pass'] / int(n):.0f} |")
    if known.get("dask"):
        lines += [
            "",
            "## A cluster that loses workers",
            "",
            "`bayesmix.dask.fit_em` on a `LocalCluster` of two workers beside `fit_em`; in each run a worker is killed",
            "in the middle of a pass. Largest relative differences.",
            "",
            "| rows | runs | workers killed | log-likelihood | a parameter | a run, s |",
            "| ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for n, r in sorted(known["dask"].items(), key=lambda pair: int(pair[0])):
            lines.append(
                f"| {int(n):,} | {r['runs']} | {r['killed']} | {r['loglik']:.1e} | {r['parameter']:.1e} | "
                f"{r['seconds']:.3g} |"
            )
    if known.get("overhead"):
        lines += [
            "",
            "## Workers beside threads",
            "",
            "A pass over rows that are kept in memory: two workers of a `LocalCluster`, and two threads.",
            "",
            "| rows | threads, s | workers, s | overhead |",
            "| ---: | ---: | ---: | ---: |",
        ]
        for n, r in sorted(known["overhead"].items(), key=lambda pair: int(pair[0])):
            lines.append(f"| {int(n):,} | {r['threads']:.3g} | {r['workers']:.3g} | {100 * r['overhead']:.0f} % |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("linear", "reread", "dask", "overhead"):
        one = commands.add_parser(name)
        one.add_argument("--folder", default=None)
        one.add_argument("--rows", type=float, default=1e7 if name == "overhead" else 1e6)
        one.add_argument("--runs", type=int, default=10)
        one.add_argument("--most", type=float, default=1e8)
        one.add_argument("--jobs", type=int, default=2)
    one = commands.add_parser("one")
    one.add_argument("path")
    one.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    warnings.simplefilter("ignore", bm.BayesmixWarning)
    if options.command == "one":
        print(json.dumps(fit_one(options.path, options.jobs)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        studies = {"linear": linear, "reread": reread, "dask": dask, "overhead": overhead}
        studies[options.command](options, Path(folder))


if __name__ == "__main__":
    main()
