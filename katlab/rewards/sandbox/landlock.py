"""Confines the calling process with Landlock and seccomp; runs inside, before the candidate.

For machines without user namespaces (kernel 5.13 or later). Read access to the interpreter's
library and the system's shared libraries, nothing else; no write, no TCP (ABI 4), no signals out
(ABI 6); sockets, processes and signals by the filter of `seccomp`. What it does not hide: whether
a path exists. Sent as a code object.
Usage: `confine(readable=["/usr/lib"], program=filter_bytes)` in a process about to run a candidate.
"""

import ctypes
import os
import struct

CREATE, ADD_RULE, RESTRICT = 444, 445, 446  # system calls, the same on every architecture
READ_FILE, READ_DIR, EXECUTE = 1 << 2, 1 << 3, 1 << 0
NO_NEW_PRIVS, SET_SECCOMP, SET_PDEATHSIG, CAPSET = 38, 22, 1, {"x86_64": 126, "aarch64": 91}


def confine(readable, program):
    """Applies both; raises OSError with the step that the kernel refused."""
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result, step):
        if result < 0:
            raise OSError(ctypes.get_errno(), f"{step}: {os.strerror(ctypes.get_errno())}")
        return result

    check(libc.prctl(SET_PDEATHSIG, 9, 0, 0, 0), "PDEATHSIG")
    if os.getuid() == 0:  # keep the id (the library may lie in root's home), drop every capability
        header, none = struct.pack("Ii", 0x20080522, 0), bytes(24)
        check(libc.syscall(CAPSET[os.uname().machine], header, none), "capset")
    check(libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0), "NO_NEW_PRIVS")
    abi = check(libc.syscall(CREATE, None, 0, 1), "Landlock")
    files = (1 << 13) - 1 | (abi >= 2) << 13 | (abi >= 3) << 14 | (abi >= 5) << 15
    attributes = struct.pack("QQQ", files, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    rules = check(libc.syscall(CREATE, attributes, size, 0), "landlock_create_ruleset")
    for path in readable:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rights = READ_FILE | EXECUTE | (READ_DIR if os.path.isdir(path) else 0)
        rule = struct.pack("=Qi", rights, fd)
        check(libc.syscall(ADD_RULE, rules, 1, rule, 0), f"landlock_add_rule {path}")
        os.close(fd)
    check(libc.syscall(RESTRICT, rules, 0), "landlock_restrict_self")
    os.close(rules)
    code = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    check(libc.prctl(SET_SECCOMP, 2, header, 0, 0), "seccomp")
