"""A folder of its own for each call of a command: copied from a template or a git revision, and
compared afterwards with what it was.

The comparison keeps its own repository outside of the folder, so that nothing the command writes
into `.git` in there can run a program within Muster. What `.gitignore` names is not compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from muster.provider import BadRequest, ProviderError, ProviderFailed, ProviderRequest
from muster.providers.process import Completed, run_process
from muster.providers.settings import ProviderSettings

__all__ = ("Place", "WorkspaceSettings", "Workspaces")

_GIT_SECONDS = 300.0
_MAX_STATUS_BYTES = 1 << 20


class WorkspaceSettings(ProviderSettings):
    """Where a command works, in a folder made for it."""

    template: str | None = None
    """A folder that is copied, relative to the targets file."""
    git: str | None = None
    """A repository that is cloned: a folder, relative to the targets file, or a URL."""
    revision: str = "HEAD"
    """Of `git`: the branch, tag or commit that is checked out."""
    scope: Literal["call", "case"] = "call"
    """`case`: the turns of a conversation share a folder; each attempt begins with a fresh one all
    the same."""
    keep: Literal["never", "on_error", "always"] = "never"
    """Whether folders stay when they are no longer needed; the response or the error says where."""
    folder: str | None = None
    """Where the folders are made, relative to the targets file; default: the system's own place for
    temporary files."""
    max_diff_bytes: Annotated[int, Field(ge=0)] = 1024 * 1024
    """The most that is kept of the diff."""

    @model_validator(mode="after")
    def _has_one_source(self) -> WorkspaceSettings:
        if (self.template is None) == (self.git is None):
            raise ValueError("a workspace has either `template` or `git`")
        if self.git is None and "revision" in self.model_fields_set:
            raise ValueError("`revision` is for `git`")
        for value in (self.git, self.revision):
            if value is not None and (value.startswith("-") or not value or "::" in value):
                raise ValueError(f"{value!r} names no repository or revision")
        return self


@dataclass(slots=True)
class Place:
    """A folder that a call works in; `found` is filled in when the call has ended."""

    path: Path
    index: Path
    baseline: str = ""
    """The tree that it was made with."""
    note: str = ""
    """What git could not compare."""
    found: dict[str, Any] = field(default_factory=dict)
    """`diff`, `files` (`{path, status}`), `truncated`, a `note` if there is one; `path`
    if the folder stays."""


class Workspaces:
    """Makes the folders of one target, and removes them."""

    def __init__(self, settings: WorkspaceSettings, base_dir: Path) -> None:
        self._settings = settings
        self._base_dir = base_dir
        self._root: Path | None = None
        self._source: Path | None = None
        self._preparing = asyncio.Lock()
        self._cases: dict[tuple[str, str], Place] = {}

    @contextlib.asynccontextmanager
    async def of(self, request: ProviderRequest) -> AsyncIterator[Place]:
        """A folder for the request, as the settings want it.

        Raises:
            ProviderFailed: it cannot be made.
        """
        place = await self._take(request)
        try:
            yield place
            place.found = await self._compare(place)
        except BaseException as error:
            kept = self._settings.keep != "never" and isinstance(error, ProviderError)
            if kept and isinstance(error, ProviderError):
                error.message += f"\nworkspace kept in {place.path}"
                error.args = (error.message,)
            await self._give_back(place, keep=kept, failed=True)
            raise
        keep = self._settings.keep == "always"
        if keep:
            place.found["path"] = str(place.path)
        await self._give_back(place, keep=keep, failed=False)

    async def aclose(self) -> None:
        """Remove what is left, save what is to be kept."""
        places, self._cases = list(self._cases.values()), {}
        if self._settings.keep != "always":
            for place in places:
                await asyncio.to_thread(_remove, place.path)
        root, self._root, self._source = self._root, None, None
        if root is not None:
            for name in ("baseline.git", "source.git", "indexes"):
                await asyncio.to_thread(_remove, root / name)
            with contextlib.suppress(OSError):
                root.rmdir()  # kept folders are still in it

    # --- making ---

    async def _take(self, request: ProviderRequest) -> Place:
        case = (request.eval_case_id or "", request.metadata.get("repeat", ""))
        if self._settings.scope == "case" and case[0]:
            known = self._cases.pop(case, None)
            if known is not None and request.messages and not request.attempt:
                self._cases[case] = known
                return known
            if known is not None:
                await asyncio.to_thread(_remove, known.path)
            place = self._cases[case] = await self._made()
            return place
        return await self._made()

    async def _made(self) -> Place:
        root = await self._prepared()
        name = os.urandom(6).hex()
        place = Place(root / f"work-{name}", root / "indexes" / name)
        try:
            await self._fill(place.path)
            place.baseline = await self._tree(place)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(_remove, place.path))
            raise
        return place

    async def _prepared(self) -> Path:
        """The folder that holds the others; made once, with the repository to compare in."""
        if self._root is not None:
            return self._root
        async with self._preparing:
            if self._root is not None:
                return self._root
            settings = self._settings
            parent = None if settings.folder is None else self._base_dir / settings.folder
            try:
                if parent is not None:
                    parent.mkdir(parents=True, exist_ok=True)
                root = Path(tempfile.mkdtemp(prefix="muster-work-", dir=parent))
                (root / "indexes").mkdir()
            except OSError as error:
                raise ProviderFailed(f"no place for workspaces: {error}") from error
            try:
                await _git(["init", "--quiet", "--bare", "--template=", str(root / "baseline.git")])
                if settings.git is not None:
                    self._source = await self._mirrored(settings.git, root)
            except BaseException:
                await asyncio.shield(asyncio.to_thread(_remove, root))
                raise
            self._root = root
            return root

    async def _mirrored(self, repository: str, root: Path) -> Path:
        """The repository as a folder on this machine; one that is elsewhere is fetched once."""
        local = (self._base_dir / repository).expanduser()
        if local.is_dir():
            return local.resolve()
        if "://" not in repository and "@" not in repository:
            raise BadRequest(f"workspace: there is no repository {local}")
        mirror = root / "source.git"
        await _git(["clone", "--quiet", "--bare", "--", repository, str(mirror)], own=True)
        return mirror

    async def _fill(self, path: Path) -> None:
        settings = self._settings
        if self._source is not None:
            clone = ["clone", "--quiet", "--no-checkout", "--template=", "--"]
            await _git([*clone, str(self._source), str(path)])
            # Nothing that is done in there can be pushed to where it comes from.
            await _git(["-C", str(path), "remote", "remove", "origin"])
            checkout = ["checkout", "--quiet", "--detach"]
            try:
                commit = await self._commit(self._source)
                await _git(["-C", str(path), *checkout, commit])
            except ProviderFailed as error:
                raise BadRequest(
                    f'workspace: revision "{settings.revision}" of {settings.git} cannot be '
                    f"checked out: {error.message}"
                ) from error
            return
        template = (self._base_dir / (settings.template or "")).resolve()
        if not template.is_dir():
            raise BadRequest(f"workspace: the template {template} is not a folder")
        await _copy(template, path)

    async def _commit(self, source: Path) -> str:
        wanted = f"{self._settings.revision}^{{commit}}"
        done = await _git(["-C", str(source), "rev-parse", "--verify", "--quiet", wanted])
        return done.stdout.decode().strip()

    # --- comparing ---

    async def _tree(self, place: Place) -> str:
        """What is in the folder now, as a tree of the repository beside it."""
        # What cannot be read is left out, and told; the rest is compared all the same.
        done = await self._beside(place, "add", "--all", "--ignore-errors", "--", ".", failing=True)
        place.note = done.stderr.decode("utf-8", "replace").strip() if done.exit_code else ""
        return (await self._beside(place, "write-tree")).stdout.decode().strip()

    async def _compare(self, place: Place) -> dict[str, Any]:
        now = await self._tree(place)
        limit = self._settings.max_diff_bytes
        how = ("diff-tree", "--no-ext-diff", "--no-textconv", "--no-color", "-r")
        trees = (place.baseline, now)
        names = await self._beside(place, *how, "--name-status", "-z", *trees)
        files = _files(names.stdout)
        diff = b""
        truncated = False
        if files and limit:
            done = await self._beside(place, *how, "-p", *trees, limit=limit, cut=True)
            diff, truncated = done.stdout[:limit], done.stopped == "stdout"
        text = diff.decode("utf-8", "replace")
        found = {"diff": text, "files": files, "truncated": truncated}
        return {**found, "note": place.note} if place.note else found

    async def _beside(
        self,
        place: Place,
        *arguments: str,
        limit: int = _MAX_STATUS_BYTES,
        cut: bool = False,
        failing: bool = False,
    ) -> Completed:
        assert self._root is not None
        where = [f"--git-dir={self._root / 'baseline.git'}", f"--work-tree={place.path}"]
        quiet = ["-c", "core.autocrlf=false", "-c", "core.fsmonitor=false"]
        variables = {"GIT_INDEX_FILE": str(place.index)}
        return await _git(
            [*where, *quiet, *arguments],
            cwd=place.path,
            more=variables,
            limit=limit,
            cut=cut,
            failing=failing,
        )

    # --- removing ---

    async def _give_back(self, place: Place, *, keep: bool, failed: bool) -> None:
        in_case = place in self._cases.values()
        if in_case and not failed:
            return  # the next turn of the conversation may need it
        if in_case:
            self._cases = {case: known for case, known in self._cases.items() if known != place}
        with contextlib.suppress(OSError):
            place.index.unlink()
        if not keep:
            await asyncio.shield(asyncio.to_thread(_remove, place.path))


async def _git(
    arguments: list[str],
    *,
    cwd: Path | None = None,
    more: dict[str, str] | None = None,
    limit: int = _MAX_STATUS_BYTES,
    own: bool = False,
    cut: bool = False,
    failing: bool = False,
) -> Completed:
    """Run git. Without `own`, neither the user's nor the machine's settings of git count. With
    `cut`, more output than `limit` is no failure; with `failing`, an exit code is none.

    Raises:
        ProviderFailed: git is not there, or says that something is wrong.
    """
    env = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.environ.get("HOME", "/"),
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "file:https:http:ssh:git",
        **(more or {}),
    }
    if not own:
        env |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        env |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory"}
        env["GIT_CONFIG_VALUE_0"] = "*"
    encoded = {os.fsencode(key): os.fsencode(value) for key, value in env.items()}
    try:
        done = await run_process(
            ["git", *arguments], env=encoded, cwd=cwd, timeout=_GIT_SECONDS, max_stdout=limit
        )
    except FileNotFoundError as error:
        raise ProviderFailed("a workspace needs git, which is not on the PATH") from error
    if done.stopped == "stdout" and cut:
        return done
    if (done.exit_code != 0 and not failing) or done.stopped is not None:
        told = done.stderr.decode("utf-8", "replace").strip() or f"exit code {done.exit_code}"
        raise ProviderFailed(f"workspace: git: {told}")
    return done


async def _copy(source: Path, target: Path) -> None:
    """Copy a folder on a thread, which stops when this call is cancelled."""
    stopped = threading.Event()

    def copied(one: str, other: str) -> str:
        if stopped.is_set():
            raise InterruptedError("the call was cancelled")
        if not stat.S_ISREG(os.stat(one).st_mode):
            return other  # a pipe or a device is nothing to work on
        return shutil.copy2(one, other)

    def work() -> None:
        shutil.copytree(source, target, symlinks=True, copy_function=copied)

    copying = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(copying)
    except asyncio.CancelledError:
        stopped.set()
        with contextlib.suppress(Exception):
            await copying
        raise
    except (OSError, shutil.Error) as error:
        raise ProviderFailed(f"workspace: {source} cannot be copied: {error}") from error


def _files(data: bytes) -> list[dict[str, str]]:
    """What `--name-status -z` lists."""
    words = {"A": "added", "D": "deleted", "M": "modified", "T": "modified"}
    parts = data.decode("utf-8", "replace").split("\0")
    return [
        {"path": path, "status": words.get(letter[:1], letter)}
        for letter, path in zip(parts[::2], parts[1::2], strict=False)
        if path
    ]


def _remove(path: Path) -> None:
    """Remove a folder, whatever modes its owner has given to what is in it."""

    def opened(function: Any, name: str, _: Any) -> None:
        with contextlib.suppress(OSError):
            os.chmod(os.path.dirname(name), 0o700)
            if os.path.isdir(name) and not os.path.islink(name):
                os.chmod(name, 0o700)
                shutil.rmtree(name, ignore_errors=True)
            else:
                os.unlink(name)

    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, onerror=opened)
