"""One of the processes of `sharded`: python -m graft.training.sharded_worker, with its place in the environment.

Standard input holds the task, then "go" or "stop" after each step of the first process; its end means that the caller
is gone. Standard output holds JSON lines: progress, result, error. It does not know who started it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import sys
import threading
from typing import Any


def main() -> None:
    """Train this process's part."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no message

    def tell(**told: Any) -> None:
        out.write(json.dumps(told) + "\n")
        out.flush()

    task = json.loads(sys.stdin.buffer.readline())
    answers: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_listen, args=(answers,), daemon=True).start()

    import torch

    from graft.errors import TrainingError
    from graft.training.general import GeneralTrainer
    from graft.training.sharded import run_of

    trainer = GeneralTrainer(device=task["device"], checkpointing=task["checkpointing"], shards=task["shards"])
    _meet(trainer.on_gpu())
    try:
        result = trainer.train(
            run_of(task),
            progress=lambda seen: tell(progress=dataclasses.asdict(seen)),
            cancelled=lambda: answers.get() == b"stop",
        )
    except TrainingError as error:
        tell(error=error.message, fix=error.fix)
        os._exit(0)
    if os.environ["RANK"] == "0":
        adapter = None if result.adapter is None else str(result.adapter)
        tell(result=dataclasses.asdict(result) | {"adapter": adapter})
    torch.distributed.destroy_process_group()
    os._exit(0)  # the thread that listens cannot be ended otherwise


def _listen(answers: queue.Queue[bytes]) -> None:
    """Pass on the caller's lines; without a caller there is nothing to train for."""
    for line in sys.stdin.buffer:
        answers.put(line.strip())
    os._exit(1)


def _meet(gpu: bool) -> None:
    """Join the group through a file; accelerate takes the group that is there."""
    import torch

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if gpu:
        torch.cuda.set_device(rank)
    torch.distributed.init_process_group(
        backend="cuda:nccl,cpu:gloo" if gpu else "gloo",
        init_method=f"file://{os.environ['GRAFT_SHARDS_MEET']}",
        rank=rank,
        world_size=size,
    )


if __name__ == "__main__":
    main()
