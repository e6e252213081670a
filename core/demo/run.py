"""The walk: upload, label, train three stages and a baseline, measure, and call the result."""

from __future__ import annotations

import base64
import csv
import io
import json
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from core.client import Job, ServiceClient, ServiceRefused
from core.demo.archives import archives
from core.demo.draw import Draw
from core.demo.images import Sample
from core.demo.measure import measure
from core.demo.progress import job_display
from core.demo.report import DemoResult, Row, results_table
from core.errors import Conflict

POLL_SECONDS = 0.5
NEEDED_IMAGES = 128
INLINE_BYTES = 400
ALIAS = "demo"


class StageFailed(Conflict):
    """A job of the demo did not succeed; the message has the job's own reason."""


class Interrupted(Exception):
    """Somebody asked the demo to stop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Errand:
    """What the walk does: with which images, and with which options other than `auto`."""

    name: str
    draw: Draw
    augmentation: str | None
    epochs: int | None


class Walk:
    """One walk through the service's public HTTP API."""

    def __init__(
        self, client: ServiceClient, console: Console, *, stopped: Callable[[], bool]
    ) -> None:
        """Nothing is sent yet; `stopped` is asked often, and ends the walk when it is true."""
        self.client = client
        self.console = console
        self.stopped = stopped

    def run(self, errand: Errand) -> DemoResult:
        """All of it.

        Raises:
            ServiceRefused: The service does not do what is asked.
            StageFailed: A job did not succeed.
            Interrupted: Somebody asked to stop; unfinished jobs are cancelled.
        """
        self._title(f"The service is up at {self.client.url}", "its Swagger UI is at /docs")
        dataset_id, images, labels = self._upload(errand)
        jobs = self._train(self._launch(errand, dataset_id, images))
        rows = self._measure(errand, jobs)
        self._use(rows, errand.draw)
        values = {row.name: row.accuracy.value if row.accuracy else None for row in rows}
        return DemoResult(values, images, labels)

    def _upload(self, errand: Errand) -> tuple[str, int, int]:
        draw = errand.draw
        self._title("1  Upload", f"{len(draw.held_out):,} images stay here to measure on")
        name = f"demo-{errand.name}-{time.time_ns() // 10**6}"
        dataset_id = self.client.create_dataset(name)
        self._call("POST /datasets", name)
        refused: dict[str, str] = {}
        for archive in archives(draw.uploaded):
            report = self.client.upload_archive(dataset_id, archive)
            refused |= report.refused
            told = f"{report.added:,} added, {report.duplicates:,} duplicates, "
            self._call("POST /datasets/…/images", f"zip: {told}{len(report.refused):,} refused")
            self._check_stop()
        for file, reason in list(refused.items())[:5]:
            self._note(f"refused {file}: {reason}")
        training = [sample for sample in draw.training if sample.name not in refused]
        labels = self.client.put_labels(dataset_id, labels_csv(training))
        classes = len({sample.label for sample in training})
        self._call("PUT  /datasets/…/labels", f"CSV: {labels:,} labels of {classes} classes")
        for note in draw.notes:
            self._note(note)
        return dataset_id, self.client.count_images(dataset_id), labels

    def _launch(self, errand: Errand, dataset_id: str, images: int) -> dict[str, Job]:
        self._title("2  Train", "three stages, and a baseline from scratch on the same labels")
        given = {"epochs": errand.epochs, "augmentation": errand.augmentation}
        options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        batch: dict[str, Any] = {}
        if images < NEEDED_IMAGES:
            batch = {"batch_size": max(2, images // 2)}
            self._note(
                f"{images} images are few (from {NEEDED_IMAGES} on the service decides alone): "
                f"batch_size is set to {batch['batch_size']}"
            )
        chain = {
            "pretrain": {**options, **batch},
            "finetune": options,
            "distill": {**options, **batch},
        }
        data = {"dataset_id": dataset_id}
        started = {
            job.stage: job for job in self.client.submit({"stage": "pipeline", **data, **chain})
        }
        # Calibration would train it twice, and does not change which class is named.
        alone = {"stage": "finetune", **data, "method": "full", "calibrate": False}
        scratch = self.client.submit({**alone, **options})
        jobs = {**started, "scratch": scratch[0]}
        self._call("POST /jobs", f"pipeline: {_plan_text(jobs['pretrain'])}")
        self._call("POST /jobs", f"finetune, method=full (scratch): {_plan_text(scratch[0])}")
        return jobs

    def _train(self, jobs: dict[str, Job]) -> dict[str, Job]:
        try:
            with job_display(self.console) as display:
                while not all(job.ended for job in jobs.values()):
                    jobs = {name: self._look(job) for name, job in jobs.items()}
                    display.show(jobs)
                    self._check_jobs(jobs)
                    self._check_stop()
                    time.sleep(POLL_SECONDS)
        except (Interrupted, KeyboardInterrupt, StageFailed):
            self._cancel(jobs)
            raise
        return jobs

    def _look(self, job: Job) -> Job:
        return job if job.ended else self.client.job(job.id)

    def _check_jobs(self, jobs: Mapping[str, Job]) -> None:
        for name, job in jobs.items():
            if job.ended and job.state != "succeeded":
                reason = f": {job.reason}" if job.reason else ""
                raise StageFailed(f"the {name} job {job.id} has {job.state}{reason}")

    def _cancel(self, jobs: Mapping[str, Job]) -> None:
        for name, job in jobs.items():
            try:
                if not self._look(job).ended:
                    self.client.cancel(job.id)
            except ServiceRefused as error:
                self._note(f"{name} could not be cancelled: {error}")

    def _measure(self, errand: Errand, jobs: Mapping[str, Job]) -> list[Row]:
        held_out = errand.draw.held_out
        self._title("3  Measure", "on images that no stage has seen" if held_out else "")
        measured = measure(
            self.client, jobs, errand.draw, note=self._note, call=self._call, check=self._check_stop
        )
        self.console.print()
        self.console.print(results_table(measured.rows, measured_on=measured.measured_on))
        return measured.rows

    def _use(self, rows: list[Row], draw: Draw) -> None:
        best = _best({row.name: row for row in rows})
        self._title("4  Use", "applications call the alias, and never notice the next model")
        self.client.put_alias(ALIAS, best.model.id)
        self._call(f"PUT  /aliases/{ALIAS}", f"→ {best.name} {best.model.id}")
        sample = (draw.held_out or draw.training)[0]
        answer = self.client.predict(ALIAS, [sample.path])[0]
        told = answer.reason or f"{answer.label!r} at {answer.probability:.0%}"
        self._call("POST /predict", f"{sample.name}, in truth {sample.label!r}: {told}")
        self.console.print(f"\n  Swagger UI  {self.client.url}/docs", markup=False)
        self.console.print("  Paste this while the service is up:\n", markup=False)
        line = curl_line(self.client.url, sample)
        self.console.print(line, markup=False, soft_wrap=True, style="cyan")

    def _check_stop(self) -> None:
        if self.stopped():
            raise Interrupted

    def _title(self, text: str, detail: str = "") -> None:
        self.console.print(Text.assemble("\n", (text, "bold"), "  ", (detail, "dim")))

    def _call(self, request: str, told: str) -> None:
        self.console.print(f"  {request:<24} {told}", markup=False)

    def _note(self, text: str) -> None:
        self.console.print(f"  note: {text}", markup=False, style="yellow")


def labels_csv(samples: list[Sample]) -> str:
    """The labels as the service wants them."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("file", "label"))
    writer.writerows((sample.name, sample.label) for sample in samples)
    return text.getvalue()


def curl_line(url: str, sample: Sample) -> str:
    """A /predict call for a shell; a tiny image is part of it, a larger one is read from disk."""
    if sample.path.stat().st_size > INLINE_BYTES:
        file = shlex.quote(f"files=@{sample.path.absolute()}")
        return f"curl -s {url}/predict -F model={ALIAS} -F {file}"
    image = base64.b64encode(sample.path.read_bytes()).decode()
    body = shlex.quote(json.dumps({"model": ALIAS, "images": [image], "top_k": 3}))
    return f"curl -s {url}/predict -H 'content-type: application/json' -d {body}"


def _best(rows: Mapping[str, Row]) -> Row:
    # The student unless the teacher is measurably better: it is the smaller one.
    teacher, student = rows["finetune"], rows["distill"]
    if teacher.accuracy is None or student.accuracy is None:
        return student
    return teacher if teacher.accuracy.value > student.accuracy.value else student


def _plan_text(job: Job) -> str:
    plan = job.plan
    size = plan["image_size"]
    return f"{plan['encoder']} at {size}×{size} on {plan['device']}, {plan['epochs']:,} epochs"
