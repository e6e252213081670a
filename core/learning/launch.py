"""Pre-training in several processes of this machine, for a caller that is none of them.

The caller writes what they need to a folder and starts torchrun, which starts

    python -m core.learning.launch FOLDER

once for each process. They talk through files: the first process appends to `progress.jsonl` and
leaves its weights; any process that ends before its time leaves `end-RANK.json`; a file named
`stop` asks them to stop. Their standard input is a pipe that ends when the caller does, however
that happens; then they end, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed as dist

from core.learning.checkpoint import load_weights, save_weights
from core.learning.distributed import world
from core.learning.encoders import Encoder, WeightsUnavailable, create_encoder
from core.learning.heads import ProjectionSpec
from core.learning.memory import keep_freed_memory
from core.learning.preprocessing import Preprocessing
from core.learning.progress import Progress
from core.learning.run import Run
from core.learning.shared_arrays import hand_over, take_over
from core.learning.simclr import Pretrained, SimCLRConfig, pretrain
from core.learning.trainer import Diverged, Stopped

POLL_SECONDS = 0.1
END_SECONDS = 30.0
STDERR_LINES = 30
START, PROGRESS, STOP, STDERR = "start.safetensors", "progress.jsonl", "stop", "stderr.log"
# What may reach the caller as what it was; everything else is a RuntimeError.
KINDS: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (Stopped, Diverged, WeightsUnavailable, ValueError, OSError, MemoryError)
}


def pretrain_in_processes(
    images_NHWC: NDArray[np.uint8],
    config: SimCLRConfig,
    preprocessing: Preprocessing,
    *,
    run: Run,
    targets_N: NDArray[np.int64] | None = None,
    probe_targets_N: NDArray[np.int64] | None = None,
    encoder: Encoder | None = None,
) -> Pretrained:
    """`simclr.pretrain` with each batch shared by several processes (data parallelism).

    Images, batches and weights are those of one process; so is the result, but for rounding and
    for what the augmentations draw. On CUDA every process has a device of its own, on the CPU
    they share the threads.

    Args:
        images_NHWC: As for `pretrain`; a whole file mapped to memory is not copied.
        config: As for `pretrain`; `batch_size` is that of all processes together.
        preprocessing: What the canvases were made with.
        run: With the number of processes, which must divide the batch size; callbacks are called
            in this process.
        targets_N: As for `pretrain`.
        probe_targets_N: As for `pretrain`.
        encoder: Where to start, in place of random weights.

    Raises:
        ValueError: As `pretrain`, or the number of processes is not possible.
        Stopped: The run was asked to stop.
        Diverged: The loss became infinite or not a number.
        OSError: A process could not read or write.
        MemoryError: A process had too little memory.
        RuntimeError: A process failed otherwise, or was killed; with its last words.
    """
    processes = run.processes
    _require_possible(processes, config.batch_size, run.device)
    near = run.checkpoint_dir.parent if run.checkpoint_dir else None
    if near is not None:
        near.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="processes-", dir=near) as path:
        folder = Path(path)
        order = {
            "config": config.to_dict(),
            "preprocessing": preprocessing.to_dict(),
            "device": run.device,
            "threads": max(1, torch.get_num_threads() // processes),
            "checkpoint_dir": str(run.checkpoint_dir.absolute()) if run.checkpoint_dir else None,
            "checkpoint_seconds": run.checkpoint_seconds,
            "images": hand_over(images_NHWC, folder / "images.npy"),
        }
        for name, labels in (("targets", targets_N), ("probe_targets", probe_targets_N)):
            order[name] = None if labels is None else hand_over(labels, folder / f"{name}.npy")
        if encoder is not None:
            save_weights(encoder, folder / START)
        (folder / "order.json").write_text(json.dumps(order))
        with _torchrun(folder, processes) as child:
            _follow(child, folder, run)
        _raise_what_ended_it(child.returncode, folder)
        return _read_result(folder, config)


def _require_possible(processes: int, batch_size: int, device: str) -> None:
    if processes < 2 or batch_size % processes:
        raise ValueError(
            f"processes: found {processes}, allowed are 2 and more that divide the batch_size, "
            f"{batch_size}"
        )
    if device.startswith("cuda") and processes > torch.cuda.device_count():
        raise ValueError(
            f"processes: found {processes}, there are {torch.cuda.device_count()} CUDA devices"
        )


@contextmanager
def _torchrun(folder: Path, processes: int) -> Iterator[subprocess.Popen[bytes]]:
    """All processes; none is left at the end."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), "-m", __name__, str(folder)]
    with (folder / STDERR).open("wb") as log:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log)
    try:
        yield child
    finally:
        assert child.stdin is not None
        child.stdin.close()
        try:
            child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _follow(child: subprocess.Popen[bytes], folder: Path, run: Run) -> None:
    """Hand on progress, and the wish to stop, until all processes have ended."""
    path = folder / PROGRESS
    path.touch()
    with path.open() as file:
        ended, unfinished = False, ""
        while not ended:
            ended = child.poll() is not None  # asked first, so that no line is missed
            *lines, unfinished = (unfinished + file.read()).split("\n")
            for line in lines:
                if run.on_step is not None:
                    run.on_step(Progress(**json.loads(line)))
            if run.should_stop is not None and run.should_stop():
                (folder / STOP).touch()
            if not ended:
                time.sleep(POLL_SECONDS)


