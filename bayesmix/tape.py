"""PyTensor functions as tapes: traced once, then run by one interpreter that is compiled already.

A tape is made by running the graph once, node by node, on example values. What does not depend on the inputs is
constant from then on, and so are all shapes. What does depend on them lives in one array of float64, the memory, and
a tensor is an array of addresses into it. Operations that only move entries about (indexing, joining, reshaping, …)
are carried out on the addresses while the tape is made, by their own NumPy code, and cost nothing when it runs. The
others become instructions of `bayesmix.kernels.interpreter`, which numba compiles once on a machine.

An operation without an instruction, or on arrays so large that the interpreter's overhead does not matter, is a call:
the operation's own ``perform``, between two runs of the interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import pytensor.scalar as ps
from pymc.logprob.utils import CheckParameterValue
from pytensor.assumptions.specify import SpecifyAssumptions
from pytensor.compile.builders import OpFromGraph
from pytensor.compile.ops import DeepCopyOp, TypeCastingOp
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant
from pytensor.graph.fg import FunctionGraph
from pytensor.scalar.math import Erf, Erfc, Erfcx, GammaLn, Log1mexp, Psi, Sigmoid, Softplus, TriGamma
from pytensor.tensor import blas, extra_ops, subtensor
from pytensor.tensor import math as ptm
from pytensor.tensor.basic import Alloc, ExtractDiag, Join, MakeVector, ScalarFromTensor, Split, TensorFromScalar
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.elemwise import CAReduce, DimShuffle, Elemwise
from pytensor.tensor.linalg.decomposition.cholesky import Cholesky
from pytensor.tensor.linalg.solvers.triangular import SolveTriangular
from pytensor.tensor.reshape import JoinDims, SplitDims
from pytensor.tensor.shape import Reshape, Shape, Shape_i, SpecifyShape
from pytensor.tensor.type import TensorType

from bayesmix.compilation import no_compiler, simplified
from bayesmix.kernels import interpreter as machine
from bayesmix.kernels.log_sum_exp import LogSumExp, log_sum_exp

#: Entries above which a tensor is an array of its own, and operations on it are calls.
LARGE = 20_000
#: Multiplications above which a matrix product is BLAS's.
_LARGE_PRODUCT = 20_000


@dataclass(slots=True, eq=False)
class _Traced:
    """A variable while its graph is traced: its value at the example, and where it will be at run time.

    Attributes
    ----------
    value : array or scalar
    addresses : int64 array of the value's shape, or None
        For a value that depends on the inputs and is small.
    slot : int, or None
        For one that depends on the inputs and is large. A constant has neither.
    """

    value: Any
    addresses: Any = None
    slot: int | None = None

    @property
    def constant(self) -> bool:
        return self.addresses is None and self.slot is None


@dataclass(slots=True, eq=False)
class _Instruction:
    words: list[int]
    out: int
    size: int  # of the result, from `out` on
    reads: list[np.ndarray]  # what it needs, and the first address of each operand after gathering


@dataclass(slots=True, eq=False)
class _Call:
    node: Any
    # ("constant", value, None), ("slot", (number, shape), None), ("memory" or "scalar", (address, shape), dtype)
    inputs: list[tuple[str, Any, np.dtype | None]]
    outputs: list[tuple[str, Any]]  # slots and memory
    reads: list[np.ndarray]
    slots: list[int]


class Tape:
    """A function of arrays of fixed shapes, made in about a second and as fast to call as a compiled one.

    It may be called from several threads at once. The interpreter releases the GIL. Shared variables keep the values
    that they have when it is made. A parameter outside its support gives -inf where PyMC's check would raise.

    Parameters
    ----------
    inputs : sequence of Variable
    outputs : sequence of Variable
    example : sequence of array
        One value for each input, which fixes the shapes.
    """

    def __init__(self, inputs: Sequence[Any], outputs: Sequence[Any], example: Sequence[Any]):
        with no_compiler(), np.errstate(all="ignore"):
            graph = simplified(inputs, outputs)
            _Tracer(graph, example).write(self)
            if not machine.run.signatures:  # compiled, or read from the disk, before several threads may want it
                machine.run(self._code, self._index, self._memory, 0, 0)
        self._idle: list[_State] = []  # append and pop are atomic

    def __call__(self, *values: Any) -> list[np.ndarray]:
        """Values of the outputs."""
        try:
            state = self._idle.pop()
        except IndexError:
            state = _State(self)
        memory = state.memory
        for (first, last), value in zip(self._inputs, values):
            memory[first:last] = value if np.ndim(value) == 1 else np.ravel(value)
        for step in state.steps:
            step()
        found = [get() for get in state.outputs]
        self._idle.append(state)
        return found

    # filled in by the tracer
    _code: np.ndarray
    _index: np.ndarray
    _memory: np.ndarray
    _inputs: list[tuple[int, int]]
    _steps: list[Any]
    _outputs: list[tuple[str, Any, Any]]
    _n_slots: int


class _State:
    """One thread's memory, and its steps as functions without arguments."""

    def __init__(self, tape: Tape):
        self.memory = tape._memory.copy()
        self.slots: list[Any] = [None] * tape._n_slots
        self.steps = [
            self._runner(tape, *step) if isinstance(step, tuple) else self._caller(step) for step in tape._steps
        ]
        self.outputs = [self._getter(*output) for output in tape._outputs]

    def _runner(self, tape: Tape, first: int, last: int) -> Callable[[], None]:
        code, index, memory = tape._code, tape._index, self.memory
        run = machine.run
        return lambda: run(code, index, memory, first, last)

    def _view(self, where: tuple[int, tuple[int, ...]]) -> np.ndarray:
        at, size = where[0], int(np.prod(where[1], dtype=int))
        return self.memory[at : at + size].reshape(where[1])

    def _getter(self, kind: str, where: Any, dtype: Any) -> Callable[[], Any]:
        slots = self.slots
        if kind == "constant":
            return lambda: np.array(where)
        if kind == "slot":
            return lambda: np.array(slots[where])
        view = self._view(where)
        return lambda: view.astype(dtype)

    def _argument(self, kind: str, where: Any, dtype: Any) -> Callable[[], Any]:
        slots = self.slots
        if kind == "constant":
            return lambda: where
        if kind == "slot":
            return lambda: slots[where[0]]
        view = self._view(where)
        if kind == "scalar":
            return lambda: dtype.type(view[()])
        return (lambda: view) if dtype == np.float64 else (lambda: view.astype(dtype))

    def _caller(self, call: _Call) -> Callable[[], None]:
        node, slots = call.node, self.slots
        arguments = [self._argument(*argument) for argument in call.inputs]
        # most are always the same array: a constant, or a view of the memory
        given = [argument() for argument in arguments]
        kinds = [(kind, dtype) for kind, _, dtype in call.inputs]
        fresh = [i for i, (kind, dtype) in enumerate(kinds) if kind in ("slot", "scalar") or dtype not in (None, float)]

        def collected() -> list[Any]:
            for i in fresh:
                given[i] = arguments[i]()
            return given

        quick = _quick(node, [np.shape(w) if k == "constant" else w[1] for k, w, _ in call.inputs])
        if quick is not None:
            results = []
            for kind, where in call.outputs:
                results.append(self._view(where) if kind == "memory" else np.empty(where[1]))
                if kind == "slot":
                    slots[where[0]] = results[-1]
            return lambda: quick(collected(), results)
        targets = [self._view(where) if kind == "memory" else where for kind, where in call.outputs]
        perform = node.op.perform

        def step() -> None:
            storage: list[list[Any]] = [[None] for _ in targets]
            with np.errstate(all="ignore"):
                perform(node, collected(), storage)
            for target, [value] in zip(targets, storage):
                if np.shape(value) != (target[1] if isinstance(target, tuple) else target.shape):
                    raise ValueError(f"{node.op}: the shape of its result changed since it was traced.")
                if isinstance(target, tuple):
                    slots[target[0]] = value
                else:
                    target[...] = value

        return step


