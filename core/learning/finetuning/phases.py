"""Several trainings in one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from core.learning.progress import Progress
from core.learning.run import Run
from core.learning.trainer import Stopped


class Phases:
    """Trainings one after another that report as one, with steps that go on counting."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._before = 0
        self._done = 0

    @property
    def device(self) -> str:
        """As torch names it."""
        return self._run.device

    def begin(self, phase: str | None, *, folder: str | None = None) -> Run:
        """The run of the next training.

        Args:
            phase: What it is, for people; None leaves it to the training.
            folder: Where its checkpoints are, beside those of the run; None for the run's own.

        Raises:
            Stopped: The run was asked to stop.
        """
        run = self._run
        if run.should_stop is not None and run.should_stop():
            raise Stopped(f"stopped before {phase or 'training'}")
        self._before = self._done
        checkpoints = run.checkpoint_dir
        if checkpoints is not None and folder is not None:
            checkpoints = checkpoints.with_name(f"{checkpoints.name}-{folder}")
        told = self._report(phase)
        return replace(run, on_step=told, on_end=self._end, checkpoint_dir=checkpoints)

    def _end(self, steps: int) -> None:
        # A training that had ended before an interruption makes no step when it is resumed, and
        # the next one has to go on counting after it all the same.
        self._done = self._before + steps
        if self._run.on_end is not None:
            self._run.on_end(self._done)

    def _report(self, phase: str | None) -> Callable[[Progress], None]:
        def report(progress: Progress) -> None:
            self._done = self._before + progress.step
            if self._run.on_step is not None:
                steps = self._before + progress.steps
                told = progress.phase if phase is None else phase
                self._run.on_step(replace(progress, step=self._done, steps=steps, phase=told))

        return report
