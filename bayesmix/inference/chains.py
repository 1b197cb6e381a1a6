"""NUTS by nutpie, a sampler for each chain.

Each chain is a nutpie sampler of its own, so that what it draws depends on its seed and start alone: not on how many
run at once, nor on which thread began first. We look at them from time to time, write what is new to a checkpoint, and
take what there is when the user presses Ctrl-C.
"""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesmix.checkpoint import Chain, ChainWriter, Run
from bayesmix.inference.native import nutpie_model
from bayesmix.inference.target import Target
from bayesmix.progress import Progress
from bayesmix.threads import ALONE

#: Seconds between looks at the chains, and how many times longer than a look they are at least.
_LOOK, _TIMES_LONGER = 0.5, 20
#: Tuning of a chain that goes on: steps that its step size needs, its metric being known.
_SHORT_TUNING = 200
#: Statistics of the sampler that are kept, those of them that it has.
STATS = (
    "depth",
    "maxdepth_reached",
    "n_steps",
    "index_in_trajectory",
    "logp",
    "energy",
    "energy_error",
    "max_energy_error",
    "mean_tree_accept",
    "mean_tree_accept_sym",
    "step_size",
    "step_size_bar",
    "diverging",
)


@dataclass(frozen=True)
class Drawn:
    """What chains drew: name -> (n_draws, ...) for each, and whether that is all that was asked for."""

    chains: list[dict[str, np.ndarray]]
    complete: bool

    @property
    def lengths(self) -> list[int]:
        return [len(next(iter(chain.values()))) if chain else 0 for chain in self.chains]


def sample(
    target: Target,
    starts: np.ndarray,
    *,
    draws: int,
    tune: int,
    cores: int | None,
    target_accept: float,
    seed: int,
    progressbar: bool,
    run: Run | None = None,
    **kwargs: Any,
) -> Drawn:
    """Draws of every chain from its start (chains, d); with `run`, what is missing of them there.

    A `KeyboardInterrupt` ends it with the draws that there are, if there are any.
    """
    n_chains = len(starts)
    cores = min(n_chains, os.cpu_count() or 1) if cores is None else max(1, cores)
    there = [run.chain(c) if run is not None else Chain() for c in range(n_chains)]
    metrics = [chain.metric for chain in there if chain.metric is not None]
    learned = np.exp(np.mean(np.log(metrics), axis=0)) if metrics else None
    chains = [
        _Sampler(target, starts[c], there[c], learned, c, draws=draws, tune=tune, seed=seed, run=run)
        for c in range(n_chains)
    ]
    waiting = [chain for chain in chains if chain.missing]
    running: list[_Sampler] = []
    options = {"target_accept": target_accept, **kwargs}
    complete = True
    looked, pause = time.monotonic(), _LOOK
    total = sum(chain.missing for chain in waiting)
    try:
        with Progress("NUTS", total, progressbar) as progress:
            while waiting or running:
                while waiting and len(running) < cores:
                    running.append(_first(waiting))
                    running[-1].begin(options)
                if running[0].ended(0.05 if len(running) < 2 and not waiting else 0.01):
                    running.pop(0)
                else:
                    running.append(running.pop(0))
                if (progressbar or run is not None) and time.monotonic() > looked + pause:
                    began = time.monotonic()
                    for chain in running:
                        chain.look()
                    progress.to(sum(len(chain) for chain in chains))
                    looked = time.monotonic()
                    pause = max(_LOOK, _TIMES_LONGER * (looked - began))
    except KeyboardInterrupt:
        complete = False
        for chain in running:
            chain.stop()
    finally:
        for chain in chains:
            chain.end()
    found = Drawn([chain.drawn() for chain in chains], complete)
    if not any(found.lengths):
        raise KeyboardInterrupt
    return found