def _quick(node: Any, shapes: list[tuple[int, ...]]) -> Callable[[list, list], None] | None:
    """An operation on large arrays of doubles that writes to arrays made beforehand, with less ado than `perform`."""
    op = node.op
    if hasattr(op, "run_into"):
        return op.run_into
    if any(v.type.dtype != "float64" for v in (*node.inputs, *node.outputs)):
        return None
    if isinstance(op, ptm.Dot):

        def dot(arguments: list, results: list) -> None:
            with np.errstate(all="ignore"):
                np.matmul(arguments[0], arguments[1], out=results[0])

        return dot
    if isinstance(op, LogSumExp):
        return lambda arguments, results: log_sum_exp(np.ascontiguousarray(arguments[0]), op.n_terms, *results)
    if isinstance(op, ptm.Sum) and len(shapes[0]) == 2 and op.axis in ((0,), (1,)):
        ones = np.ones(shapes[0][op.axis[0]])

        def sums(arguments: list, results: list) -> None:
            # a product with ones is several times faster than a sum along a short axis or across one
            with np.errstate(all="ignore"):
                left, right = (ones, arguments[0]) if op.axis == (0,) else (arguments[0], ones)
                np.matmul(left, right, out=results[0])

        return sums
    if isinstance(op, Elemwise) and len(node.inputs) == 2 and len(shapes[0]) in (1, 2):
        code = machine.MUL if isinstance(op.scalar_op, ps.Mul) else machine.ADD
        if not isinstance(op.scalar_op, ps.Add | ps.Mul):
            code = _BINARY.get(type(op.scalar_op), -1)
        if code < 0:
            return None
        rows, columns = np.broadcast_shapes(*[(*extent, 1)[:2] for extent in shapes])
        steps = []
        for extent in shapes:
            down, across = (*extent, 1)[:2]
            steps.append((0 if down == 1 else across, 0 if across == 1 else 1))

        def elementwise(arguments: list, results: list) -> None:
            a, b = (np.ascontiguousarray(argument).reshape(-1) for argument in arguments)
            machine.elementwise(code, rows, columns, a, *steps[0], b, *steps[1], results[0].reshape(-1))

        return elementwise
    return None


