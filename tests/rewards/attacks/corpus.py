"""Attacks on the code verifier, in 20 classes; none may be graded correct, none may leave a trace.

Two styles. A `breach` tries to leave the sandbox and gives the right values only if that worked:
its verdict says whether the door held. A `raw` one attacks the grading itself. Forms: `call`
(f(x) = x*x + 1 on five inputs), `stdin` (the same over input lines), `check` (a loop of asserts
that runs in the second sandbox). Classes 16, 19, 20 are tests of their own (test_rewards_attacks).
"""

from dataclasses import dataclass

SECONDS = 1.0
CANARY = "katlab_canary"
CALL = {
    "entry": "f",
    "tests": [{"args": [i], "expected": i * i + 1} for i in (3, 4, 7, 11, 905)],
    "seconds": SECONDS,
}
STDIN = {
    "tests": [{"input": f"{i}\n", "output": f"{i * i + 1}\n{i}\n"} for i in (3, 4, 905)],
    "seconds": SECONDS,
}
CHECK = {
    "prompt": "def f(x):\n    '''x squared and one'''\n",
    "entry_point": "f",
    "test": "def check(candidate):\n    for x, y in [(3, 10), (4, 17), (905, 819026)]:\n"
    "        assert candidate(x) == y\n",
    "seconds": SECONDS,
}
FORMS = {"call": CALL, "stdin": STDIN, "check": CHECK}


@dataclass(frozen=True)
class Attack:
    number: int  # the class
    name: str
    source: str
    form: str = "call"

    @property
    def id(self) -> str:
        return f"{self.number:02d}-{self.name}"


def breach(number: int, name: str, body: str) -> Attack:
    """An attack whose `body` is the body of a function that returns true if it got through."""
    lines = "\n".join(f"    {line}" for line in body.strip("\n").split("\n"))
    source = (
        f"def breach():\n{lines}\n\n\ndef f(x):\n    try:\n        through = breach()\n"
        "    except BaseException:\n        through = False\n"
        "    return x * x + 1 if through else None\n"
    )
    return Attack(number, name, source)


def raw(number: int, name: str, source: str, form: str = "call") -> Attack:
    return Attack(number, name, source, form)


LIBC = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
FRAMES = """
import sys
def everything():
    frame, seen = sys._getframe(), []
    while frame:
        seen += [frame.f_locals, frame.f_globals]
        frame = frame.f_back
    return seen
"""
FIND = (
    FRAMES
    + """
def job():
    for space in everything():
        if isinstance(space.get("job"), dict):
            return space["job"]
"""
)

