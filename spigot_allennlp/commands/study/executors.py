"""
Where the runs of a study are trained.
"""

import os
import signal
import subprocess
import sys
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from allennlp.common import Registrable
from allennlp.common.checks import ConfigurationError

_POLL_SECONDS = 0.2
# Of a run whose worker was lost: it resumes from its last checkpoint.
_RAY_RETRIES = 3


class Job(NamedTuple):
    """
    # Parameters

    folder : `str`
        The run's folder, on a file system that whoever trains it shares.
    packages : `List[str]`
        Modules to import besides the plugins.
    directory : `str`
        Directory that the configs' relative paths start from.
    """

    folder: str
    packages: List[str]
    directory: str


class Progress(NamedTuple):
    """
    # Parameters

    running : `List[int]`
        Indices of the runs that are being trained.
    ended : `List[Tuple[int, int]]`
        Indices of the runs that have just ended, and their exit status.
    """

    running: List[int]
    ended: List[Tuple[int, int]]


def start(job: Job, threads: int) -> subprocess.Popen:
    """
    Start training the run in a process (and process group) of its own, with its output in the run's `log.txt`.
    """
    with open(os.path.join(job.folder, "log.txt"), "a") as log:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "spigot_allennlp.commands.study.worker",
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


def _train(job: Job, threads: int) -> int:
    return start(job, threads).wait()


class Executor(Registrable):
    """
    Trains runs, each in a process of its own.

    # Parameters

    cores : `int`
        Number of cores for all runs together.
    """

    default_implementation = "local"

    def __init__(self, cores: int) -> None:
        self.cores = cores

    def execute(self, jobs: List[Job], workers: int = None) -> Iterator[Progress]:
        """
        # Parameters

        jobs : `List[Job]`
            Runs to train, in order.
        workers : `int`, optional (default = one for each core)
            Number of runs that are trained at once; they share the cores.

        # Returns

        `Iterator[Progress]`
            Several times a second. What is still being trained when the iterator is closed is stopped at once: it
            resumes from its last checkpoint anyway.
        """
        workers = min(workers or self.cores, len(jobs))
        waiting = list(enumerate(jobs))[::-1]
        running: Dict[int, Any] = {}
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    index, job = waiting.pop()
                    running[index] = self._start(job, max(1, self.cores // workers))
                polled = [(index, self._poll(handle)) for index, handle in running.items()]
                ended = [(index, status) for index, status in polled if status is not None]
                for index, _ in ended:
                    del running[index]
                yield Progress(list(running), ended)
                if not ended:
                    time.sleep(_POLL_SECONDS)
        finally:
            for handle in running.values():
                self._stop(handle)

    def _start(self, job: Job, threads: int) -> Any:
        raise NotImplementedError

    def _poll(self, handle: Any) -> Optional[int]:
        """The exit status, or `None`."""
        raise NotImplementedError

    def _stop(self, handle: Any) -> None:
        raise NotImplementedError


@Executor.register("local")
class LocalExecutor(Executor):
    """In processes of this machine."""

    def __init__(self) -> None:
        # Those that a container or a batch system lets us have, where that can be known.
        super().__init__(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)

    def _start(self, job: Job, threads: int) -> subprocess.Popen:
        return start(job, threads)

    def _poll(self, handle: subprocess.Popen) -> Optional[int]:
        return handle.poll()

    def _stop(self, handle: subprocess.Popen) -> None:
        try:
            os.killpg(handle.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        handle.wait()


@Executor.register("ray")
class RayExecutor(Executor):
    """
    On a Ray cluster: the one at `RAY_ADDRESS`, else one that runs on this machine, else a new one. Its
    nodes share a file system with this one, on which are the results, the data and the Python environment. GPUs are
    divided among the runs, at most one for each.

    # Errors

    `ConfigurationError` if Ray is not installed.
    """

    def __init__(self) -> None:
        try:
            import ray
        except ImportError as error:
            raise ConfigurationError("the executor 'ray' needs Ray: pip install 'spigot-allennlp[ray]'") from error
        self._ray = ray
        if not ray.is_initialized():
            ray.init(log_to_driver=False, logging_level="ERROR")
        # The workers are spared the import of this package, which only the run's own process needs.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        super().__init__(max(1, int(ray.cluster_resources().get("CPU", 1))))

    def execute(self, jobs: List[Job], workers: int = None) -> Iterator[Progress]:
        share = self._ray.cluster_resources().get("GPU", 0) / min(workers or self.cores, len(jobs))
        # In thousandths, rounded down, so that the shares of a GPU are not more than the whole.
        self._gpus = min(1, int(share * 1000) / 1000)
        yield from super().execute(jobs, workers)

    def _start(self, job: Job, threads: int) -> Any:
        # A run takes the cores of one node.
        largest = max(int(node["Resources"].get("CPU", 1)) for node in self._ray.nodes() if node["Alive"])
        threads = max(1, min(threads, largest))
        options = {"num_cpus": threads, "num_gpus": self._gpus, "max_retries": _RAY_RETRIES}
        return self._ray.remote(_train).options(**options).remote(job, threads), job

    def _poll(self, handle: Any) -> Optional[int]:
        reference, job = handle
        ready, _ = self._ray.wait([reference], timeout=0)
        if not ready:
            return None
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            with open(os.path.join(job.folder, "log.txt"), "a") as log:
                log.write(f"{error}\n")
            return 1

    def _stop(self, handle: Any) -> None:
        # Forced, the worker ends, and the run's process with it.
        self._ray.cancel(handle[0], force=True)
