"""A seccomp filter as BPF bytes: no sockets, no new processes, no view of other processes.

Used by bubblewrap and by Landlock alike. A candidate is one process (threads are allowed),
which also bounds its memory by its own address-space limit. Numbers: the kernel's
`arch/x86/entry/syscalls/syscall_64.tbl` and `include/uapi/asm-generic/unistd.h` (aarch64).
Usage: `program()` gives the bytes that bubblewrap's `--seccomp` reads.
"""

from __future__ import annotations

import errno
import platform
import struct

# name: (x86_64, aarch64); None where the architecture has no such call.
DENIED = {
    "socket": (41, 198),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "userfaultfd": (323, 282),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "perf_event_open": (298, 241),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fork": (57, None),
    "vfork": (58, None),
    "setpriority": (141, 140),
    "sched_setaffinity": (203, 122),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    "ioprio_set": (251, 30),
}
CLONE, CLONE3, PRLIMIT, TGKILL = (56, 220), (435, 435), (302, 261), (234, 131)
ARCHES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

_LOAD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_CLONE_THREAD = 0x00010000


def supported() -> bool:
    """Whether the filter knows this machine's system call numbers."""
    return platform.machine() in ARCHES


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def program(own_pid: bool = False) -> bytes:
    """The filter. With `own_pid`, `tgkill` too is denied (no process namespace keeps it in)."""
    which, arch = ARCHES[platform.machine()]
    deny = _op(_RET, _ERRNO | errno.EPERM)
    allow = _op(_RET, _ALLOW)
    ops = [_op(_LOAD, 4), _op(_JEQ, arch, 1, 0), _op(_RET, _KILL), _op(_LOAD, 0)]
    if which == 0:  # the x32 calls have their own numbers, from 2**30 up
        ops += [_op(_JGE, 0x40000000, 0, 1), deny]
    numbers = [pair[which] for pair in DENIED.values()] + ([TGKILL[which]] if own_pid else [])
    for number in numbers:
        if number is not None:
            ops += [_op(_JEQ, number, 0, 1), deny]
    # glibc falls back to clone, whose flags a filter can read.
    ops += [_op(_JEQ, CLONE3[which], 0, 1), _op(_RET, _ERRNO | errno.ENOSYS)]
    ops += [
        _op(_JEQ, CLONE[which], 0, 4),
        _op(_LOAD, 16),
        _op(_JSET, _CLONE_THREAD, 1, 0),
        deny,
        allow,
    ]
    ops += [_op(_JEQ, PRLIMIT[which], 0, 4), _op(_LOAD, 16), _op(_JEQ, 0, 1, 0), deny, allow]
    return b"".join([*ops, allow])
