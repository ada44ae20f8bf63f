"""
Where the runs of a study are trained: in processes of this machine, or on a Ray cluster.
"""

import os
import signal
import subprocess
import sys
import time
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

_POLL_SECONDS = 0.2


class Job(NamedTuple):
    """
    # Parameters

    folder : `str`
        The run's folder, on a file system that whoever trains it shares.
    packages : `List[str]`
        What to import besides the plugins.
    directory : `str`
        Where the configs' relative paths begin.
    """

    folder: str
    packages: List[str]
    directory: str


# What an executor gives while it is at work: the runs that have just ended, by their index, with their exit status.
Ended = List[Tuple[int, int]]


def start(job: Job, threads: int) -> subprocess.Popen:
    """
    Start training the run in a process (and process group) of its own, with its output in the run's `log.txt`.
    """
    with open(os.path.join(job.folder, "log.txt"), "a") as log:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "spigot_allennlp.commands.study.child",
                job.folder,
                str(os.getpid()),
                *job.packages,
            ],
            cwd=job.directory,
            env={"OMP_NUM_THREADS": str(threads), **os.environ},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop(process: subprocess.Popen) -> None:
    """At once, and with all that it started: what is interrupted resumes from its last checkpoint anyway."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def run_locally(jobs: List[Job], workers: Optional[int]) -> Iterator[Ended]:
    """
    # Parameters

    jobs : `List[Job]`
    workers : `int`, optional (default = the number of cores)
        How many are trained at once. They share the cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(workers or cores, len(jobs))
    waiting = list(enumerate(jobs))[::-1]
    running: Dict[int, subprocess.Popen] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                index, job = waiting.pop()
                running[index] = start(job, max(1, cores // workers))
            ended = [(index, process.returncode) for index, process in running.items() if process.poll() is not None]
            for index, _ in ended:
                del running[index]
            yield ended
            if not ended:
                time.sleep(_POLL_SECONDS)
    finally:
        for process in running.values():
            stop(process)


EXECUTORS = {"local": run_locally}
