"""Kill NUTS and `Fit.save` at random moments, and look at what is left: ``python benchmarks/kill_nuts.py 50``.

Every kill is SIGKILL to a process of its own, forked from one that only looks on. A chain's draws depend on the seed
alone, so what a killed run left must be, bit for bit, the beginning of what the same run draws when nobody kills it. A
run is killed up to three times and resumed; at its end it must still begin with what each kill left, and its means must
agree with the uninterrupted ones.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a process that forks should have no threads

import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

import bayesmix as bm

DRAWS, TUNE, CHAINS = 400, 200, 3
#: So many that draws take seconds, though steps do not pass through Python.
ROWS = 100_000
SPEC = bm.Mixture(bm.Composite(x=bm.Normal(), n=bm.Poisson()), 2)


def table() -> dict[str, np.ndarray]:
    """Two groups, well apart."""
    rng = np.random.default_rng(0)
    group = rng.integers(2, size=ROWS)
    return {"x": rng.normal(4.0 * group, 1.0), "n": rng.poisson(2 + 3 * group)}


def fit(**kwargs) -> bm.Fit:
    """The run that is killed."""
    warnings.simplefilter("ignore")
    settings = {} if "resume" in kwargs else {"draws": DRAWS, "tune": TUNE, "chains": CHAINS, "random_seed": 1}
    return bm.fit_nuts(SPEC, table(), log_likelihood=False, relabel=None, cores=2, n_starts=2, **settings, **kwargs)


def whole(**kwargs) -> bm.Fit:
    """A run that nobody kills."""
    os.waitpid(in_a_process(lambda: fit(**kwargs)), 0)
    return bm.load(kwargs.get("resume", kwargs.get("checkpoint")))


def in_a_process(work) -> int:
    """Its process id; the process ends when `work` does."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    finally:
        os._exit(0)


def over(pid: int) -> bool:
    """Whether a process has ended."""
    return os.waitpid(pid, os.WNOHANG)[0] == pid


def lengths(path: Path) -> list[int]:
    """Draws of each chain that are on the disk."""
    try:
        return [chain.sizes["draw"] for chain in bm.read_checkpoint(path).chains()] or [0] * CHAINS
    except FileNotFoundError:
        return [0] * CHAINS


def draws_of(path: Path) -> list[dict[str, np.ndarray]]:
    """Everything that each chain has."""
    return [{str(n): v.values for n, v in chain.data_vars.items()} for chain in bm.read_checkpoint(path).chains()]


def begins_with(whole: list, part: list) -> bool:
    """Whether chains begin, bit for bit, with others; statistics included."""
    return all(np.array_equal(w[n][: len(p[n])], p[n]) for w, p in zip(whole, part) for n in p)


def kill_runs(n_kills: int, folder: Path, rng: np.random.Generator) -> dict[str, float]:
    """Kill sampling `n_kills` times, once as many draws are on the disk as a random number says."""
    reference = whole(checkpoint=folder / "whole")
    never_killed = draws_of(folder / "whole")
    print(f"uninterrupted: {lengths(folder / 'whole')} draws", flush=True)
    found = {"kills": 0, "loadable": 0, "draws": 0, "lost": 0, "not drawn": 0, "finished": 0, "largest z": 0.0}
    number = runs = 0
    left_at = []
    while found["kills"] < n_kills:
        path, left, times = folder / f"run{number}", None, int(rng.integers(1, 4))
        number += 1
        for i in range(times):
            target = {"resume": path} if path.exists() else {"checkpoint": path}
            pid = in_a_process(lambda target=target: fit(**target))
            enough = rng.uniform(sum(lengths(path)), CHAINS * DRAWS)
            while sum(seen := lengths(path)) <= enough and not over(pid):
                time.sleep(rng.uniform(0, 0.02))
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                break
            if (path / "fit.zip").exists():
                break
            found["kills"] += 1
            loaded = bm.load(path)
            found["loadable"] += not loaded.status.complete and np.isfinite(loaded.params["x_mu"]).all()
            now = draws_of(path)
            left_at.append(sum(lengths(path)))
            found["draws"] += left_at[-1]
            found["lost"] += sum(max(0, a - b) for a, b in zip(seen, lengths(path)))
            # before the first resume all is as in the uninterrupted run; later what an earlier kill left is there
            right = begins_with(never_killed, now) if i == 0 else begins_with(now, left or [])
            found["not drawn"] += not right
            left = now
            if found["kills"] == n_kills:
                break
        if left is None:
            continue
        end, runs = whole(resume=path), runs + 1
        found["finished"] += end.status.complete
        found["not drawn"] += not begins_with(draws_of(path), left)
        found["largest z"] = np.maximum(found["largest z"], disagreement(end, reference))  # NaN stays NaN
        print(f"run {runs}: killed {left_at[-times:]}", flush=True)
    found["runs"] = runs
    found["killed before the last draw"] = sum(n < CHAINS * DRAWS for n in left_at)
    return found


