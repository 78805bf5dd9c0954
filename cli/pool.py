"""The engine `ray`: a pool of processes, on this machine or a cluster, each with a model of its own."""

import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from decomp.runs.run import Batch
from decomp.runs.work import Outcome, outcomes
from decomp.tables.blocks import Block

ATTEMPTS = 3
"""Times that a unit is tried again after its worker has died."""


def need_ray() -> Any:
    """Return the module ray. ValueError where it is not installed."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError("--engine ray needs ray: pip install 'tokenwise-decomposition[ray]'") from error
    return ray


class Worker:
    """One process of the pool: it loads the model when it starts, then computes units."""

    def __init__(self, start: Callable[[], Callable[[Sequence[Any]], Block]], threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.compute = start()

    def __call__(self, items: Mapping[str, Any]) -> dict[str, Any]:
        (content,) = items["unit"]
        unit, own = pickle.loads(content)
        first = unit[0].start
        results = outcomes(unit, lambda batch: self.compute(own[batch.start - first : batch.stop - first]))
        return {"outcomes": [pickle.dumps(list(results))]}


@dataclass(frozen=True)
class Pool:
    """`workers` processes of `threads` threads each."""

    ray: Any
    workers: int
    threads: int
    gpu: bool

    def run(
        self,
        start: Callable[[], Callable[[Sequence[Any]], Block]],
        items: Sequence[Any],
        units: list[list[Batch]],
    ) -> Iterator[Outcome]:
        """Yield what comes of the units, as they are done; a unit whose worker dies is tried again."""
        data = self.ray.data
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1
        pickled = [{"unit": pickle.dumps((unit, items[unit[0].start : unit[-1].stop]))} for unit in units]
        results = data.from_items(pickled, override_num_blocks=len(pickled)).map_batches(
            Worker,
            fn_constructor_args=(start, self.threads),
            batch_size=1,
            compute=data.ActorPoolStrategy(size=self.workers),
            num_cpus=self.threads,
            num_gpus=1 if self.gpu else 0,
            max_restarts=-1,
            max_task_retries=ATTEMPTS,
        )
        left = {unit[0].start: unit for unit in units}
        for row in results.iter_rows():
            for outcome in pickle.loads(row["outcomes"]):
                left.pop(outcome.items.start, None)
                yield outcome
        for unit in left.values():
            reason = f"its worker died, {ATTEMPTS + 1} times"
            yield Outcome(range(unit[0].start, unit[-1].stop), [], reason, 0.0, "", 0)


@contextmanager
def open_pool(address: str | None, workers: int | None, device: str) -> Iterator[Pool]:
    """Open a pool on the cluster at `address`, or on this machine alone.

    By default a worker for each GPU where the device is one, else one. Threads: an equal share of the cores.
    """
    ray = need_ray()
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
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
    """Return the pool that a cluster has room for. ValueError for a device that it has not."""
    gpu, resources = device.startswith("cuda"), ray.cluster_resources()
    count = workers or (int(resources.get("GPU", 0)) if gpu else 1)
    if count < 1:
        raise ValueError(f"--device {device}: the Ray cluster has no GPU; use --device cpu")
    largest = max(int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["Alive"])
    threads = max(1, min(int(resources.get("CPU", 1)) // count, largest))
    return Pool(ray, count, threads, gpu)
