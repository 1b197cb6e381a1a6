"""bayesmix and its peers side by side: `make bench`, or for some of it

    python benchmarks/run.py [--report] [names of experiments]

Every library runs in a process, and where it must in an environment, of its own (`build/bench-envs`, made when first
needed from `benchmarks/requirements-*.txt`); each loads the same case. Then the driver asks them in turn, round after
round, for one step (EM iterations: as many as take a quarter of a second), so that what else the machine does falls on
all alike. One thread each, unless a row says more.

Log-likelihoods at the common start must agree to 1e-9, or the row is not reported. The results go to
`docs/benchmarks/results.json`, the table and the plot beside it; experiments that are not run keep what they were.
"""

from __future__ import annotations

import json
import os
import pickle
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cases
import report

ROOT = Path(__file__).parents[1]
WORKERS = Path(__file__).parent / "workers"
ENVIRONMENTS = ROOT / "build" / "bench-envs"
RESULTS = ROOT / "docs" / "benchmarks" / "results.json"
THREADS = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA", "NUMEXPR", "RAYON")}
THREADS["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Worker:
    """A library: its script, the environment that it needs (None: ours), and what the script is asked for."""

    name: str
    script: str
    task: str
    environment: str | None = None
    variables: dict[str, str] = field(default_factory=dict)


def ours(task: str, name: str = "bayesmix") -> Worker:
    return Worker(name, "ours.py", task)


SKLEARN = Worker("scikit-learn", "sklearn_em.py", "em")
# its kernels for these models are numpy's alone; compiling the others takes a minute
DMX = Worker("DMLearn", "records.py", "em", "dmx-learn", {"NUMBA_DISABLE_JIT": "1"})
MIXLE = Worker("mixle", "records.py", "em", "mixle")
STEPMIX = Worker("StepMix", "stepmix_lca.py", "em", "stepmix")


def pymc(task: str) -> Worker:
    return Worker("PyMC + nutpie" if task == "nuts" else "PyMC", "pymc_mixture.py", task)


def numpyro(task: str) -> Worker:
    return Worker("numpyro", "numpyro_mixture.py", task, "numpyro")


@dataclass(frozen=True)
class Experiment:
    """A case and who runs it; the first worker is ours. `goal`: how many times faster, by peer."""

    title: str
    case: Callable[[], cases.Case]
    workers: tuple[Worker, ...]
    goal: dict[str, float] = field(default_factory=dict)
    rounds: int = 7


ALL = (SKLEARN, DMX, MIXLE)
EXPERIMENTS: dict[str, Experiment] = {
    "normal": Experiment(
        "EM iteration, Normal, K = 2, 10⁶ rows",
        lambda: cases.normals(1_000_000, 2),
        (ours("em"), *ALL),
        {"scikit-learn": 25, "DMLearn": 60},
        15,
    ),
    "mvnormal": Experiment(
        "EM iteration, MvNormal, d = 10, K = 10, 10⁵ rows",
        lambda: cases.vectors(100_000, 10, 10),
        (ours("em"), *ALL),
        {"scikit-learn": 3, "DMLearn": 10},
        9,
    ),
    "composite": Experiment(
        "EM iteration, composite of four fields, K = 3, 10⁵ rows",
        lambda: cases.composite(100_000),
        (ours("em"), DMX, MIXLE),
        {"DMLearn": 200, "mixle": 100},
        5,
    ),
    "hierarchical": Experiment(
        "EM iteration, hierarchical, 10⁴ sequences of 5",
        lambda: cases.hierarchical(10_000, 5),
        (ours("em"), DMX, MIXLE),
        {"DMLearn": 10},
        15,
    ),
    "joint": Experiment(
        "EM iteration, joint, 10⁵ rows",
        lambda: cases.joint(100_000),
        (ours("em"), DMX, MIXLE),
        {"DMLearn": 10},
        9,
    ),
    "logp 100": Experiment(
        "logp + gradient, Normal, K = 3, 100 rows",
        lambda: cases.normals(100, 3),
        (ours("logp"), pymc("logp"), numpyro("logp")),
        {"PyMC": 1},
    ),
    "logp 20000": Experiment(
        "logp + gradient, Normal, K = 3, 20,000 rows",
        lambda: cases.normals(20_000, 3),
        (ours("logp"), pymc("logp"), numpyro("logp")),
        {"PyMC": 8},
    ),
    "logp 100000": Experiment(
        "logp + gradient, Normal, K = 10, 100,000 rows",
        lambda: cases.normals(100_000, 10),
        (ours("logp"), pymc("logp"), numpyro("logp")),
        {"PyMC": 25},
    ),
    "logp composite": Experiment(
        "logp + gradient, composite of four fields, 10⁴ rows",
        lambda: cases.composite(10_000),
        (ours("logp"), ours("logp_graph", "graph")),
        {"graph": 15},
    ),
    "nuts": Experiment(
        "NUTS, call to result, Normal, K = 3, 20,000 rows, 4 × (500 + 500)",
        lambda: cases.normals(20_000, 3),
        (ours("nuts"), pymc("nuts")),
        {"PyMC + nutpie": 4},
        3,
    ),
    "nuts numpyro": Experiment("the same", lambda: cases.normals(20_000, 3), (ours("nuts"), numpyro("nuts")), rounds=1),
    "latent classes": Experiment(
        "latent classes, call to result, 10 binary items, K = 4, 10⁶ rows",
        lambda: cases.binary_items(1_000_000),
        (ours("latent_classes"), STEPMIX),
        {"StepMix": 20},
        1,
    ),
    "passes": Experiment("passes to a gradient below 10⁻⁶", cases.waiting_times, (ours("passes"),), rounds=1),
    "million": Experiment(
        "NUTS, Normal, K = 3, 10⁶ rows, 2 × (500 + 500), two processors",
        lambda: {**cases.normals(1_000_000, 3), "n_starts": 2},
        (ours("nuts_two_chains"),),
        rounds=1,
    ),
    "ten million": Experiment(
        "EM iteration, Normal, K = 2, 10⁷ rows, two processors",
        lambda: cases.normals(10_000_000, 2),
        (ours("em_two_threads"),),
    ),
    "memory": Experiment("memory of a fit", lambda: cases.normals(1_000_000, 3), (ours("memory"),), rounds=1),
    "memory composite": Experiment("memory of a fit", lambda: cases.composite(100_000), (ours("memory"),), rounds=1),
}
for _family in ("Normal", "Poisson", "Categorical"):
    EXPERIMENTS[f"kernel {_family}"] = Experiment(
        f"kernel, {_family}, K = 10, 10⁵ rows",
        lambda f=_family: cases.one_family(f, 100_000),
        (ours("kernel"),),
        {},
        15,
    )
for _n in (1_000, 10_000, 100_000):
    EXPERIMENTS[f"rows {_n}"] = Experiment("rows", lambda n=_n: cases.normals(n, 2), (ours("em"), *ALL))
for _k in (2, 10, 30, 100):
    EXPERIMENTS[f"components {_k}"] = Experiment(
        "components", lambda k=_k: cases.normals(20_000, k), (ours("em"), *ALL), rounds=5
    )
for _d in (2, 5, 10, 20, 40):
    EXPERIMENTS[f"dimensions {_d}"] = Experiment(
        "dimensions", lambda d=_d: cases.vectors(20_000, d, 3), (ours("em"), *ALL), rounds=5
    )


# ------------------------------------------------------------ environments


def interpreter_of(environment: str | None) -> str:
    """The interpreter of an environment, which is made where it is missing. Raises `RuntimeError`."""
    if environment is None:
        return sys.executable
    folder = ENVIRONMENTS / environment
    python = folder / "bin" / "python"
    requirements = Path(__file__).parent / f"requirements-{environment}.txt"
    if not (folder / ".done").exists():
        version = requirements.read_text().split("\n")[0].removeprefix("# Python ").strip()
        base = _python(version)
        print(f"making {folder.relative_to(ROOT)} with Python {version}", flush=True)
        subprocess.run([base, "-m", "venv", "--clear", folder], check=True)
        done = subprocess.run(
            [python, "-m", "pip", "install", "-qq", "-r", requirements], capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{environment} does not install: {done.stderr.strip().splitlines()[-1]}")
        (folder / ".done").touch()
    return str(python)


def _python(version: str) -> str:
    variable = f"PYTHON{version.replace('.', '')}"
    code = "import sys; print('%d.%d' % sys.version_info[:2]); print(sys.executable)"
    for candidate in (os.environ.get(variable), f"python{version}", sys.executable):
        if candidate and shutil.which(candidate):
            # the checkout's own .python-version would have pyenv refuse the others
            environment = {**os.environ, "PYENV_VERSION": version}
            found = subprocess.run([candidate, "-c", code], capture_output=True, text=True, env=environment)
            if found.stdout.startswith(version + "\n"):
                return found.stdout.splitlines()[1]
    raise RuntimeError(f"no Python {version} on this machine; set {variable} to one")


# ------------------------------------------------------------ workers


class Running:
    """A worker's process with a case loaded."""

    def __init__(self, worker: Worker, path: Path):
        command = [interpreter_of(worker.environment), str(WORKERS / worker.script), worker.task, str(path)]
        variables = {**os.environ, **THREADS, **worker.variables}
        if worker.environment is None:
            variables["PYTHONPATH"] = str(ROOT)
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=variables
        )
        self.facts = self._answer()
        self.steps: list[dict[str, Any]] = []

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            raise RuntimeError((self.errors.read().strip().splitlines() or ["it ended without a word"])[-1])
        return json.loads(line)

    def step(self, keep: bool = True) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        found = self._answer()
        if keep:
            self.steps.append(found)

    def close(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.close()
        peak = self._answer()
        self.process.wait()
        return {**self.facts, **peak, "steps": self.steps}


def measure(name: str, experiment: Experiment) -> dict[str, Any]:
    """All workers of an experiment, step by step in turn."""
    found: dict[str, Any] = {"title": experiment.title, "goal": experiment.goal, "workers": {}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.pickle"
        path.write_bytes(pickle.dumps(experiment.case()))
        running: dict[str, Running] = {}
        for worker in experiment.workers:
            try:
                running[worker.name] = Running(worker, path)
            except RuntimeError as error:
                found["workers"][worker.name] = {"error": str(error)[:300]}
        if experiment.rounds > 3:
            _each(running, found, keep=False)
        for _ in range(experiment.rounds):
            _each(running, found, keep=True)
        for worker, process in running.items():
            found["workers"][worker] = process.close()
    logliks = [w["loglik"] for w in found["workers"].values() if "loglik" in w]
    found["equal"] = all(abs(value - logliks[0]) <= TOLERANCE * abs(logliks[0]) for value in logliks)
    for worker, values in found["workers"].items():
        seconds = statistics.median(s["seconds"] for s in values["steps"]) if "steps" in values else values["error"]
        print(f"{name:18} {worker:14} {seconds}", flush=True)
    return found


def _each(running: dict[str, Running], found: dict[str, Any], keep: bool) -> None:
    for worker in list(running):
        try:
            running[worker].step(keep)
        except RuntimeError as error:
            found["workers"][worker] = {"error": str(error)[:300]}
            del running[worker]


def main(arguments: list[str]) -> None:
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"experiments": {}}
    names = [name for name in arguments if not name.startswith("-")]
    if unknown := set(names) - set(EXPERIMENTS):
        sys.exit(f"{', '.join(sorted(unknown))}: experiments are {', '.join(EXPERIMENTS)}")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    results["machine"] = _machine()
    for name in [] if "--report" in arguments else names or EXPERIMENTS:
        results["experiments"][name] = measure(name, EXPERIMENTS[name])
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    report.write(results, RESULTS.parent)


def _machine() -> dict[str, Any]:
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), processor)
    return {"processor": processor, "cores": os.cpu_count(), "python": platform.python_version()}


if __name__ == "__main__":
    main(sys.argv[1:])
