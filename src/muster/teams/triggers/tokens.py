"""The token of a webhook that names no Secret: made up once, and kept for the user alone."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from urllib.parse import quote

from muster.errors import MusterError

__all__ = ("kept_token",)


def kept_token(root: Path, name: str) -> tuple[str, Path]:
    """The token of the event `name`, and the file in which it stands.

    Raises:
        MusterError: the file cannot be used, or others may read it.
    """
    folder = root / ".muster" / "tokens"
    path = folder / quote(name, safe="")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _keep_out_of_git(folder)
        if not path.exists():
            _write_new(path, secrets.token_hex(32))
        if path.stat().st_mode & 0o077:
            raise MusterError(f"{path}: others may read this token; chmod 600, or delete it")
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise MusterError(f"{path}: the webhook's token cannot be kept: {error}") from None
    if len(token) < 16:
        raise MusterError(f"{path}: not a token; delete it, and a new one is made")
    return token, path


def _write_new(path: Path, token: str) -> None:
    """Whole or not at all; if another process was faster, its token stays."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(token + "\n")
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _keep_out_of_git(folder: Path) -> None:
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="ascii")
