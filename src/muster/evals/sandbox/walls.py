"""The system calls that shut code in, by `ctypes`; run within the child, standard library only.

As root the walls are built with root's own rights, and the code then runs as a user that nobody
else has. Without root, a user namespace gives the rights to build them, and no others.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import struct

_CLONE_NEWNS, _CLONE_NEWCGROUP, _CLONE_NEWUTS = 0x00020000, 0x02000000, 0x04000000
_CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWPID = 0x08000000, 0x10000000, 0x20000000
_CLONE_NEWNET = 0x40000000
_CLONE_NEWTIME = 0x00000080

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 32, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_SYS_MOUNT_SETATTR = 442
_AT_RECURSIVE, _AT_FDCWD = 0x8000, -100
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 1, 4, 22, 24
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 38, 47
_CAP_VERSION = 0x20080522

INNER_USER = 1000
"""What the user of a user namespace is called within it."""

FOLDER = "/sandbox"
"""Where the code may write."""

_FIRST_USER, _USERS = 1_900_000_000, 50_000_000
"""Users that no system gives out: two for each sandbox, by the number of its process."""

_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """The system does not allow a wall to be built."""


def _call(what: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise Refused(f"{what}: {os.strerror(number)}")
    return result


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()
    )
    _call(f"mount {target}", result)


def prctl(option: int, *arguments: int) -> int:
    """As the system's; the result, -1 when it is refused."""
    given = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    result: int = _libc.prctl(option, *given)
    return result


def check_platform() -> None:
    """Raise `Refused` where these walls do not exist."""
    machine = platform.machine()
    if platform.system() != "Linux" or machine not in _SYS_PIVOT_ROOT:
        raise Refused(f"it needs Linux on x86-64 or ARM64, this is {platform.system()} {machine}")


def unused_user() -> int | None:
    """For root, a user that nobody else is, and the next one too; `None` for others."""
    if os.geteuid() != 0:
        return None
    user = _FIRST_USER + 2 * (os.getpid() % _USERS)
    with open("/proc/self/uid_map", encoding="ascii") as file:
        spans = [tuple(map(int, line.split())) for line in file]
    if not any(first <= user and user + 1 < first + count for first, _, count in spans):
        raise Refused("root of this container has no users to spare; run it as another user")
    return user


def unshare(*, as_root: bool) -> None:
    """Leave the system's processes (for those that are forked from now on), files, network, IPC and
    names behind."""
    uid, gid = os.getuid(), os.getgid()
    flags = _CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS
    flags |= _CLONE_NEWCGROUP
    if not as_root:
        flags |= _CLONE_NEWUSER
    _call("unshare", _libc.unshare(flags))
    if not as_root:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{INNER_USER} {uid} 1")
        _write("/proc/self/gid_map", f"{INNER_USER} {gid} 1")


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from None


