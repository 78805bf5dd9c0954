"""The engine `ray`: a pool of processes, on this machine or a cluster, each with its own copy of the model."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from decomp.runs.run import Batch
from decomp.runs.work import Outcome, outcomes
from decomp.tables.blocks import Block

Compute = Callable[[Sequence[Any]], Block]
"""A function from the items of a batch to their rows."""
Unit = list[Batch]
ATTEMPTS = 3
"""The number of times that a unit is tried again after its worker has died."""


def check_ray() -> None:
    """Raise ValueError where ray is not installed; it is not imported, which takes seconds."""
    if find_spec("ray") is None:
        raise ValueError("--engine ray needs ray: pip install 'tokenwise-decomposition[ray]'")


class Worker:
    """One process of the pool: it loads the model when it starts, then computes units of batches."""

    def __init__(self, start: Callable[[], Compute], threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.compute = start()

    def begin(self) -> list[Outcome]:
        """Return an empty list; Ray answers this call once the model is loaded."""
        return []

    def run(self, unit: Unit, items: Sequence[Any]) -> list[Outcome]:
        """Return the outcomes of a unit, given its items."""
        first = unit[0].start
        return list(outcomes(unit, lambda batch: self.compute(items[batch.start - first : batch.stop - first])))


@dataclass(frozen=True)
class Pool:
    """A pool of processes under Ray: `workers` of them, of `threads` threads each."""

    ray: Any
    workers: int
    threads: int
    resources: Mapping[str, float]
    """The processors and GPUs that Ray reserves for each process."""

    def run(self, start: Callable[[], Compute], items: Sequence[Any], units: list[Unit]) -> Iterator[Outcome]:
        """Yield the outcomes of the units as they are done; a unit whose worker dies is tried again.

        Workers that the cluster has no room for yet get no units.
        """
        again = {"max_restarts": -1, "max_task_retries": ATTEMPTS}
        remote = self.ray.remote(Worker).options(**self.resources, **again)
        workers = [remote.remote(start, self.threads) for _ in range(self.workers)]
        running: dict[Any, tuple[Any, Unit]] = {worker.begin.remote(): (worker, []) for worker in workers}
        waiting, reason = units[::-1], "no worker is left"
        while running and (waiting or any(unit for _, unit in running.values())):
            (done,), _ = self.ray.wait([*running])
            worker, unit = running.pop(done)
            try:
                results = self.ray.get(done)
            except self.ray.exceptions.RayError as error:
                reason = describe_death(error)
                if not unit:  # it could not begin
                    continue
                results = [failed_outcome(unit, reason)]
            if waiting:
                unit = waiting.pop()
                own = items[unit[0].start : unit[-1].stop]
                running[worker.run.remote(unit, own)] = (worker, unit)
            yield from results
        yield from (failed_outcome(unit, reason) for unit in reversed(waiting))


def failed_outcome(unit: Unit, reason: str) -> Outcome:
    """Return the outcome of a unit that failed for this reason."""
    return Outcome(range(unit[0].start, unit[-1].stop), [], reason, 0.0, "", 0)


def describe_death(error: Exception) -> str:
    """Return why a worker did not answer: that it died, or the error with which it could not begin."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    return f"its worker died, {ATTEMPTS + 1} times" if not raised else f"its worker could not begin: {raised[-1]}"


@contextmanager
def open_pool(address: str | None, workers: int | None, device: str) -> Iterator[Pool]:
    """Open a pool on the cluster at `address`, or on this machine alone.

    By default there is a worker for each GPU where the device is one, else one; threads are an equal share of the
    cores.
    """
    check_ray()
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address is None:
            ray.init(num_cpus=len(os.sched_getaffinity(0)), include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(f"no Ray cluster at {address!r}: {str(error).splitlines()[0]}") from error
    try:
        yield pool_of(ray, workers, device)
    finally:
        ray.shutdown()


def pool_of(ray: Any, workers: int | None, device: str) -> Pool:
    """Return the pool that a cluster has room for. ValueError for a device that it lacks."""
    gpu, resources = device.startswith("cuda"), ray.cluster_resources()
    count = workers or (int(resources.get("GPU", 0)) if gpu else 1)
    if count < 1:
        raise ValueError(f"--device {device}: the Ray cluster has no GPU; use --device cpu")
    largest = max(int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["Alive"])
    threads = max(1, min(int(resources.get("CPU", 1)) // count, largest))
    # A share of a core where there are more workers than cores: each has to find room.
    cores = min(float(threads), resources.get("CPU", 1.0) / count)
    return Pool(ray, count, threads, {"num_cpus": cores, "num_gpus": 1 if gpu else 0})