class _Tracer:
    """Runs a graph on example values and writes down how to run it again."""

    def __init__(self, graph: Any, example: Sequence[Any]):
        self.size = 1  # of the memory; address 0 holds 0
        self.literals: list[tuple[int, np.ndarray]] = [(0, np.zeros(1))]
        self.numbers: dict[bytes, int] = {np.float64(0).tobytes(): 0}
        self.steps: list[_Instruction | _Call] = []
        self.n_slots = 0
        self.index: list[np.ndarray] = []
        self.index_size = 0
        self.gathered: dict[bytes, int] = {}
        self.done: dict[tuple, Any] = {}

        env: dict[Any, _Traced] = {}
        self.inputs = []
        for variable, value in zip(graph.inputs, example):
            value = np.asarray(value, variable.type.dtype)
            at = self.allocate(value.size)
            env[variable] = _Traced(value, np.arange(at, at + value.size).reshape(value.shape))
            self.inputs.append((at, at + value.size))
        self.outputs = self.trace(graph, env)
        self.types = [output.type for output in graph.outputs]

    # -- the graph -----------------------------------------------------------------------------------------------

    def trace(self, graph: Any, env: dict[Any, _Traced]) -> list[_Traced]:
        for node in graph.toposort():
            for output, traced in zip(node.outputs, self.node(node, [self.lookup(env, v) for v in node.inputs])):
                env[output] = traced
        return [self.lookup(env, output) for output in graph.outputs]

    def lookup(self, env: dict[Any, _Traced], variable: Any) -> _Traced:
        if variable not in env:
            if isinstance(variable, Constant):
                env[variable] = _Traced(variable.data)
            elif isinstance(variable, SharedVariable):
                env[variable] = _Traced(variable.get_value(borrow=True))
            else:
                raise ValueError(f"{variable}: the graph needs it, and it is no input of the tape.")
        return env[variable]

    def node(self, node: Any, inputs: list[_Traced]) -> list[_Traced]:
        op = node.op
        if isinstance(op, OpFromGraph):
            return self.trace(op.fgraph, dict(zip(op.fgraph.inputs, inputs)))
        if isinstance(op, CheckParameterValue) and not all(x.constant for x in inputs[1:]):
            return self.checked(node, inputs)
        if isinstance(op, Elemwise) and len(inputs) > 30:  # NumPy's functions take 32 operands in all
            return self.folded(node, inputs)
        storage: list[list[Any]] = [[None] for _ in node.outputs]
        op.prepare_node(node, None, None, "py")
        op.perform(node, [x.value for x in inputs], storage)
        values = [box[0] for box in storage]
        if all(x.constant for x in inputs) or isinstance(op, Shape | Shape_i):
            return [_Traced(value) for value in values]
        write = self.writer(op)
        if write is not None and all(self.fits(x) for x in inputs) and all(np.size(v) <= LARGE for v in values):
            found = write(self, node, inputs)
            if found is not None:
                return [
                    _Traced(value, np.reshape(addresses, np.shape(value)).astype(np.int64, copy=False))
                    for value, addresses in zip(values, found)
                ]
        return self.call(node, inputs, values)

    def fits(self, x: _Traced) -> bool:
        return x.constant or x.addresses is not None

    def writer(self, op: Any) -> Any:
        for kind in type(op).__mro__:
            if kind in _WRITERS:
                return _WRITERS[kind]
        return None

    def folded(self, node: Any, inputs: list[_Traced]) -> list[_Traced]:
        """A sum or a product of many terms, two by two."""
        fresh = [variable.type() for variable in node.inputs]
        graph = FunctionGraph(fresh, [reduce(node.op, fresh)], clone=False)
        return self.trace(graph, dict(zip(fresh, inputs)))

    def checked(self, node: Any, inputs: list[_Traced]) -> list[_Traced]:
        """The first input where all the others hold, -inf elsewhere."""
        value, *conditions = fresh = [variable.type() for variable in node.inputs]
        held = reduce(ptm.and_, [ptm.all(condition) for condition in conditions])
        graph = FunctionGraph(fresh, [ptm.switch(held, value, -np.inf)], clone=False)
        return self.trace(graph, dict(zip(fresh, inputs)))

    def call(self, node: Any, inputs: list[_Traced], values: list[Any]) -> list[_Traced]:
        arguments: list[tuple[str, Any, Any]] = []
        reads, slots = [], []
        for x, variable in zip(inputs, node.inputs):
            if x.constant:
                arguments.append(("constant", x.value, None))
            elif x.slot is not None:
                arguments.append(("slot", (x.slot, np.shape(x.value)), None))
                slots.append(x.slot)
            else:
                flat = x.addresses.ravel()
                at = self.contiguous(flat)
                reads.append(np.arange(at, at + flat.size))
                kind = "scalar" if isinstance(variable.type, ps.ScalarType) else "memory"
                arguments.append((kind, (at, x.addresses.shape), np.dtype(variable.type.dtype)))
        outputs: list[tuple[str, Any]] = []
        traced = []
        for value in values:
            if np.size(value) <= LARGE and np.asarray(value).dtype.kind in "fiub":
                at, extent = self.allocate(np.size(value)), np.shape(value)
                outputs.append(("memory", (at, extent)))
                traced.append(_Traced(value, np.arange(at, at + np.size(value)).reshape(extent)))
            else:
                outputs.append(("slot", (self.n_slots, np.shape(value))))
                traced.append(_Traced(value, None, self.n_slots))
                self.n_slots += 1
        self.steps.append(_Call(node, arguments, outputs, reads, slots))
        return traced

    # -- memory --------------------------------------------------------------------------------------------------

    def allocate(self, size: int) -> int:
        at = self.size
        self.size += size
        return at

    def literal(self, value: np.ndarray) -> np.ndarray:
        """Addresses of constants; equal numbers share theirs."""
        flat = np.ascontiguousarray(value, np.float64).ravel()
        if flat.size > 64 and bool(np.any(flat != flat[0])):
            at = self.allocate(flat.size)
            self.literals.append((at, flat))
            return np.arange(at, at + flat.size).reshape(np.shape(value))
        if flat.size > 64:
            return np.broadcast_to(self.literal(flat[0]), np.shape(value))
        found = np.empty(flat.size, np.int64)
        for i, number in enumerate(flat):
            key = number.tobytes()
            if key not in self.numbers:
                self.numbers[key] = self.allocate(1)
                self.literals.append((self.numbers[key], np.array([number])))
            found[i] = self.numbers[key]
        return found.reshape(np.shape(value))

    def addresses(self, x: _Traced) -> np.ndarray:
        """Of a small value, constants included."""
        return self.literal(np.asarray(x.value)) if x.constant else x.addresses

    def listed(self, addresses: np.ndarray) -> int:
        """Place of a list of integers in the index."""
        at = self.index_size
        self.index.append(addresses)
        self.index_size += addresses.size
        return at

    def contiguous(self, flat: np.ndarray) -> int:
        """First of addresses that follow each other and hold what `flat` addresses."""
        if flat.size == 0:
            return 0
        if flat.size == 1 or (np.diff(flat) == 1).all():
            return int(flat[0])
        key = flat.tobytes()
        if key not in self.gathered:
            self.gathered[key] = self.emit(flat.size, [flat], machine.GATHER, None, self.listed(flat))
        return self.gathered[key]

    def strided(self, flat: np.ndarray) -> tuple[int, int]:
        """First address and stride, after a gathering where there is none."""
        if flat.size <= 1:
            return (int(flat[0]) if flat.size else 0), 0
        steps = np.diff(flat)
        if (steps == steps[0]).all():
            return int(flat[0]), int(steps[0])
        return self.contiguous(flat), 1

    def strides(self, addresses: np.ndarray) -> tuple[int, ...]:
        """First address and the stride of each axis, after a gathering where there are none."""
        extent = addresses.shape
        first = int(addresses[(0,) * addresses.ndim])
        steps = [
            int(addresses[tuple(int(a == axis) for a in range(len(extent)))]) - first if n > 1 else 0
            for axis, n in enumerate(extent)
        ]
        regular = first + sum(
            (step * np.arange(n)).reshape([-1 if a == axis else 1 for a in range(len(extent))])
            for axis, (step, n) in enumerate(zip(steps, extent))
        )
        if np.array_equal(regular, addresses):
            return first, *steps
        first = self.contiguous(addresses.ravel())
        return first, *[int(np.prod(extent[axis + 1 :], dtype=int)) for axis in range(len(extent))]

    def emit(self, size: int, reads: list[np.ndarray], op: int, *words: Any) -> int:
        """Append an instruction with `size` results, whose place stands for the None in `words`."""
        out = self.allocate(size)
        self.steps.append(_Instruction([op, size, *[out if w is None else w for w in words]], out, size, reads))
        return out

    # -- what several operations share ---------------------------------------------------------------------------

    def elementwise(self, op: int, *operands: np.ndarray) -> np.ndarray:
        """An instruction over entries; an array of addresses of the operands' joint shape."""
        broadcast = np.broadcast_arrays(*operands)
        extent = broadcast[0].shape
        flats = [b.ravel() for b in broadcast]
        if flats[0].size == 0:
            return np.zeros(extent, np.int64)
        key = (op, *[flat.tobytes() for flat in flats])
        if key not in self.done:
            if flats[0].size > 1 and all((flat == flat[0]).all() for flat in flats):
                single = self.elementwise(op, *[flat[:1].reshape(()) for flat in flats])
                self.done[key] = np.broadcast_to(single, flats[0].shape)
            else:
                words = [word for flat in flats for word in self.strided(flat)]
                out = self.emit(flats[0].size, [*flats, np.array(words[::2])], op, None, *words)
                self.done[key] = np.arange(out, out + flats[0].size)
        return self.done[key].reshape(extent)

    def switch(self, condition: np.ndarray, yes: np.ndarray, no: np.ndarray) -> np.ndarray:
        return self.elementwise(machine.SWITCH, condition, yes, no)

    def reduce(self, op: int, rows: np.ndarray) -> np.ndarray:
        """Over the last axis of addresses (n, m) with m > 0: addresses (n,)."""
        n, m = rows.shape
        if m == 1 or n == 0:
            return rows[:, 0]
        key = (op, n, rows.tobytes())
        if key not in self.done:
            first, *steps = self.strides(rows)
            out = self.emit(n, [rows.ravel(), np.array([first])], op, m, None, first, *steps)
            self.done[key] = np.arange(out, out + n)
        return self.done[key]

    def sums(self, terms: np.ndarray, of: np.ndarray, n: int) -> np.ndarray:
        """Sums of the entries at `terms` by their number in `of`, each of 0..n-1: addresses (n,)."""
        order = np.argsort(of, kind="stable")
        terms, of = terms[order], of[order]
        bounds = np.searchsorted(of, np.arange(n + 1))
        counts = np.diff(bounds)
        found = np.zeros(n, np.int64)  # no terms: address 0 holds 0
        found[counts == 1] = terms[bounds[:-1][counts == 1]]
        several = np.flatnonzero(counts > 1)
        if several.size:
            keep = np.isin(of, several)
            listed = terms[keep]
            ends = np.concatenate([[0], np.cumsum(counts[several])])
            out = self.emit(several.size, [listed], machine.SEGMENT_SUM, None, self.listed(ends), self.listed(listed))
            found[several] = np.arange(out, out + several.size)
        return found

    # -- the tape ------------------------------------------------------------------------------------------------

    def write(self, tape: Tape) -> None:
        outputs: list[tuple[str, Any, Any]] = []
        for x, kind in zip(self.outputs, self.types):
            if x.constant:
                outputs.append(("constant", np.asarray(x.value), None))
            elif x.slot is not None:
                outputs.append(("slot", x.slot, None))
            else:
                outputs.append(("memory", (self.contiguous(x.addresses.ravel()), x.addresses.shape), kind.dtype))
        code: list[int] = []
        steps: list[Any] = []
        first = 0
        for step in self.needed(outputs):
            if isinstance(step, _Instruction):
                code += step.words
                continue
            if len(code) > first:
                steps.append((first, len(code)))
            steps.append(step)
            first = len(code)
        if len(code) > first:
            steps.append((first, len(code)))
        tape._code = np.array(code, np.int64)
        tape._index = np.concatenate([np.zeros(1, np.int64), *self.index])[1:].copy()
        tape._memory = np.zeros(self.size)
        for at, numbers in self.literals:
            tape._memory[at : at + numbers.size] = numbers
        tape._inputs, tape._steps, tape._outputs, tape._n_slots = self.inputs, steps, outputs, self.n_slots

    def needed(self, outputs: list[tuple[str, Any, Any]]) -> list[_Instruction | _Call]:
        """The steps on which the outputs depend."""
        used = np.zeros(self.size, bool)
        slots: set[int] = set()
        for kind, where, _ in outputs:
            if kind == "slot":
                slots.add(where)
            elif kind == "memory":
                used[where[0] : where[0] + int(np.prod(where[1], dtype=int))] = True
        kept: list[_Instruction | _Call] = []
        for step in reversed(self.steps):
            if isinstance(step, _Instruction):
                if not used[step.out : step.out + step.size].any():
                    continue
            else:
                wanted = [
                    at in slots if kind == "slot" else used[at : at + np.prod(extent, dtype=int)].any()
                    for kind, (at, extent) in step.outputs
                ]
                if not any(wanted):
                    continue
                slots.update(step.slots)
            for read in step.reads:
                used[read] = True
            kept.append(step)
        return kept[::-1]


