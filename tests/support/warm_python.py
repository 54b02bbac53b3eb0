"""A `python` for tests that run many stages: it starts in milliseconds instead of seconds.

Most of the time of a small stage is the import of PyTorch, DVC and Dask. The `python` in the folder that `warm_folder` returns is a script
that asks a server, `tests.support.warm_server`, to fork a process in which these packages are imported already. Our own packages are
not: the process imports those of its working directory, like any other. The script passes on arguments, environment, open
files and signals, returns the exit code, and if it is killed, so is the process. Everything else than stages, DVC, our command and
processes of multiprocessing starts as usual.

The project that all tests copy is made without it, so that each stage also runs in a Python of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

SERVER = Path(__file__).with_name("warm_server.py")
# -I and -S: without the environment and site-packages, this starts in a hundredth of a second.
CLIENT = """\
#!{python} -IS
import array, marshal, os, signal, socket, sys

arguments = sys.argv[1:]
module = arguments[1] if arguments[:1] == ["-m"] else ""
child = "--multiprocessing-fork" in arguments
if not (child or module.startswith("stages.") or module in ("dvc", "pipeline.cli.main")):
    os.execv({python!r}, [{python!r}, *arguments])
if child:  # options of Python may come before -c
    del arguments[: arguments.index("-c")]
mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
files = [int(name) for name in os.listdir("/proc/self/fd")]
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
files = [file for file in files if file != server.fileno() and os.path.exists(f"/proc/self/fd/{{file}}")]
request = marshal.dumps((arguments, dict(os.environ), os.getcwd(), files, [int(number) for number in mask]))
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: server.send(bytes([number])))
server.sendmsg([len(request).to_bytes(4, "little")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))])
server.sendall(request)
for file in files:
    os.close(file)
answer = server.recv(4)
code = int.from_bytes(answer, "little", signed=True) if answer else 1
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


@cache
def warm_folder() -> Path | None:
    """Return the folder of a `python` that starts quickly; None where the system has no way to do this."""
    if sys.platform != "linux":
        return None
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    address, python = folder / "server", folder / "python"
    python.write_text(CLIENT.format(python=sys.executable, address=str(address)))
    python.chmod(0o755)
    (folder / "dvc").symlink_to(Path(sys.executable).with_name("dvc"))
    # The server ends, and removes the folder, when this process does: its standard input is then at an end.
    server = subprocess.Popen(
        [sys.executable, str(SERVER), str(address), str(python)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n", "the server of processes did not start"
    return folder