def disagreement(one: bm.Fit, other: bm.Fit) -> float:
    """Largest difference of means, in its Monte-Carlo standard errors."""
    worst = 0.0
    for name in one.bound.free_slots:
        means = [f.posterior[name].mean(("chain", "draw")).values for f in (one, other)]
        error = np.hypot(_mcse(one, name), _mcse(other, name))
        worst = np.maximum(worst, np.max(np.abs(means[0] - means[1]) / error))
    return float(worst)


def _mcse(fit: bm.Fit, name: str) -> np.ndarray:
    import arviz_stats as azs

    ess = azs.ess(fit.posterior[[name]], method="mean")[name].values
    return fit.posterior[name].std(("chain", "draw")).values / np.sqrt(ess)


def kill_early(n_kills: int, folder: Path, rng: np.random.Generator) -> int:
    """Kill at any moment, before the first draw too: how often what is left loads, or says that there is no draw."""
    right = 0
    for number in range(n_kills):
        path = folder / f"early{number}"
        pid = in_a_process(lambda path=path: fit(checkpoint=path))
        time.sleep(rng.uniform(0, 2))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        try:
            bm.load(path)
            right += 1
        except FileNotFoundError:
            right += 1
        except bm.DataError as error:
            right += "no draw" in str(error)
    return right


def kill_saves(n_kills: int, folder: Path, rng: np.random.Generator) -> int:
    """Kill saving over an earlier file: how often one of two fits is there, whole."""
    path, right = folder / "saved.zip", 0

    def make() -> None:
        for n in (1000, 2000):
            part = {name: column[:n] for name, column in table().items()}
            bm.fit_em(SPEC, part, n_starts=1, random_seed=1).save(folder / f"{n}.zip")

    os.waitpid(in_a_process(make), 0)
    fits = [bm.load(folder / f"{n}.zip") for n in (1000, 2000)]
    fits[0].save(path)

    def work() -> None:
        while True:
            for each in fits:
                each.save(path)

    for _ in range(n_kills):
        pid = in_a_process(work)
        time.sleep(rng.uniform(0, 0.3))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        loaded = bm.load(path)
        right += any(
            loaded.loglik == each.loglik and all(np.array_equal(loaded.params[n], v) for n, v in each.params.items())
            for each in fits
        )
    return right


def main(n_kills: int) -> bool:
    """Print what was found; whether all is well."""
    rng = np.random.default_rng(n_kills)
    with tempfile.TemporaryDirectory() as name:
        runs = kill_runs(n_kills, Path(name), rng)
        early = kill_early(max(3, n_kills // 5), Path(name), rng)
        saves = kill_saves(n_kills, Path(name), rng)
    for what, value in runs.items():
        print(f"{what}: {value:g}")
    print(f"killed early, and right: {early} of {max(3, n_kills // 5)}")
    print(f"killed while saving, and one whole fit there: {saves} of {n_kills}")
    good = runs["loadable"] == runs["kills"] == n_kills and runs["lost"] == runs["not drawn"] == 0
    good = good and runs["finished"] == runs["runs"] and runs["largest z"] < 5
    return good and early == max(3, n_kills // 5) and saves == n_kills


if __name__ == "__main__":
    sys.exit(not main(int(sys.argv[1]) if len(sys.argv) > 1 else 50))