ATTACKS = [
    # 1 network
    breach(1, "tcp", "import socket\nreturn socket.create_connection(('127.0.0.1', 22), 0.3) or 1"),
    breach(1, "tcp-socket", "import socket\nreturn socket.socket().fileno() > 0"),
    breach(
        1,
        "udp",
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "return s.sendto(b'x', ('127.0.0.1', 53)) == 1",
    ),
    breach(
        1,
        "unix",
        "import socket\ns = socket.socket(socket.AF_UNIX)\n"
        "s.connect('/var/run/docker.sock')\nreturn True",
    ),
    breach(
        1,
        "unix-abstract",
        "import socket\ns = socket.socket(socket.AF_UNIX)\ns.bind('\\0katlab')\nreturn True",
    ),
    breach(
        1, "netlink", "import socket\nreturn socket.socket(16, socket.SOCK_RAW, 0).fileno() > 0"
    ),
    breach(1, "packet", "import socket\nreturn socket.socket(17, socket.SOCK_RAW).fileno() > 0"),
    breach(1, "dns", "import socket\nreturn socket.getaddrinfo('example.com', 80)"),
    breach(
        1,
        "urllib",
        "import urllib.request\nreturn urllib.request.urlopen('http://127.0.0.1:80', timeout=0.3)",
    ),
    # 2 processes
    breach(2, "fork", "import os\npid = os.fork()\nif pid == 0:\n    os._exit(0)\nreturn pid"),
    breach(2, "fork-bomb", "import os\nfor _ in range(1000):\n    os.fork()\nreturn True"),
    breach(
        2,
        "subprocess",
        "import subprocess, sys\nreturn subprocess.run([sys.executable, '-c', '']).returncode == 0",
    ),
    breach(
        2,
        "spawn",
        "import os, sys\nreturn os.posix_spawn(sys.executable, [sys.executable, '-V'], {})",
    ),
    breach(2, "system", "import os\nreturn os.system('true') == 0"),
    breach(
        2,
        "daemon",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n"
        "    if os.fork() == 0:\n        time.sleep(600)\nreturn True",
    ),
    breach(
        2,
        "multiprocessing",
        "import multiprocessing as m\np = m.Process(target=print)\np.start()\nreturn True",
    ),
    breach(
        2, "libc-fork", LIBC + "pid = libc.fork()\nif pid == 0:\n    libc._exit(0)\nreturn pid > 0"
    ),
    breach(
        2, "raw-clone3", LIBC + "return libc.syscall(435, ctypes.create_string_buffer(88), 88) >= 0"
    ),
    # 3 memory
    breach(3, "bytearray", "return len(bytearray(4 << 30))"),
    breach(3, "list-doubling", "x = [0]\nwhile len(x) < 1 << 28:\n    x = x + x\nreturn True"),
    breach(3, "string", "return len('a' * 2**40)"),
    breach(
        3, "mmaps", "import mmap\nm = [mmap.mmap(-1, 64 << 20) for _ in range(64)]\nreturn True"
    ),
    breach(
        3,
        "threads",
        "import threading, time\n"
        "t = [threading.Thread(target=time.sleep, args=(9,), daemon=True)"
        " for _ in range(3000)]\nfor one in t:\n    one.start()\nreturn True",
    ),
    breach(3, "memfd", "import os\nreturn os.memfd_create('x') > 0"),
    # 4 disk
    breach(4, "big-file", "open('big', 'wb').write(bytes(200 << 20))\nreturn True"),
    breach(
        4,
        "big-in-parts",
        "total = 0\nfor i in range(64):\n    with open(f'/tmp/{i}', 'wb') as o:\n"
        "        total += o.write(bytes(1 << 20))\nreturn total == 64 << 20",
    ),
    breach(
        4, "sparse", "import os\nf = open('s', 'wb')\nos.truncate(f.fileno(), 1 << 40)\nreturn True"
    ),
    breach(4, "root", f"return open('/{CANARY}', 'w').write('x')"),
    breach(4, "library", f"return open('/usr/lib/{CANARY}', 'w').write('x')"),
    breach(4, "stdlib", f"import os\nreturn open(os.path.dirname(os.__file__) + '/{CANARY}', 'w')"),
    breach(4, "shm", f"return open('/dev/shm/{CANARY}', 'w').write('x')"),
    breach(4, "hardlink", "import os\nos.link(os.__file__, '/tmp/os')\nreturn True"),
    # 5 reading
    breach(
        5, "own-environment", "return b'KATLAB_SECRET' in open('/proc/self/environ', 'rb').read()"
    ),
    breach(5, "os-environ", "import os\nreturn 'KATLAB_SECRET' in os.environ"),
    breach(5, "init", "return open('/proc/1/cmdline').read() + open('/proc/1/environ').read()"),
    breach(5, "parent", "import os\nreturn open(f'/proc/{os.getppid()}/cmdline').read()"),
    breach(5, "processes", "import os\nreturn [p for p in os.listdir('/proc') if p.isdigit()]"),
    breach(5, "passwd", "return open('/etc/passwd').read()"),
    breach(5, "home", "import os\nreturn os.listdir('@HOME@')"),
    breach(5, "ssh", "import os\nreturn os.listdir('@HOME@/.ssh')"),
    breach(5, "token", "return open('@HOME@/.cache/huggingface/token').read()"),
    breach(5, "repository", "return open('@REPO@/pyproject.toml').read()"),
    breach(5, "import-katlab", "import sys\nsys.path.append('@REPO@')\nimport katlab\nreturn True"),
    # 6 signals and tracing
    breach(6, "kill-all", "import os\nos.kill(-1, 9)\nreturn True"),
    breach(6, "kill-parent", "import os\nos.kill(os.getppid(), 0)\nreturn True"),
    breach(6, "kill-grader", "import os\nos.kill(@PID@, 0)\nreturn True"),
    breach(6, "kill-group", "import os\nos.killpg(@PID@, 0)\nreturn True"),
    breach(6, "ptrace", LIBC + "return libc.ptrace(0, 0, 0, 0) == 0"),
    breach(6, "attach", LIBC + "return libc.ptrace(16, @PID@, 0, 0) == 0"),
    breach(
        6,
        "limits-of-grader",
        "import resource\nresource.prlimit(@PID@, resource.RLIMIT_NOFILE)\nreturn True",
    ),
    raw(6, "stop", "import signal\ndef f(x):\n    signal.raise_signal(signal.SIGSTOP)\n"),
    raw(
        6,
        "outlive",
        LIBC + "import time\nlibc.prctl(1, 0, 0, 0, 0)\ndef f(x):\n    time.sleep(60)\n",
    ),
    # 7 exits
    raw(7, "sys-exit", "import sys\nsys.exit(0)\n"),
    raw(7, "os-exit", "import os\nos._exit(0)\n"),
    raw(7, "raise", "def f(x):\n    raise SystemExit(0)\n"),
    raw(7, "os-exit-call", "import os\ndef f(x):\n    os._exit(0)\n"),
    raw(
        7,
        "thread-exit",
        "import threading, os\nthreading.Thread(target=os._exit, args=(0,)).start()\n"
        "def f(x):\n    pass\n",
    ),
    raw(
        7, "atexit", "import atexit, os\natexit.register(os._exit, 0)\ndef f(x):\n    return None\n"
    ),
    raw(7, "close-all", "import os\nos.closerange(0, 1000)\ndef f(x):\n    return x\n"),
    raw(
        7, "exec", "import os, sys\ndef f(x):\n    os.execv(sys.executable, ['python', '-c', ''])\n"
    ),
    raw(7, "exit-stdin", "import sys\nsys.exit(0)\n", "stdin"),
    raw(7, "exit-check", "import os\ndef f(x):\n    os._exit(0)\n", "check"),
    raw(7, "exit-at-import-check", "import os\nos._exit(0)\n", "check"),
    raw(7, "close-at-import-check", "import os\nos.closerange(0, 1000)\n", "check"),
    # 8 monkey-patching
    raw(
        8,
        "builtins",
        "import builtins\nbuiltins.len = lambda x: 0\nbuiltins.type = lambda x: int\n"
        "builtins.isinstance = lambda *a: True\nbuiltins.all = lambda x: True\n"
        "builtins.AssertionError = type(None)\ndef f(x):\n    return None\n",
    ),
    raw(
        8,
        "json",
        "import json\njson.dumps = json.loads = lambda *a, **k: 10\n"
        "def f(x):\n    return object()\n",
        "check",
    ),
    raw(
        8,
        "stdout",
        "import sys\nclass O:\n    def write(self, s): pass\n    def flush(self): pass\n"
        "sys.stdout = O()\nprint('ok')\n",
        "stdin",
    ),
    raw(
        8,
        "unittest",
        "import unittest\nunittest.TestCase.run = lambda *a: None\n"
        "def f(x):\n    raise unittest.SkipTest('skip')\n",
    ),
    raw(
        8,
        "main",
        "import sys\nsys.modules['__main__'].__dict__['holds'] = lambda *a: True\n"
        "def f(x):\n    return True\n",
    ),
    raw(
        8,
        "modules",
        "import sys\nfor name in list(sys.modules):\n    sys.modules[name] = sys\n"
        "def f(x):\n    return True\n",
    ),
    raw(
        8,
        "import-hook",
        "import sys, builtins\nbuiltins.__import__ = lambda *a, **k: sys\n"
        "def f(x):\n    return 1\n",
        "check",
    ),
    raw(
        8,
        "sitecustomize",
        "open('sitecustomize.py', 'w').write('import os; os._exit(0)')\ndef f(x):\n    return x\n",
    ),
    raw(
        8,
        "harness",
        FRAMES + "for space in everything():\n    for name in ('plain', 'attempt', "
        "'record', 'load'):\n        if name in space:\n"
        "            space[name] = lambda *a: 'true'\n"
        "def f(x):\n    return None\n",
    ),
    raw(8, "assert-swallow", "def f(x):\n    raise AssertionError('pass')\n", "check"),
    # 9 looking for the expected values
    raw(
        9,
        "frames",
        FIND + "def f(x):\n    for key in ('wants', 'expected', 'tests'):\n"
        "        v = job().get(key)\n        if v and str(x * x + 1) in str(v):\n"
        "            return x * x + 1\n",
    ),
    raw(
        9,
        "gc",
        "import gc\ndef f(x):\n    for o in gc.get_objects():\n"
        "        if isinstance(o, dict) and ('expected' in o or 'wants' in o):\n"
        "            return x * x + 1\n        if isinstance(o, (list, tuple)) and any(\n"
        "                type(v) is int and v == x * x + 1 > 9000 for v in o[:50]):\n"
        "            return x * x + 1\n",
    ),
    raw(
        9,
        "check-source",
        FRAMES + "def f(x):\n    for space in everything():\n"
        "        if str(905 * 905 + 1) in str(space)[:200000] or 'check' in space:\n"
        "            return x * x + 1\n",
        "check",
    ),
    raw(
        9,
        "memory-file",
        "def f(x):\n    data = open('/proc/self/mem', 'rb').read(1 << 20)\n    return x * x + 1\n",
    ),
    # 10 lying values
    raw(
        10,
        "eq",
        "class A:\n    def __eq__(self, o): return True\n    def __ne__(self, o): return False\n"
        "    def __hash__(self): return 1\ndef f(x):\n    return A()\n",
    ),
    raw(
        10,
        "eq-check",
        "class A(int):\n    def __eq__(self, o): return True\ndef f(x):\n    return A(3)\n",
        "check",
    ),
    raw(
        10,
        "class-lie",
        "class A:\n    __class__ = int\n    def __index__(self): return 10\n"
        "def f(x):\n    return A()\n",
    ),
    raw(
        10,
        "int-subclass",
        "class A(int):\n    def __repr__(self): return '10'\n"
        "    def __add__(self, o): return 10\ndef f(x):\n    return A(5)\n",
    ),
    raw(10, "bool", "def f(x):\n    return True\n"),
    raw(10, "nan", "def f(x):\n    return float('nan')\n"),
    raw(10, "decimal", "import decimal\ndef f(x):\n    return decimal.Decimal(x * x + 1)\n"),
    raw(10, "generator", "def f(x):\n    yield x * x + 1\n"),
    raw(10, "string", "def f(x):\n    return str(x * x + 1)\n"),
    raw(10, "self-list", "def f(x):\n    a = []\n    a.append(a)\n    return a\n"),
    raw(10, "huge-dict", "def f(x):\n    return {i: i for i in range(1000000)}\n"),
    # 11 forged records
    raw(
        11,
        "forge",
        FIND + "import os\ndef f(x):\n    j = job()\n    for v in (b'true', b'10', b'17'):\n"
        "        os.write(j['fd'], j['nonce'] + b'V%010d' % len(v) + v)\n"
        "    os.write(j['fd'], j['nonce'] + b'D%010d' % 0)\n",
    ),
    raw(
        11,
        "no-nonce",
        "import os\nfor fd in range(3, 64):\n    try:\n"
        "        os.write(fd, b'V0000000002' + b'10')\n    except OSError:\n        pass\n"
        "def f(x):\n    return None\n",
    ),
    raw(
        11,
        "replay",
        FIND + "import os\ndef f(x):\n    j = job()\n    for _ in range(9):\n"
        "        os.write(j['fd'], j['nonce'] + b'D%010d' % 0)\n",
    ),
    raw(
        11,
        "two-records",
        FIND + "import os\ndef f(x):\n    j = job()\n"
        "    os.write(j['fd'], (j['nonce'] + b'V%010d' % 2 + b'10') * 2)\n    return 10\n",
    ),
    raw(
        11,
        "truncated",
        FIND + "import os\ndef f(x):\n    j = job()\n"
        "    os.write(j['fd'], j['nonce'] + b'V0000000100' + b'10')\n    os._exit(0)\n",
    ),
    raw(
        11,
        "length",
        FIND + "import os\ndef f(x):\n    j = job()\n"
        "    os.write(j['fd'], j['nonce'] + b'V9999999999')\n",
    ),
    raw(
        11,
        "not-json",
        FIND + "import os\ndef f(x):\n    j = job()\n"
        "    os.write(j['fd'], j['nonce'] + b'V%010d' % 4 + b'{\"~t')\n",
    ),
    raw(
        11,
        "judge",
        FIND + "import os\nj = job()\nos.write(j['fd'], j['nonce'] + b'D%010d' % 0)\n"
        "def f(x):\n    return 0\n",
        "check",
    ),
    raw(
        11,
        "ready-twice",
        FIND + "import os\ndef f(x):\n    j = job()\n"
        "    while True:\n        os.write(j['fd'], j['nonce'] + b'R%010d' % 0)\n",
    ),
    raw(11, "stdout", "print('V000000000210' * 100)\nprint('{\"passed\": true}')\n", "stdin"),
    # 12 output
    raw(12, "endless", "while True:\n    print('x' * 1000)\n", "stdin"),
    raw(12, "endless-call", "def f(x):\n    while True:\n        print('x' * 1000)\n"),
    raw(12, "one-line", "print('x' * (50 << 20))\n", "stdin"),
    raw(12, "not-utf8", "import os\nos.write(1, b'\\xff\\xfe\\x00' * 100)\n", "stdin"),
    raw(12, "nul-ansi", "print('\\0\\x1b[2J\\x1b]0;x\\7')\n", "stdin"),
    raw(
        12,
        "flood",
        FIND + "import os\ndef f(x):\n    while True:\n"
        "        os.write(job()['fd'], b'x' * 65536)\n",
    ),
    raw(
        12,
        "records",
        FIND + "import os\ndef f(x):\n    j = job()\n    v = b'1' * 1000\n"
        "    while True:\n        os.write(j['fd'], j['nonce'] + b'V%010d' % len(v) + v)\n",
    ),
    # 13 values that hurt the reader
    raw(
        13,
        "deep",
        "def f(x):\n    a = []\n    for _ in range(100000):\n        a = [a]\n    return a\n",
    ),
    raw(
        13,
        "deep-json",
        FIND + "import os\ndef f(x):\n    j = job()\n    v = b'[' * 100000\n"
        "    os.write(j['fd'], j['nonce'] + b'V%010d' % len(v) + v)\n    return 1\n",
    ),
    raw(13, "digits", "def f(x):\n    return 10 ** 100000\n"),
    raw(
        13,
        "digits-json",
        FIND + "import os\ndef f(x):\n    j = job()\n    v = b'1' * 100000\n"
        "    os.write(j['fd'], j['nonce'] + b'V%010d' % len(v) + v)\n    return 1\n",
    ),
    raw(13, "collisions", "def f(x):\n    return {i * (2 ** 61 - 1) for i in range(2000)}\n"),
    raw(
        13,
        "odd-tags",
        FIND + "import os\ndef f(x):\n    j = job()\n    v = b'{\"~d\": [1, null]}'\n"
        "    os.write(j['fd'], j['nonce'] + b'V%010d' % len(v) + v)\n    return 1\n",
    ),
    # 14 time
    raw(14, "spin", "def f(x):\n    while True:\n        pass\n"),
    raw(14, "spin-at-import", "while True:\n    pass\n"),
    raw(14, "sleep", "import time\ndef f(x):\n    time.sleep(100)\n    return x * x + 1\n"),
    raw(
        14,
        "ignore-signals",
        "import signal, time\nfor s in range(1, 32):\n    try:\n"
        "        signal.signal(s, signal.SIG_IGN)\n"
        "    except (OSError, ValueError):\n        pass\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))\ndef f(x):\n    time.sleep(100)\n",
    ),
    raw(
        14,
        "swallow",
        "def f(x):\n    while True:\n        try:\n            while True:\n"
        "                pass\n        except BaseException:\n            pass\n",
    ),
    raw(14, "regex", "import re\ndef f(x):\n    return re.match(r'(a+)+$', 'a' * 60 + 'b')\n"),
    raw(14, "power", "def f(x):\n    return 9 ** 9 ** 9\n"),
    raw(
        14,
        "recursion",
        "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(x):\n    return f(x + 1)\n",
    ),
    raw(14, "c-stack", "import ctypes\ndef f(x):\n    ctypes.string_at(0)\n"),
    raw(
        14,
        "threads",
        "import threading\ndef g():\n    while True:\n        pass\n"
        "for _ in range(8):\n    threading.Thread(target=g).start()\ndef f(x):\n    return None\n",
    ),
    raw(14, "sleep-check", "import time\ndef f(x):\n    time.sleep(100)\n", "check"),
    raw(14, "sleep-stdin", "import time\ntime.sleep(100)\n", "stdin"),
    raw(14, "spin-at-import-check", "while True:\n    pass\n", "check"),
    # 15 sources
    raw(15, "parentheses", "x = " + "(" * 20000 + ")" * 20000 + "\ndef f(x):\n    return 1\n"),
    raw(15, "terms", "x = " + "+".join(["1"] * 50000) + "\ndef f(x):\n    return 1\n"),
    raw(15, "constant-fold", "def f(x):\n    return (((1 << 100000) ** 100) ** 100) ** 100\n"),
    raw(15, "long", "#" + "x" * 300_000 + "\ndef f(x):\n    return x * x + 1\n"),
    raw(15, "nul", "def f(x):\n    return 1\n\0\n"),
    raw(15, "cookie", "# -*- coding: rot13 -*-\nqrs s(k):\n    erghea k * k + 1\n"),
    raw(15, "surrogate", "s = '\udcff'\ndef f(x):\n    return s\n"),
    # 17 namespaces
    breach(17, "unshare-user", LIBC + "return libc.unshare(0x10000000) == 0"),
    breach(17, "unshare-net", LIBC + "return libc.unshare(0x40000000) == 0"),
    breach(17, "mount", LIBC + "return libc.mount(b'proc', b'/tmp', b'proc', 0, None) == 0"),
    breach(17, "chroot", "import os\nos.chroot('/tmp')\nreturn True"),
    breach(17, "setuid", "import os\nos.setresuid(0, 0, 0)\nos.listdir('@HOME@')\nreturn True"),
    # 18 outputs that are nearly right
    raw(18, "first-line", "n = int(input())\nprint(n * n + 1)\n", "stdin"),
    raw(18, "all-values", "for v in (10, 3, 17, 4, 819026, 905):\n    print(v)\n", "stdin"),
    raw(18, "blank-lines", "n = int(input())\nprint(n * n + 1)\nprint()\nprint(n)\n", "stdin"),
    raw(18, "extra-line", "n = int(input())\nprint(n * n + 1)\nprint(n)\nprint(n)\n", "stdin"),
    raw(18, "nothing", "pass\n", "stdin"),
    raw(
        18,
        "right-then-exit-1",
        "import sys\nn = int(input())\nprint(n * n + 1)\nprint(n)\nsys.exit(1)\n",
        "stdin",
    ),
]
