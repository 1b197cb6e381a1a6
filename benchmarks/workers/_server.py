"""What all workers do: load a case, prepare a step, and time it whenever the driver asks.

A worker is a process in the library's own environment. It writes JSON, one line an answer: first what the driver checks
(the log-likelihood at the start, versions), then for each line "run" the seconds of one step, by the wall's clock and
the processor's; at the end of the input its peak memory.
"""

from __future__ import annotations

import json
import pickle
import resource
import sys
import time
import warnings

#: Seconds that iterations are repeated for, in every library.
AT_LEAST = 0.25
answers = sys.stdout
sys.stdout = sys.stderr  # libraries print


def _answer(**values):
    answers.write(json.dumps(values) + "\n")
    answers.flush()


def peak_mib() -> float:
    """The process's largest resident set so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


def serve(prepare):
    """``prepare(case, task)`` returns a step, a function that may return its own seconds or facts, and known facts."""
    warnings.simplefilter("ignore")
    task, path = sys.argv[1:3]
    with open(path, "rb") as file:
        case = pickle.load(file)
    before = peak_mib()
    begin = time.perf_counter()
    step, facts = prepare(case, task)
    _answer(**facts, prepared=time.perf_counter() - begin, base=before)
    for _ in sys.stdin:
        wall, processor, answers_of = time.perf_counter(), time.process_time(), []
        # iterations follow each other in a fit: the first after a pause finds every cache cold
        while not answers_of or (task.startswith("em") and time.perf_counter() - wall < AT_LEAST):
            answers_of.append(step() or {})
        times = len(answers_of)
        wall, processor = (time.perf_counter() - wall) / times, (time.process_time() - processor) / times
        found = {name: sum(each[name] for each in answers_of) / times if times > 1 else answers_of[0][name]
                 for name in answers_of[0]}  # fmt: skip
        _answer(**{"seconds": wall, "processor": processor, **found})
    _answer(peak=peak_mib())
