"""Settings of when and where jobs run, and how long their checkpoints are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings

QueueDevice = Literal["cpu", "gpu"]
CUDA_DRIVER = Path("/dev/nvidiactl")


class SchedulingSettings(BaseSettings):
    """The part of the settings that a claim and the sweep look at."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="Where training runs unless a job says so; auto takes CUDA when there is one.",
    )
    worker_devices: Literal["auto", "cpu", "gpu", "cpu,gpu", "gpu,cpu"] = Field(
        default="auto",
        description="Jobs of which devices this worker takes: cpu, gpu, or both as `gpu,cpu`. "
        "auto takes both where there is a GPU and FEWLABELS_DEVICE is not cpu, else those of the "
        "CPU.",
    )
    ready_process: bool = Field(
        default=True,
        description="Whether an idle worker keeps a process that has loaded the libraries and "
        "waits for the next job, which then begins some seconds earlier. It takes the memory that "
        "a job begins with.",
    )
    max_running_jobs: int = Field(
        default=0,
        ge=0,
        description="Most jobs of one project that run at the same time; more wait in the queue "
        "without holding up other projects. 0 is no limit.",
    )
    retry_pause_seconds: float = Field(
        default=10.0,
        ge=0,
        le=3600,
        description="Pause before a job whose process died is tried again, doubled with every "
        "attempt up to ten minutes. A job whose worker fell silent goes on at once.",
    )
    checkpoint_hours: float = Field(
        default=7 * 24.0,
        ge=0,
        description="How long the last checkpoint of a failed, crashed or cancelled job is kept "
        "for a retry. That of a job that ended well is deleted at once.",
    )

    @property
    def planning_device(self) -> Literal["cpu", "cuda"]:
        """Where jobs run that do not say it; `auto` believes in CUDA where its driver is."""
        if self.device == "auto":
            return "cuda" if CUDA_DRIVER.exists() else "cpu"
        return self.device

    @property
    def devices_taken(self) -> tuple[QueueDevice, ...]:
        """The devices whose jobs this worker takes."""
        if self.worker_devices == "auto":
            return ("gpu", "cpu") if self.planning_device == "cuda" else ("cpu",)
        known: tuple[QueueDevice, ...] = ("gpu", "cpu")
        return tuple(device for device in known if device in self.worker_devices.split(","))