# -- operations --------------------------------------------------------------------------------------------------
# Each takes the tracer, the node and its traced inputs, all of them small, and returns the addresses of each
# output, or None to be called instead.


def _plain(node: Any) -> bool:
    """Whether doubles hold every result as NumPy would give it: no complex numbers, and no rounding to float32."""
    kinds = [v.type.dtype for v in node.outputs]
    exact = all(kind in ("float64", "bool") or "int" in kind for kind in kinds)
    return exact and not any("complex" in v.type.dtype for v in node.inputs)


def _move(n_moved: int | None = 1) -> Callable:
    """An operation that moves the entries of its first `n_moved` inputs: its own code runs on their addresses."""

    def write(tracer: _Tracer, node: Any, inputs: list[_Traced]) -> list[np.ndarray] | None:
        moved = len(inputs) if n_moved is None else n_moved
        if not all(x.constant for x in inputs[moved:]):
            return None
        data = [tracer.addresses(x).astype(np.float64) for x in inputs[:moved]]
        if any(v.type.dtype != "float64" for v in (*node.inputs[:moved], *node.outputs)):
            twins = [TensorType("float64", d.shape)() for d in data]
            node = node.op.make_node(*twins, *node.inputs[moved:])
        storage: list[list[Any]] = [[None] for _ in node.outputs]
        node.op.perform(node, [*data, *[x.value for x in inputs[moved:]]], storage)
        return [np.array(box[0]).astype(np.int64) for box in storage]

    return write