def nutpie_options(given: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Keywords that nutpie is known to take beside those that we set, and those of `given` that it takes.

    Its settings have names of their own for some; what it takes is found out by giving it to them.
    """
    with ALONE:
        import nutpie
        from nutpie import _lib
    kind = {"low_rank": "LowRank", "flow": "Flow"}.get(given.get("adaptation", "diag"), "Diag")
    settings = getattr(_lib.PyMclmcSettings if given.get("sampler") == "mclmc" else _lib.PyNutsSettings, kind)(0)
    ours = "compiled_model draws tune chains cores seed progress_bar blocking return_raw_trace kwargs".split()
    known = set(inspect.signature(nutpie.sample).parameters) - set(ours)
    taken = {"low_rank_modified_mass_matrix", "transform_adapt", "use_grad_based_mass_matrix", *known}
    for name in set(given) - taken - set(ours):
        try:
            settings.update({name: given[name]})
        except AttributeError:
            continue
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {error}, says nutpie of {given[name]!r}.") from None
        taken.add(name)
    return known | {"maxdepth", "mindepth", "max_energy_error", "store_divergences", "store_gradient"}, taken


def _first(waiting: list[_Sampler]) -> _Sampler:
    """The next chain to begin."""
    return waiting.pop(0)


class _Sampler:
    """One chain: what it drew before, and the sampler that draws on from there."""

    def __init__(
        self,
        target: Target,
        start: np.ndarray,
        there: Chain,
        learned: np.ndarray | None,
        number: int,
        *,
        draws: int,
        tune: int,
        seed: int,
        run: Run | None,
    ):
        self.target, self.there, self.number, self.run = target, there, number, run
        self.start = start if there.last is None else there.last
        metric = learned if there.metric is None else there.metric
        # a chain that goes on moves in coordinates in which what it learned is the unit
        self.scale = None if metric is None or there.last is None else np.sqrt(metric)
        self.missing = max(0, draws - there.n_draws)
        left = max(tune - there.tuned, 0) if not there.n_draws else 0
        self.tune = tune if there.last is None else max(left, min(tune, _SHORT_TUNING))
        self.seed = int(np.random.SeedSequence([seed, number, there.tuned, there.n_draws]).generate_state(1)[0])
        self.blocks: list[dict[str, np.ndarray]] = [there.draws] if there.n_draws else []
        self.seen = 0
        self.metric: np.ndarray | None = None
        self.writer: ChainWriter | None = None
        self.place: Any = None
        self.sampler: Any = None
        self.trace: Any = None  # all of it, until it is taken
        self.model: Any = None  # as long as the sampler, which has addresses of its arrays

    def __len__(self) -> int:
        return sum(len(block["u"]) for block in self.blocks) - self.there.n_draws

    def begin(self, options: dict[str, Any]) -> None:
        """Start to draw, in a thread."""
        with ALONE:  # what it imports puts the warnings filters aside
            import nutpie

        self.model = self._compiled()
        if self.run is not None:
            self.writer = self.run.writer(self.number)
            self.place = self.writer.place
            options = {"store_mass_matrix": True, **options}
        self.sampler = nutpie.sample(
            self.model,
            **{
                **options,
                "draws": self.missing,
                "tune": self.tune,
                "chains": 1,
                "cores": 1,
                "seed": self.seed,
                "progress_bar": False,
                "blocking": False,
                "return_raw_trace": True,
            },
        )

    def _compiled(self) -> Any:
        """What nutpie samples."""
        size = len(self.start)
        origin = np.zeros(size) if self.scale is not None else self.start.copy()
        native = self.target.native(None if self.scale is None else self.start, self.scale)
        if native is not None:
            return nutpie_model(native, origin)
        import pandas as pd
        from nutpie.compiled_pyfunc import from_pyfunc

        return from_pyfunc(
            ndim=size,
            make_logp_fn=lambda: self.target if self.scale is None else self._scaled,
            make_expand_fn=lambda *seeds: lambda v: {"unconstrained": self._point(v)},
            expanded_dtypes=[np.dtype("float64")],
            expanded_shapes=[(size,)],
            expanded_names=["unconstrained"],
            dims={"unconstrained": ("coordinate",)},
            coords={"coordinate": pd.RangeIndex(size)},
            make_initial_point_fn=lambda seed: origin.copy(),
        )

    def _point(self, v: np.ndarray) -> np.ndarray:
        return v if self.scale is None else self.start + self.scale * v

    def _scaled(self, v: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = self.target(self.start + self.scale * v)
        return value, self.scale * gradient

    def ended(self, seconds: float) -> bool:
        """Wait so long; whether it has drawn all."""
        try:
            trace = self.sampler.wait(timeout=seconds)
        except TimeoutError:
            return False
        self.trace, self.sampler = trace, None  # the sampler gives it once: an interrupt must not lose it
        self._take(trace)
        self.trace = None
        self.end()
        return True

    def look(self) -> None:
        """Take what is new, and write it where there is a checkpoint."""
        if self.sampler is not None:
            self._take(self.sampler.inspect())

    def stop(self) -> None:
        """Take what there is, and draw no more."""
        if self.sampler is not None:
            sampler, self.sampler = self.sampler, None
            self.trace = sampler.abort()
        if self.trace is not None:
            if self.writer is not None:  # the user may have interrupted us while we wrote
                self.writer.back_to(self.place)
            self._take(self.trace)
            self.trace = None

    def end(self) -> None:
        """Draw no more, and close the file."""
        if self.sampler is not None:
            self.sampler.cancel()
            self.sampler = None
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def _take(self, trace: Any) -> None:
        import pyarrow as pa

        points, stats = (batches[0] for batches in trace.get_arrow_trace())
        n = min(points.num_rows, stats.num_rows)
        if n <= self.seen:
            return
        points, stats = (batch.slice(self.seen, n - self.seen) for batch in (points, stats))
        u = np.array(pa.array(points.column("unconstrained")).flatten()).reshape(n - self.seen, -1)
        tuning = np.asarray(pa.array(stats.column("tuning")).to_numpy(zero_copy_only=False), bool)
        found = {"u": u[~tuning], **self.target.constrained(u[~tuning])}
        if self.run is not None:
            found = self.run.complete(self.number, self.there.n_draws + len(self), found)
        found = {name: np.asarray(values, float) for name, values in found.items()}
        for name in STATS:
            if name in stats.schema.names:
                column = pa.array(stats.column(name))
                found[name] = column.to_numpy(zero_copy_only=False)[~tuning]
        blocks, place = [*self.blocks, found], None
        if self.writer is not None:
            self.writer.append(u[tuning], found, self._new_metric(pa, stats))
            place = self.writer.place
        self.blocks, self.seen, self.place = blocks, n, place  # together: no interrupt comes between

    def _new_metric(self, pa: Any, stats: Any) -> np.ndarray | None:
        """Variances of the coordinates, where the sampler has changed its mind on them."""
        if "mass_matrix_inv" not in stats.schema.names:
            return None
        column = pa.array(stats.column("mass_matrix_inv")).drop_null()
        if not len(column):
            return None
        found = np.array(column[-1].as_py(), float)
        found = found if self.scale is None else found * self.scale**2
        return found if np.isfinite(found).all() and (found > 0).all() else None

    def drawn(self) -> dict[str, np.ndarray]:
        """Everything that this chain drew, earlier runs included."""
        blocks = [block for block in self.blocks if len(block["u"])]
        if not blocks:
            return {}
        names = [name for name in blocks[0] if all(name in block for block in blocks)]
        return {name: np.concatenate([block[name] for block in blocks]) for name in names}


def stacked(found: Sequence[dict[str, np.ndarray]], n_draws: int) -> dict[str, np.ndarray]:
    """The first draws of several chains as arrays (chain, draw, ...)."""
    names = [name for name in found[0] if all(name in chain for chain in found)]
    return {name: np.stack([chain[name][:n_draws] for chain in found]) for name in names}
