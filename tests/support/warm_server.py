"""The server behind `tests.support.warm_python`: a process with the large packages imported, which forks itself on request.

Run as a script, so that it imports nothing of this project. Each request is handled by a process of its own, the keeper, whose child
becomes the program. The keeper passes on signals and the exit code, and kills the program if the connection is lost.
"""

import gc
import importlib
import marshal
import multiprocessing
import os
import runpy
import select
import shutil
import signal
import socket
import sys
import types
from contextlib import suppress

PACKAGES = (
    "torch._dynamo",  # which optimizers import
    "h5py",
    "pydantic",
    "distributed",
    "dvc.cli.parser",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "sklearn.mixture",
    "jinja2",
    "markdown_it",
)
MOST_FILES = 200


def serve(address, python):
    """Return in each process that is to become a program, with the function that runs it. Ends with the standard input."""
    del sys.path[0]  # the folder of this script
    os.environ["JE_ARROW_MALLOC_CONF"] = (
        "background_thread:false"  # pyarrow, which scikit-learn imports, would start a thread
    )
    for name in PACKAGES:
        importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "a package has started threads, which a fork would lose"
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    os.write(1, b"ready\n")
    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        if 0 in ready:
            shutil.rmtree(os.path.dirname(address), ignore_errors=True)
            os._exit(0)
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            return keep(connection, python)
        connection.close()


def keep(connection, python):
    """Fork the program, and wait for its end; return only in the program."""
    size, files, _, _ = socket.recv_fds(connection, 4, MOST_FILES)
    request = b""
    while len(request) < int.from_bytes(size, "little"):
        part = connection.recv(1 << 16)
        if not part:  # the client was killed
            os._exit(0)
        request += part
    arguments, environment, folder, numbers, mask = marshal.loads(request)
    program = os.fork()
    with suppress(OSError):  # done by both, because either may be first
        os.setpgid(program, program)
    if program == 0:
        connection.close()
        take_files(dict(zip(numbers, files, strict=True)))
        # New ones, because the old ones know what kind of files they had.
        sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        sys.executable = python
        multiprocessing.set_executable(python)
        return lambda: become(arguments)
    for file in (*files, 0, 1, 2):
        os.close(file)
    end = os.pidfd_open(program)
    while True:
        ready, _, _ = select.select([end, connection], [], [])
        if end in ready:
            code = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
            with suppress(OSError):  # the client was killed at the same time
                connection.send(code.to_bytes(4, "little", signed=True))
            os._exit(0)
        number = (connection.recv(1) or bytes([signal.SIGKILL]))[0]
        # A group, as for Ctrl-C in a terminal: what the program has started gets the signal, too.
        (os.kill if number == signal.SIGTERM else os.killpg)(program, number)
        if number == signal.SIGKILL:
            os.waitpid(program, 0)
            os._exit(0)


def take_files(files):
    """Give open files the numbers that they have in the client; `files` maps these to the present numbers."""
    import fcntl

    above = 1 + max(*files, *files.values())
    moved = {number: fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, above) for number, file in files.items()}
    os.closerange(0, above)
    for number, file in moved.items():
        os.dup2(file, number)
        os.close(file)


def become(arguments):
    """Run what `python ARGUMENTS` runs: ``-m MODULE …`` or ``-c CODE …``."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kind, what, *rest = arguments
    sys.path[:0] = [os.getcwd() if kind == "-m" else "", *filter(None, paths)]
    if kind == "-m":
        sys.argv = [what, *rest]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.argv = ["-c", *rest]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), main.__dict__)


if __name__ == "__main__":
    serve(*sys.argv[1:])()
