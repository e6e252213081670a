"""A thread computes on as many threads as it was told, and on no others."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Each way to start a thread that is to compute alone; the process may use two.
COMPUTE = """
import os, sys, threading
from functools import partial
import numpy as np
import torch

torch.set_num_threads(2)


def large() -> None:
    torch.ones(2**22).add_(1)


def in_a_thread() -> None:
    if sys.argv[1] == "told":
        from core.learning.intraop import use_threads
        use_threads(1)
    else:
        torch.set_num_threads(1)
    several_again()
    large()


def several_again() -> None:
    other = threading.Thread(target=torch.set_num_threads, args=(2,))
    other.start()
    other.join()


def augmenting() -> None:
    from core.learning.augmentations import PRESETS, augment

    images = torch.zeros(512, 64, 64, 3, dtype=torch.uint8)
    make = partial(augment, images, config=PRESETS["photo"], views=2, generator=torch.Generator())
    torch.set_num_threads(1)
    make()  # the compiler has a thread of its own
    before = len(os.listdir("/proc/self/task"))
    torch.set_num_threads(2)
    make()
    print(len(os.listdir("/proc/self/task")) - before)


def serving() -> None:
    from core.inference.engine import _threads
    pool = _threads(1, "resize")
    pool.submit(several_again).result()
    pool.submit(large).result()
    print(len(os.listdir("/proc/self/task")) - before)


def answering() -> None:
    from core.learning.classifier import Classifier
    from core.learning.encoders import create_encoder
    from core.learning.preprocessing import Preprocessing
    from core.learning.runtimes.eager import eager

    encoder = create_encoder("resnet10_tiny", image_size=32, channels=3)
    kind = Preprocessing(image_size=32, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    run = eager(encoder, kind, threads=1)
    canvases_to_tensor = torch.from_numpy

    def interrupted(canvases):  # before the thread's first operation
        several_again()
        return canvases_to_tensor(canvases)

    torch.from_numpy = interrupted
    of_its_own(lambda: run(np.zeros((64, 32, 32, 3), np.uint8)))


def of_its_own(work) -> None:
    done = threading.Event()
    counted = threading.Event()

    def stay() -> None:
        work()
        done.set()
        counted.wait()

    thread = threading.Thread(target=stay)
    thread.start()
    done.wait()
    print(len(os.listdir("/proc/self/task")) - before)
    counted.set()
    thread.join()


large()
before = len(os.listdir("/proc/self/task"))
ways = {"augmenting": augmenting, "serving": serving, "answering": answering}
ways.get(sys.argv[1], lambda: of_its_own(in_a_thread))()
"""


def threads_started(way: str) -> int:
    """By the thread (or the pool) and its operations, itself included."""
    command = [sys.executable, "-c", COMPUTE, way]
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout)


@pytest.mark.parametrize("way", ["told", "serving", "answering"])
def test_a_thread_that_is_to_compute_alone_gets_no_helper(way: str) -> None:
    assert threads_started(way) == 1


def test_views_are_made_by_as_many_threads_as_there_are() -> None:
    assert threads_started("augmenting") == 2


def test_torch_alone_forgets_the_number() -> None:
    assert threads_started("torch") == 2, "torch keeps it now: use_threads has had its day"