def _same(tracer: _Tracer, node: Any, inputs: list[_Traced]) -> list[np.ndarray] | None:
    return [tracer.addresses(inputs[0])]


def _make_vector(tracer: _Tracer, node: Any, inputs: list[_Traced]) -> list[np.ndarray] | None:
    return [np.array([tracer.addresses(x) for x in inputs], np.int64)]


def _positions(node: Any, inputs: list[_Traced]) -> np.ndarray:
    """Which entries of the first input a (set or increment) subtensor operation speaks of."""
    x, indices = inputs[0].value, [i.value for i in inputs[2:]]
    index = tuple(subtensor.unflatten_index_variables(indices, node.op.idx_list))
    return np.arange(np.size(x)).reshape(np.shape(x))[index]


def _set_or_increment(tracer: _Tracer, node: Any, inputs: list[_Traced]) -> list[np.ndarray] | None:
    if not all(x.constant for x in inputs[2:]):
        return None
    old, new = tracer.addresses(inputs[0]), tracer.addresses(inputs[1])
    at = _positions(node, inputs)
    new = np.broadcast_to(new, np.shape(at)).ravel()
    at = np.ravel(at)
    if node.op.set_instead_of_inc:
        result = old.flatten()
        result[at] = new
        return [result]
    if not _plain(node) or node.outputs[0].type.dtype == "bool" or getattr(node.op, "ignore_duplicates", False):
        return None
    size = old.size
    terms, of = np.concatenate([old.ravel(), new]), np.concatenate([np.arange(size), at])
    keep = terms != 0
    return [tracer.sums(terms[keep], of[keep], size)]


