"""Start the programs in processes of their own, forked from this one: torch is imported already,
which would take seconds."""

import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from typing import Any
from unittest import mock

import torch

NOT_SHOWN = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)


class Forked(subprocess.Popen):
    """``subprocess.Popen([sys.executable, "train.py", ...])`` without its start-up."""

    def _execute_child(self, *parts: Any) -> None:
        # beside a GPU autograd works in no forked process, and on a Mac its libraries may not
        if torch.cuda.is_available() or sys.platform != "linux":
            return super()._execute_child(*parts)
        args, _, preexec_fn, _, _, cwd, env, _, _, _, *pipes = parts[:16]
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                for number, descriptor in enumerate((pipes[0], pipes[3], pipes[5])):
                    if descriptor != -1:
                        os.dup2(descriptor, number)
                os.closerange(3, os.sysconf("SC_OPEN_MAX"))
                status = run([*map(str, args[1:])], cwd, env, preexec_fn)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        self._child_created = True
        self._close_pipe_fds(*pipes)


def run_forked(args: list[str], **options: Any) -> subprocess.CompletedProcess:
    """``subprocess.run``, forked."""
    with mock.patch.object(subprocess, "Popen", Forked):
        return subprocess.run(args, **options)


def run(args: list[str], cwd: Any, env: dict[str, str] | None, preexec_fn: Any) -> int:
    """Be the program that ``python ARGS`` would be; return its exit status."""
    if cwd:
        os.chdir(cwd)
    if env is not None:
        os.environ.clear()
        os.environ.update(env)
    tempfile.tempdir = None
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) not in (None, signal.SIG_IGN):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as Python does
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if preexec_fn:
        preexec_fn()
    warnings.resetwarnings()
    for category in NOT_SHOWN:
        warnings.simplefilter("ignore", category)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", 1, "utf-8", "backslashreplace", closefd=False)
    try:
        if args[0] == "-m":
            sys.argv = args[1:]
            runpy.run_module(args[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = args
            runpy.run_path(args[0], run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    return 0