def build_root(readable: dict[str, str], size: int, uid: int, gid: int, *, base: str) -> int | None:
    """A file system that has `FOLDER` to write to, `size` bytes of it, and what `readable` names to
    read from, each where it says; nothing else. `base` is any folder: it is covered.

    Returns:
        A descriptor of the `/proc` of the processes within, for whoever watches them; `None` where
        the system does not give one.
    """
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    proc = _own_proc()
    os.chdir("/")
    _mount("tmpfs", base, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1m,nr_inodes=2048,mode=755")
    for path, target in readable.items():
        _show(path, base + target)
    for name in ("null", "zero", "full", "random", "urandom"):
        _show(f"/dev/{name}", f"{base}/dev/{name}", device=True)
    _make_folder(base + FOLDER)
    with contextlib.suppress(FileExistsError):  # Python itself may lie there
        os.symlink(FOLDER, f"{base}/tmp")  # noqa: S108 - within the walls
    options = f"size={size},nr_inodes=4096,mode=700,uid={uid},gid={gid}"
    _mount("tmpfs", base + FOLDER, "tmpfs", _MS_NOSUID | _MS_NODEV, options)
    _make_folder(f"{base}/.old")
    pivot = _SYS_PIVOT_ROOT[platform.machine()]
    result = _libc.syscall(pivot, base.encode(), f"{base}/.old".encode())
    _call("pivot_root", result)
    os.chdir("/")
    _call("umount", _libc.umount2(b"/.old", _MNT_DETACH))
    os.rmdir("/.old")
    flags = _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV
    _mount("none", "/", "", flags)
    os.chdir(FOLDER)
    return proc


def _own_proc() -> int | None:
    """A descriptor of this namespace's `/proc`, mounted where nobody else comes."""
    try:
        _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
        return os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (Refused, OSError):
        return None


def _make_folder(path: str) -> None:
    os.makedirs(path, mode=0o755, exist_ok=True)


def _show(path: str, target: str, *, device: bool = False) -> None:
    """Let `path` be seen at `target`; what is not there is left out."""
    if os.path.islink(path) and not device:
        _make_folder(os.path.dirname(target))
        with contextlib.suppress(FileExistsError):
            os.symlink(os.readlink(path), target)
        return
    if not os.path.exists(path) or (os.path.exists(target) and not device):
        return  # a folder above it is shown already
    if os.path.isdir(path):
        _make_folder(target)
    else:
        _make_folder(os.path.dirname(target))
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(path, target, "", _MS_BIND | _MS_REC)
    bits = _ATTR_NOSUID | (0 if device else _ATTR_RDONLY | _ATTR_NODEV)
    attributes = struct.pack("QQQQ", bits, 0, 0, 0)
    result = _libc.syscall(
        _SYS_MOUNT_SETATTR,
        _AT_FDCWD,
        target.encode(),
        _AT_RECURSIVE,
        ctypes.c_char_p(attributes),
        ctypes.c_size_t(len(attributes)),
    )
    _call(f"making {path} read-only", result)


def become(uid: int | None) -> None:
    """Give up all rights, those of root too; as `uid`, if that is given."""
    for capability in range(64):
        if prctl(_PR_CAPBSET_DROP, capability) < 0:
            break
    prctl(_PR_CAP_AMBIENT, 4)  # clear all
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    header = struct.pack("Ii", _CAP_VERSION & 0xFFFFFFFF, 0)
    result = _libc.capset(ctypes.c_char_p(header), ctypes.c_char_p(bytes(24)))
    _call("capset", result)
    _call("no_new_privs", prctl(_PR_SET_NO_NEW_PRIVS, 1))


def cannot_be_traced() -> None:
    """Nobody of the same user may look into this process."""
    prctl(_PR_SET_DUMPABLE, 0)


def set_limit(kind: int, value: int) -> None:
    """Bound what this process and those it starts may take; it cannot be undone."""
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


# --- calls that code has no use for ---------------------------------------------------------------

# By name, for x86-64 and ARM64: ways to keep memory that no limit counts, to reach other processes,
# to build other walls, or to ask the kernel for what it seldom does and often does wrong.
_FORBIDDEN = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_setup": (206, 0),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "semget": (64, 190),
    "setns": (308, 268),
    "shmat": (30, 196),
    "shmget": (29, 194),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _EACCES, _ENOSYS = 1, 13, 38
_AF_UNIX = 1
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000
_LOAD, _IF_EQUAL, _IF_ABOVE, _IF_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


def forbid_calls() -> None:
    """Refuse those calls, sockets of all kinds but those between the code's own processes, and new
    namespaces. Raises `Refused` where the kernel has no filters."""
    machine = platform.machine()
    at = 0 if machine == "x86_64" else 1
    clone, socket = ((56, 41), (220, 198))[at]
    clone3 = 435
    program = [
        (_LOAD, 0, 0, 4),  # the architecture
        (_IF_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # the call's number
    ]
    if machine == "x86_64":
        program += [(_IF_ABOVE, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for numbers in _FORBIDDEN.values():
        if numbers[at]:
            program += [(_IF_EQUAL, 0, 1, numbers[at]), (_RETURN, 0, 0, _ERROR | _EPERM)]
    spaces = (
        _CLONE_NEWNS
        | _CLONE_NEWCGROUP
        | _CLONE_NEWUTS
        | _CLONE_NEWIPC
        | _CLONE_NEWUSER
        | _CLONE_NEWPID
        | _CLONE_NEWNET
        | _CLONE_NEWTIME
    ) & ~0xFF  # the low byte of `clone` is a signal's number
    program += [
        # Its flags lie in memory that a filter cannot read: without it, libraries take `clone`.
        (_IF_EQUAL, 0, 1, clone3),
        (_RETURN, 0, 0, _ERROR | _ENOSYS),
        (_IF_EQUAL, 0, 4, clone),
        (_LOAD, 0, 0, 16),  # the first argument
        (_IF_BITS, 0, 1, spaces),
        (_RETURN, 0, 0, _ERROR | _EPERM),
        (_RETURN, 0, 0, _ALLOW),
        (_IF_EQUAL, 0, 3, socket),
        (_LOAD, 0, 0, 16),
        (_IF_EQUAL, 1, 0, _AF_UNIX),
        (_RETURN, 0, 0, _ERROR | _EACCES),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(code)
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    result = _libc.prctl(
        _PR_SET_SECCOMP, ctypes.c_ulong(2), ctypes.c_char_p(header), ctypes.c_ulong(0), 0
    )
    _call("the filter of system calls", result)