def _reduction(tracer: _Tracer, node: Any, inputs: list[_Traced]) -> list[np.ndarray] | None:
    if not _plain(node):
        return None
    op = _REDUCTIONS.get(type(node.op.scalar_op))
    if isinstance(node.op.scalar_op, ps.AND | ps.OR) and node.inputs[0].type.dtype != "bool":
        return None
    if op is None or "float32" in (node.op.acc_dtype, node.op.dtype):
        return None
    x = tracer.addresses(inputs[0])
    axes = tuple(range(x.ndim)) if node.op.axis is None else tuple(a % x.ndim for a in node.op.axis)
    kept = [a for a in range(x.ndim) if a not in axes]
    rows = x.transpose([*kept, *axes]).reshape(int(np.prod([x.shape[a] for a in kept], dtype=int)), -1) if x.size else x
    if x.size == 0:  # an empty sum or product; nothing else is defined
        extent = tuple(x.shape[a] for a in kept)
        empty = {machine.REDUCE_SUM: 0.0, machine.REDUCE_MAX: 0.0}.get(op, 1.0)
        return [tracer.literal(np.full(extent, empty))]
    return [tracer.reduce(op, rows)]


def _cumulate(tracer: _Tracer, node: Any, inputs: list[_Traced]) -> list[np.ndarray] | None:
    if not _plain(node) or node.outputs[0].type.dtype != "float64":
        return None
    x = np.moveaxis(tracer.addresses(inputs[0]), node.op.axis, -1)
    if x.size == 0:
        return [tracer.addresses(inputs[0])]
    op = machine.CUMULATE_SUM if node.op.mode == "add" else machine.CUMULATE_PROD
    at = tracer.contiguous(x.ravel())
    n, m = x.size // x.shape[-1], x.shape[-1]
    out = tracer.allocate(x.size)
    tracer.steps.append(_Instruction([op, n, m, out, at], out, x.size, [x.ravel(), np.array([at])]))
    return [np.moveaxis(np.arange(out, out + x.size).reshape(x.shape), -1, node.op.axis)]


def _product(tracer: _Tracer, node: Any, inputs: list[_Traced]) -> list[np.ndarray] | None:
    if not _plain(node) or node.outputs[0].type.dtype != "float64":
        return None
    a, b = (tracer.addresses(x) for x in inputs)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    (rows, inner), columns = a.shape[-2:], b.shape[-1]
    count = int(np.prod(batch, dtype=int))
    if count * rows * columns * inner == 0:
        return [np.zeros((*batch, rows, columns), np.int64)]
    if count * rows * columns * inner > _LARGE_PRODUCT:
        return None
    a = np.broadcast_to(a, (*batch, rows, inner)).reshape(count, rows, inner)
    b = np.broadcast_to(b, (*batch, inner, columns)).reshape(count, inner, columns)
    out = tracer.allocate(count * rows * columns)
    left, right = tracer.strides(a), tracer.strides(b)
    words = [machine.MATMUL, count, rows, inner, columns, out, *left, *right]
    reads = [a.ravel(), b.ravel(), np.array([left[0], right[0]])]
    tracer.steps.append(_Instruction(words, out, count * rows * columns, reads))
    return [np.arange(out, out + count * rows * columns)]