def _raise_what_ended_it(code: int, folder: Path) -> None:
    ends = [json.loads(path.read_text()) for path in folder.glob("end-*.json")]
    if not ends and code == 0:
        return
    said = (folder / STDERR).read_text(errors="replace")
    kind, args = None, ["\n".join(said.splitlines()[-STDERR_LINES:])]
    if ends:
        # When one process fails, the others lose their connection, which is no kind of ours; and
        # one may fail while it stops.
        ends.sort(key=lambda end: (end["kind"] == Stopped.__name__, not end["kind"], end["time"]))
        kind, args = ends[0]["kind"], ends[0]["args"]
    if kind != Stopped.__name__:
        sys.stderr.write(said)
    if kind is not None:
        raise KINDS[kind](*args)
    if "SIGKILL" in said:
        args = ["it was killed (SIGKILL), most often because the machine ran out of memory"]
    raise RuntimeError(f"a training process failed: {args[0]}")


def _read_result(folder: Path, config: SimCLRConfig) -> Pretrained:
    result = json.loads((folder / "result.json").read_text())
    encoder = _create_encoder(config)
    load_weights(encoder, folder / "encoder.safetensors")
    spec = ProjectionSpec.from_dict(result["spec"])
    projection = spec.build()
    load_weights(projection, folder / "projection.safetensors")
    return Pretrained(
        encoder=encoder.eval(), projection=projection.eval(), spec=spec, report=result["report"]
    )


def _create_encoder(config: SimCLRConfig) -> Encoder:
    return create_encoder(
        config.encoder,
        image_size=config.image_size,
        channels=config.channels,
        stem=config.stem,
    )


def _labels(place: dict[str, Any] | None) -> NDArray[np.int64] | None:
    return None if place is None else np.array(take_over(place))


def main(folder: Path) -> int:
    """One of the processes.

    Returns:
        The exit code: 0 also when it was stopped, for torchrun would kill the others otherwise.
    """
    threading.Thread(target=_end_with_caller, daemon=True).start()
    order = json.loads((folder / "order.json").read_text())
    device = order["device"]
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    if device.startswith("cuda"):
        device = f"cuda:{world().rank}"
        torch.cuda.set_device(device)
    torch.set_num_threads(order["threads"])
    keep_freed_memory()
    try:
        _pretrain(order, folder, device)
    except Exception as error:
        (folder / f"end-{world().rank}.json").write_text(json.dumps(_end_of(error)))
        if not isinstance(error, Stopped):
            raise
    dist.destroy_process_group()
    return 0


def _end_of(error: Exception) -> dict[str, Any]:
    kind = next((kind for kind, known in KINDS.items() if isinstance(error, known)), None)
    args: list[Any] = [str(error) if kind else f"{type(error).__name__}: {error}"]
    if isinstance(error, OSError) and error.errno is not None:
        # Whoever gets it wants to know by the number whether a disk is full.
        args = [error.errno, error.strerror, error.filename and str(error.filename)]
    return {"kind": kind, "args": args, "time": time.monotonic()}


def _pretrain(order: dict[str, Any], folder: Path, device: str) -> None:
    config = SimCLRConfig.from_dict(order["config"])
    start = None
    if (folder / START).exists():
        start = _create_encoder(config)
        load_weights(start, folder / START)
    checkpoint_dir = order["checkpoint_dir"]
    with (folder / PROGRESS).open("a") as progress:

        def report(step: Progress) -> None:
            progress.write(json.dumps(asdict(step)) + "\n")
            progress.flush()

        pretrained = pretrain(
            take_over(order["images"]),
            config,
            Preprocessing.from_dict(order["preprocessing"]),
            run=Run(
                device=device,
                on_step=report,
                should_stop=(folder / STOP).exists,
                checkpoint_dir=Path(checkpoint_dir) if checkpoint_dir else None,
                checkpoint_seconds=order["checkpoint_seconds"],
            ),
            targets_N=_labels(order["targets"]),
            probe_targets_N=_labels(order["probe_targets"]),
            encoder=start,
        )
    if world().rank == 0:
        save_weights(pretrained.encoder, folder / "encoder.safetensors")
        save_weights(pretrained.projection, folder / "projection.safetensors")
        result = {"spec": pretrained.spec.to_dict(), "report": pretrained.report}
        (folder / "result.json").write_text(json.dumps(result))


def _end_with_caller() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing ever comes but the end
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
