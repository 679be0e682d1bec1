"""Writes of one turn of the event loop, gathered into one transaction.

A commit costs as much as ten statements. Where a hundred things end at the same moment, each with
a commit of its own, the commits are most of the work. So what happens in one turn of the event
loop is gathered, in order, and written as one transaction at its end; who is about to do what
cannot be undone waits for that first (`flushed`). Nothing is held locked meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from sqlite3 import Cursor
from typing import Any

from muster.errors import MusterError
from muster.store.database import Database

__all__ = ("GatheringDatabase",)

MOST = 64
"""Statements that are gathered, however long the turn is."""

NUMBERS = 256
"""Row numbers that are taken from the file at a time."""


class GatheringDatabase(Database):
    """A database whose writes can be gathered; whatever else is asked of it comes after them.

    When gathered writes cannot be written they are lost, and what belongs to them would stand in
    the file alone. So it takes no more of them from then on: each who comes is told. Single writes
    are tried all the same, for what they say of the end.
    """

    def __init__(self, path: Path) -> None:
        self._gathered: list[tuple[str, Sequence[Any]]] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        """Which will write down what is gathered, at the end of its turn."""
        self._loss: str | None = None
        self._loss_is_told = False
        self._numbers: dict[str, Iterator[int]] = {}
        super().__init__(path)

    @property
    def has_lost(self) -> bool:
        """Whether gathered writes were lost."""
        return self._loss is not None

    def forget_loss(self) -> None:
        """Nothing goes on any more that the lost writes belonged to: take new ones."""
        with self._lock:
            self._loss, self._loss_is_told = None, False

    def gather(self, statement: str, values: Sequence[Any]) -> None:
        """One statement that changes something: written at the end of this turn of the event
        loop; where none runs, at once.

        Raises:
            MusterError: it, or one before it, could not be written.
        """
        with self._lock:
            self._refuse_after_loss()
            self._gathered.append((statement, values))
            loop = _running_loop()
            if loop is None or len(self._gathered) >= MOST:
                self.flush()
            elif self._loop is not loop:
                self._loop = loop
                loop.call_soon(self._end_turn)

    async def flushed(self) -> None:
        """Returns when all that was gathered until now is written.

        Raises:
            MusterError: it could not be.
        """
        with self._lock:
            self._refuse_after_loss()
            if not self._gathered:
                return
            loop = asyncio.get_running_loop()
            if self._loop is not loop:  # it belongs to another, which may not turn any more
                self.flush()
                return
            written = loop.create_future()
            self._waiting.append(written)
        await written

    def flush(self) -> None:
        """Write what is gathered now.

        Raises:
            MusterError: it could not be written, or something before it of which nobody was told.
        """
        with self._lock:
            self._write_gathered()
            if not self._loss_is_told:
                self._refuse_after_loss()

    def number(self, table: str) -> int:
        """A number for a row of the table, which must be AUTOINCREMENT: nobody else's, and larger
        than those given here before. Many are taken from the file at a time."""
        with self._lock:
            numbers = self._numbers.get(table, iter(()))
            number = next(numbers, None)
            if number is None:
                numbers = self._numbers[table] = iter(self._take_numbers(table))
                number = next(numbers)
            return number

    # --- what is not gathered comes after what is ---

    def query(self, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[Any]:
        """As `Database.query`."""
        with self._lock:
            if self._gathered:
                self.flush()
            return super().query(statement, values)

    def write(self, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> Cursor:
        """As `Database.write`."""
        with self._lock:
            if not self._connection.in_transaction:
                self.flush()
            return super().write(statement, values)

    def close(self) -> None:
        """Write what is gathered, and let go of the file.

        Raises:
            MusterError: as `flush`.
        """
        try:
            self.flush()
        finally:
            super().close()

    # --- inside ---

    def _end_turn(self) -> None:
        self._loop = None
        with self._lock:
            self._write_gathered()

    def _write_gathered(self) -> None:
        """What goes wrong is told to those who wait for it, else to the next who comes."""
        gathered, self._gathered = self._gathered, []
        waiting, self._waiting = self._waiting, []
        if not gathered:
            return
        try:
            together = groupby(gathered, itemgetter(0))
            self._write_all((statement, [row for _, row in group]) for statement, group in together)
        except Exception as error:  # a value that SQLite cannot hold is none of its own errors
            told = str(error) if isinstance(error, MusterError) else f"{self.path}: {error}"
            self._loss = told
            self._loss_is_told = any(not each.done() for each in waiting)
        for each in waiting:
            _end(each, self._loss)

    def _refuse_after_loss(self) -> None:
        if self._loss is not None:
            self._loss_is_told = True
            raise MusterError(self._loss)

    def _take_numbers(self, table: str) -> range:
        known = "SELECT seq FROM sqlite_sequence WHERE name = ?"
        with self.transaction():
            if not self.query(known, (table,)):
                self.write("INSERT INTO sqlite_sequence (name, seq) VALUES (?, 0)", (table,))
            taken = "UPDATE sqlite_sequence SET seq = seq + ? WHERE name = ?"
            self.write(taken, (NUMBERS, table))
            last: int = self.query(known, (table,))[0][0]
        return range(last - NUMBERS + 1, last + 1)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _end(waiting: asyncio.Future[None], loss: str | None) -> None:
    """Let go on who waits, in whichever loop that is."""

    def end() -> None:
        if waiting.done():
            return  # cancelled
        if loss is None:
            waiting.set_result(None)
        else:
            waiting.set_exception(MusterError(loss))

    loop = waiting.get_loop()
    if loop is _running_loop():
        end()
    else:
        with suppress(RuntimeError):  # it is closed, and nobody waits there any more
            loop.call_soon_threadsafe(end)
