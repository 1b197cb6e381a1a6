"""Progress bars in PyMC's style, silent unless asked for.

In a terminal they are rich's. In a notebook they are one line of HTML that renews itself, which needs no widgets and
leaves its last state in the file. Where there is neither (logs, pipes) they are plain lines, one every so many seconds
and one at the end, without control characters.
"""

from __future__ import annotations

import html
import sys
import time
from typing import Any, Protocol

#: Seconds between two lines of a log.
_SELDOM = 10.0
#: Seconds between two states of a notebook's line.
_OFTEN = 0.2


class Progress:
    """A bar of `total` steps as a context manager; ``step(note)`` moves it by one.

    Parameters
    ----------
    title : str
    total : int or None
        Steps; None where nobody knows how many.
    show : bool
        Nothing happens otherwise.
    """

    def __init__(self, title: str, total: int | None, show: bool):
        self.title, self.total, self.show = title, total, show
        self.done, self.note = 0, ""
        self._view: _View | None = None

    def __enter__(self) -> Progress:
        if self.show:
            self._view = (
                _InTerminal(self) if sys.stderr.isatty() else _InNotebook(self) if _notebook() else _InLog(self)
            )
        return self

    def step(self, note: str = "") -> None:
        """One step done."""
        self.to(self.done + 1, note)

    def to(self, done: int, note: str = "") -> None:
        """So many steps done in all."""
        self.done, self.note = done, note
        if self._view is not None:
            self._view.update()

    def __exit__(self, *exc: Any) -> None:
        if self._view is not None:
            self._view.close()
            self._view = None


class _View(Protocol):
    """Where progress is shown."""

    def update(self) -> None: ...

    def close(self) -> None: ...


class _InTerminal:
    def __init__(self, progress: Progress):
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Rich

        self.progress = progress
        # a console of its own: fits in several threads may each have a bar
        self.bar = Rich(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("<"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(file=sys.stderr),
        )
        self.bar.start()
        self.task = self.bar.add_task(progress.title, total=progress.total, note="")

    def update(self) -> None:
        self.bar.update(self.task, completed=self.progress.done, note=self.progress.note)

    def close(self) -> None:
        self.bar.stop()


class _InNotebook:
    def __init__(self, progress: Progress):
        from IPython.display import display

        self.progress, self.began, self.shown = progress, time.monotonic(), time.monotonic()
        self.handle = display(self._html(), display_id=True)

    def _html(self) -> Any:
        from IPython.display import HTML

        p = self.progress
        ends = f' max="{p.total}" value="{p.done}"' if p.total else ""
        return HTML(f"<progress{ends}></progress> {html.escape(_line(p, self.began))}")

    def _show(self) -> None:
        self.handle.update(self._html())
        self.shown = time.monotonic()

    def update(self) -> None:
        if time.monotonic() > self.shown + _OFTEN:
            self._show()

    def close(self) -> None:
        self._show()


class _InLog:
    def __init__(self, progress: Progress):
        self.progress, self.began, self.shown = progress, time.monotonic(), time.monotonic()

    def _show(self) -> None:
        print(_line(self.progress, self.began), file=sys.stderr, flush=True)
        self.shown = time.monotonic()

    def update(self) -> None:
        if time.monotonic() > self.shown + _SELDOM:
            self._show()

    def close(self) -> None:
        self._show()


def _line(progress: Progress, began: float) -> str:
    of = f" of {progress.total}" if progress.total else ""
    minutes, seconds = divmod(int(time.monotonic() - began), 60)
    return (
        f"{progress.title}: {progress.done}{of}, {minutes}:{seconds:02d}{f', {progress.note}' if progress.note else ''}"
    )


def _notebook() -> bool:
    """Whether outputs go to a notebook's front end."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None
