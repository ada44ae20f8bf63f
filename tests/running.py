"""Commands as users type them: in processes of their own, or, without the seconds of imports, in copies of this one."""

import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Callable, List, NamedTuple, Optional

import allennlp.__main__
import pytest
import torch

import spigot_allennlp  # noqa: F401

ALLENNLP = str(Path(sys.executable).with_name("allennlp"))


class Finished(NamedTuple):
    returncode: int
    output: str


def command(cwd: Path, *arguments: Any, program: Optional[List[str]] = None, **variables: Any) -> Finished:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in variables.items()}}
    done = subprocess.run(
        [*(program or [ALLENNLP]), *map(str, arguments)],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
    )
    return Finished(done.returncode, done.stdout)


class Forked:
    """
    A command in a copy of this process, at the head of a process group of its own. Workers of distributed trainings are
    copies, too, instead of new interpreters.
    """

    def __init__(self, cwd: Path, *arguments: Any, **variables: Any) -> None:
        cwd.mkdir(parents=True, exist_ok=True)
        self._output = cwd / "output.txt"
        self.pid = os.fork()
        if not self.pid:  # pragma: no cover
            self._run(cwd, [str(argument) for argument in arguments], variables)

    def _run(self, cwd: Path, arguments: List[str], variables: Any) -> None:  # pragma: no cover
        status = 1
        try:
            os.setpgid(0, 0)
            file = os.open(self._output, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND)
            os.dup2(file, 1)
            os.dup2(file, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            os.chdir(cwd)
            os.environ.update({name: str(value) for name, value in variables.items()})
            sys.argv = ["allennlp", *arguments]
            torch.multiprocessing.spawn = _fork_workers
            allennlp.__main__.run()
            status = 0
        except SystemExit as exit:
            status = exit.code if isinstance(exit.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def output(self) -> str:
        return self._output.read_text(encoding="utf-8", errors="replace") if self._output.exists() else ""

    def wait_until(self, condition: Callable[[], bool], seconds: float = 600) -> None:
        """Fails, with the output so far, where that takes longer."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                os.killpg(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                pytest.fail(f"it hangs:\n{self.output()}")
            time.sleep(0.01)

    def finish(self, seconds: float = 600) -> Finished:
        status = []

        def ended() -> bool:
            pid, code = os.waitpid(self.pid, os.WNOHANG)
            status.append(code)
            return pid != 0

        self.wait_until(ended, seconds)
        return Finished(os.waitstatus_to_exitcode(status[-1]), self.output())


def _fork_workers(function: Callable, args: Any = (), nprocs: int = 1) -> None:  # pragma: no cover
    torch.multiprocessing.start_processes(function, args, nprocs, start_method="fork")


def forked_command(cwd: Path, *arguments: Any, **variables: Any) -> Finished:
    return Forked(cwd, *arguments, **variables).finish()
