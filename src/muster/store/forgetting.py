"""Runs that are no longer kept, with the files that their steps left in the project."""

from __future__ import annotations

from muster.store.journal import Journal

__all__ = ("forget_run",)


def forget_run(journal: Journal, run_id: str) -> None:
    """Delete the run, and its artifacts beside the journal; not those that were kept elsewhere.

    Raises:
        UsageError: there is no such run, or it has not ended.
        OSError: its files cannot be removed.
    """
    import shutil

    journal.delete(run_id)
    folder = journal.path.parent / "artifacts" / run_id
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
