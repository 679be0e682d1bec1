"""Private folders for the files of calls: one a call, none left when no call is under way."""

from __future__ import annotations

import os

from muster.provider import ProviderFailed

__all__ = ("Folders",)


class Folders:
    """Folders that only this user may look into, each lent to one call at a time.

    A folder that a call leaves empty is lent again: making and removing one costs as much as a
    tenth of a short command. They go when the last call is over.
    """

    def __init__(self) -> None:
        self._parent: str | None = None
        self._free: list[str] = []
        self._lent = 0

    def take(self) -> str:
        """An empty folder.

        Raises:
            ProviderFailed: it cannot be made.
        """
        if self._free:
            self._lent += 1
            return self._free.pop()
        try:
            if self._parent is None:
                import tempfile

                self._parent = tempfile.gettempdir()
            folder = f"{self._parent}/muster-{os.urandom(8).hex()}"
            os.mkdir(folder, 0o700)
        except OSError as error:
            raise ProviderFailed(f"no folder for the command's files: {error}") from error
        self._lent += 1
        return folder

    def give_back(self, folder: str, *, keep: bool = False) -> None:
        """End the loan; with `keep`, leave the folder and what is in it to the user."""
        self._lent -= 1
        if not keep and _emptied(folder):
            self._free.append(folder)
        if self._lent == 0:
            for free in self._free:
                _remove(free)
            self._free.clear()


def _emptied(folder: str) -> bool:
    """Remove the files in `folder`; whatever is more than files takes the folder with it."""
    try:
        for name in os.listdir(folder):
            os.unlink(f"{folder}/{name}")
    except OSError:
        _remove(folder)
        return False
    return True


def _remove(folder: str) -> None:
    try:
        os.rmdir(folder)
    except OSError:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