def _log_sum_exp(tracer: _Tracer, node: Any, inputs: list[_Traced]) -> list[np.ndarray] | None:
    x = tracer.addresses(inputs[0])
    if not _plain(node) or x.size == 0:
        return None
    rows, columns = x.shape
    at = tracer.contiguous(x.ravel())
    n = rows * (columns // node.op.n_terms)
    out = tracer.allocate(n + x.size)
    words = [machine.LOG_SUM_EXP, rows, columns, node.op.n_terms, out, out + n, at]
    tracer.steps.append(_Instruction(words, out, n + x.size, [x.ravel(), np.array([at])]))
    return [np.arange(out, out + n), np.arange(out + n, out + n + x.size)]


def _cholesky(tracer: _Tracer, node: Any, inputs: list[_Traced], core: Any = None) -> list[np.ndarray] | None:
    x = tracer.addresses(inputs[0])
    if not _plain(node) or x.size == 0 or x.shape[-1] != x.shape[-2]:
        return None
    d = x.shape[-1]
    at = tracer.contiguous(x.ravel())
    out = tracer.allocate(x.size)
    words = [machine.CHOLESKY, x.size // d**2, d, out, at, int((core or node.op).lower)]
    tracer.steps.append(_Instruction(words, out, x.size, [x.ravel(), np.array([at])]))
    return [np.arange(out, out + x.size)]


def _solve_triangular(tracer: _Tracer, node: Any, inputs: list[_Traced], core: Any = None) -> list[np.ndarray] | None:
    op = core or node.op
    a, b = (tracer.addresses(x) for x in inputs)
    if not _plain(node) or node.outputs[0].type.dtype != "float64" or not a.size * b.size:
        return None
    vector = op.b_ndim == 1
    b = b[..., None] if vector else b
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = np.broadcast_to(a, (*batch, *a.shape[-2:])), np.broadcast_to(b, (*batch, *b.shape[-2:]))
    d, columns = b.shape[-2:]
    at, right = tracer.contiguous(a.ravel()), tracer.contiguous(b.ravel())
    out = tracer.allocate(b.size)
    count = b.size // (d * columns)
    words = [machine.SOLVE, count, d, columns, out, at, right, int(op.lower), int(op.unit_diagonal)]
    tracer.steps.append(_Instruction(words, out, b.size, [a.ravel(), b.ravel(), np.array([at, right])]))
    return [np.arange(out, out + b.size)]


def _blockwise(tracer: _Tracer, node: Any, inputs: list[_Traced]) -> list[np.ndarray] | None:
    core = node.op.core_op
    if isinstance(core, Cholesky):
        return _cholesky(tracer, node, inputs, core)
    if isinstance(core, SolveTriangular):
        return _solve_triangular(tracer, node, inputs, core)
    if isinstance(core, ptm.Dot):
        return _product(tracer, node, inputs)
    return None


def _elemwise(tracer: _Tracer, node: Any, inputs: list[_Traced]) -> list[np.ndarray] | None:
    scalar = node.op.scalar_op if isinstance(node.op, Elemwise) else node.op
    if len(node.outputs) != 1 or not _plain(node):
        return None
    kinds = [v.type.dtype for v in node.inputs]
    result = node.outputs[0].type.dtype
    extent = np.broadcast_shapes(*[np.shape(x.value) for x in inputs])
    if isinstance(scalar, ps.Second | ps.Identity) or (isinstance(scalar, ps.Cast) and kinds[0] in ("bool", result)):
        return [np.broadcast_to(tracer.addresses(inputs[-1]), extent)]
    if isinstance(scalar, ps.Cast):
        if result == "bool":
            return [tracer.elementwise(machine.NEQ, tracer.addresses(inputs[0]), tracer.literal(np.array(0.0)))]
        return [tracer.addresses(inputs[0])] if result == "float64" else None
    if isinstance(scalar, ps.Switch):
        condition, yes, no = (tracer.addresses(x) for x in inputs)
        if inputs[0].constant:
            return [np.where(inputs[0].value, yes, no)]
        return [tracer.switch(condition, yes, no)]
    exact = result == "float64" or isinstance(scalar, _EXACT) or (result == "int64" and isinstance(scalar, _INT64))
    logical = not isinstance(scalar, ps.AND | ps.OR | ps.XOR | ps.Invert) or set(kinds) == {"bool"}
    if not exact or not logical:
        return None
    if isinstance(scalar, ps.Add | ps.Mul):
        return [_folded(tracer, scalar, inputs)]
    op = _UNARY.get(type(scalar)) if len(inputs) == 1 else _BINARY.get(type(scalar))
    if op is None or op in machine.MISSING:
        return None
    return [np.broadcast_to(_simplified(tracer, op, inputs), extent)]


def _folded(tracer: _Tracer, scalar: Any, inputs: list[_Traced]) -> np.ndarray:
    """A sum or product of any number of terms, the constant ones taken together."""
    add = isinstance(scalar, ps.Add)
    extent = np.broadcast_shapes(*[np.shape(x.value) for x in inputs])
    constants = [np.asarray(x.value, np.float64) for x in inputs if x.constant]
    total: Any = None
    for x in inputs:
        if not x.constant:
            here = tracer.addresses(x)
            total = here if total is None else tracer.elementwise(machine.ADD if add else machine.MUL, total, here)
    if constants:
        constant = constants[0]
        for other in constants[1:]:
            constant = constant + other if add else constant * other
        if add or not (constant == 1.0).all():
            op = machine.ADD if add else machine.MUL
            if not add and (constant == -1.0).all():
                total = tracer.elementwise(machine.NEG, np.broadcast_to(total, extent))
            else:
                total = tracer.elementwise(op, total, tracer.literal(constant))
    return np.broadcast_to(total, extent)


def _simplified(tracer: _Tracer, op: int, inputs: list[_Traced]) -> np.ndarray:
    """An instruction, unless a constant operand makes it trivial or cheaper."""
    operands = [tracer.addresses(x) for x in inputs]
    if len(inputs) == 2 and inputs[1].constant and np.size(inputs[1].value):
        constant = np.asarray(inputs[1].value, np.float64)
        if (op in (machine.DIV, machine.POW) and (constant == 1.0).all()) or (
            op == machine.SUB and (constant == 0.0).all() and not np.signbit(constant).any()
        ):
            return operands[0]
        if op == machine.POW and (constant == 2.0).all():
            return tracer.elementwise(machine.SQR, np.broadcast_arrays(*operands)[0])
        if op == machine.POW and (constant == -1.0).all():
            return tracer.elementwise(machine.RECIPROCAL, np.broadcast_arrays(*operands)[0])
    return tracer.elementwise(op, *operands)


#: Results that are exact in doubles whatever the integers.
_EXACT = (ps.LT, ps.GT, ps.LE, ps.GE, ps.EQ, ps.NEQ, ps.IsNan, ps.IsInf, ps.AND, ps.OR, ps.XOR, ps.Invert)
_INT64 = (ps.Add, ps.Sub, ps.Mul, ps.Neg, ps.Maximum, ps.Minimum, ps.Abs, ps.Sign)
_REDUCTIONS = {
    ps.Add: machine.REDUCE_SUM,
    ps.Mul: machine.REDUCE_PROD,
    ps.Maximum: machine.REDUCE_MAX,
    ps.Minimum: machine.REDUCE_MIN,
    ps.AND: machine.REDUCE_MIN,
    ps.OR: machine.REDUCE_MAX,
}
_BINARY = {
    ps.Sub: machine.SUB,
    ps.TrueDiv: machine.DIV,
    ps.Pow: machine.POW,
    ps.Maximum: machine.MAXIMUM,
    ps.Minimum: machine.MINIMUM,
    ps.LT: machine.LT,
    ps.GT: machine.GT,
    ps.LE: machine.LE,
    ps.GE: machine.GE,
    ps.EQ: machine.EQ,
    ps.NEQ: machine.NEQ,
    ps.AND: machine.AND,
    ps.OR: machine.OR,
    ps.XOR: machine.XOR,
    ps.ArcTan2: machine.ARCTAN2,
}
_UNARY = {
    ps.Neg: machine.NEG,
    ps.Sqr: machine.SQR,
    ps.Exp: machine.EXP,
    ps.Log: machine.LOG,
    ps.Log1p: machine.LOG1P,
    ps.Expm1: machine.EXPM1,
    ps.Sqrt: machine.SQRT,
    ps.Abs: machine.ABS,
    ps.Sign: machine.SIGN,
    ps.Reciprocal: machine.RECIPROCAL,
    Sigmoid: machine.SIGMOID,
    Softplus: machine.SOFTPLUS,
    Log1mexp: machine.LOG1MEXP,
    GammaLn: machine.GAMMALN,
    Psi: machine.PSI,
    TriGamma: machine.TRIGAMMA,
    Erf: machine.ERF,
    Erfc: machine.ERFC,
    Erfcx: machine.ERFCX,
    ps.Invert: machine.NOT,
    ps.IsNan: machine.ISNAN,
    ps.IsInf: machine.ISINF,
    ps.Floor: machine.FLOOR,
    ps.Ceil: machine.CEIL,
    ps.Log2: machine.LOG2,
    ps.Log10: machine.LOG10,
    ps.Exp2: machine.EXP2,
    ps.Sin: machine.SIN,
    ps.Cos: machine.COS,
    ps.Tan: machine.TAN,
    ps.ArcSin: machine.ARCSIN,
    ps.ArcCos: machine.ARCCOS,
    ps.ArcTan: machine.ARCTAN,
    ps.Sinh: machine.SINH,
    ps.Cosh: machine.COSH,
    ps.Tanh: machine.TANH,
    ps.ArcSinh: machine.ARCSINH,
    ps.ArcCosh: machine.ARCCOSH,
    ps.ArcTanh: machine.ARCTANH,
}
_WRITERS: dict[type, Callable] = {
    **dict.fromkeys((TensorFromScalar, ScalarFromTensor, DeepCopyOp, TypeCastingOp), _same),
    **dict.fromkeys((SpecifyAssumptions, SpecifyShape, CheckParameterValue), _same),
    **dict.fromkeys((DimShuffle, Reshape, subtensor.Subtensor, subtensor.AdvancedSubtensor), _move()),
    **dict.fromkeys((Alloc, Split, ExtractDiag, extra_ops.Repeat), _move()),
    **dict.fromkeys((JoinDims, SplitDims), _move()),
    Join: _move(None),
    MakeVector: _make_vector,
    subtensor.IncSubtensor: _set_or_increment,
    subtensor.AdvancedIncSubtensor: _set_or_increment,
    CAReduce: _reduction,
    extra_ops.CumOp: _cumulate,
    **dict.fromkeys((ptm.Dot, blas.Dot22, blas.BatchedDot), _product),
    LogSumExp: _log_sum_exp,
    Cholesky: _cholesky,
    SolveTriangular: _solve_triangular,
    Blockwise: _blockwise,
    Elemwise: _elemwise,
    ps.ScalarOp: _elemwise,
}
