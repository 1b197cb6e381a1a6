"""Progress bars in PyMC's style (rich), silent unless asked for."""

from __future__ import annotations

from typing import Any


class Progress:
    """A bar of `total` steps as a context manager; ``step(note)`` moves it by one."""

    def __init__(self, title: str, total: int, show: bool):
        self.title, self.total, self.show = title, total, show
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if self.show:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Rich

            self._bar = Rich(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, note="")
        return self

    def step(self, note: str = "") -> None:
        """One step done."""
        if self._bar is not None:
            self._bar.update(self._task, advance=1, note=note)

    def to(self, done: int) -> None:
        """So many steps done in all."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done)

    def __exit__(self, *exc: Any) -> None:
        if self._bar is not None:
            self._bar.stop()
