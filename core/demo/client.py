"""A thin client of the public HTTP API: JSON in, frozen dataclasses out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from core.errors import Unavailable

CONNECT_SECONDS = 10.0
# An archive is answered once all of its images are verified and stored.
ANSWER_SECONDS = 900.0
BUSY_ATTEMPTS = 20
ENDED = frozenset({"succeeded", "failed", "crashed", "cancelled"})
MAX_REQUEST_IMAGES = 32
MAX_REQUEST_BYTES = 32 * 10**6


class ServiceRefused(Unavailable):
    """The service does not answer, or answers with an error; the message is the service's."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What became of an archive; `refused` maps names to reasons."""

    added: int
    duplicates: int
    refused: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the service tells it."""

    id: str
    stage: str
    state: str
    model_id: str | None
    plan: Mapping[str, Any]
    progress: Mapping[str, Any]
    reason: str | None
    seconds: float | None

    @property
    def ended(self) -> bool:
        """Whether its state is final."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class Model:
    """A model; its size is that of the files of its artefact."""

    id: str
    encoder: str
    parameters: int
    byte_count: int
    metrics: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The likeliest class and its probability, or why there is none."""

    label: str | None
    probability: float
    reason: str | None = None


class ServiceClient:
    """Calls one service; every method raises ServiceRefused when it does not do what is asked."""

    def __init__(self, url: str, *, api_key: str | None = None) -> None:
        """Nothing is sent yet."""
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx2.Client(
            base_url=self.url,
            headers=headers,
            timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            transport=httpx2.HTTPTransport(retries=3),
        )

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self._http.close()

    def create_dataset(self, name: str) -> str:
        """Create a dataset; returns its id."""
        return str(self._call("POST", "/datasets", json={"name": name})["id"])

    def count_images(self, dataset_id: str) -> int:
        """How many different images a dataset has."""
        return int(self._call("GET", f"/datasets/{dataset_id}")["image_count"])

    def upload_archive(self, dataset_id: str, archive: Path) -> Upload:
        """Add the images of a zip archive, streamed from disk."""
        with archive.open("rb") as stream:
            body = self._call(
                "POST",
                f"/datasets/{dataset_id}/images",
                content=stream,
                headers={"content-type": "application/zip"},
            )
        refused = {
            line["file"]: line["detail"] for line in body["lines"] if line["outcome"] == "rejected"
        }
        return Upload(body["added"], body["duplicates"], refused)

    def put_labels(self, dataset_id: str, csv_text: str) -> int:
        """Set labels by file name; returns how many."""
        body = self._call(
            "PUT",
            f"/datasets/{dataset_id}/labels",
            content=csv_text.encode(),
            headers={"content-type": "text/csv"},
        )
        return int(body["labelled"])

    def submit(self, spec: Mapping[str, Any]) -> list[Job]:
        """Ask for a stage or a pipeline; the jobs in the order they run."""
        return [_job(entry) for entry in self._call("POST", "/jobs", json=spec)["jobs"]]

    def job(self, job_id: str) -> Job:
        """A job as it stands."""
        return _job(self._call("GET", f"/jobs/{job_id}"))

    def cancel(self, job_id: str) -> None:
        """Stop a job that has not ended."""
        self._call("POST", f"/jobs/{job_id}/cancel")

    def model(self, model_id: str) -> Model:
        """A model."""
        manifest = self._call("GET", f"/models/{model_id}")["manifest"]
        return Model(
            id=model_id,
            encoder=manifest["architecture"]["encoder"],
            parameters=manifest["parameters"],
            byte_count=sum(file["bytes"] for file in manifest["files"].values()),
            metrics=manifest["metrics"],
        )

    def put_alias(self, name: str, model_id: str) -> None:
        """Point a name at a model."""
        self._call("PUT", f"/aliases/{name}", json={"model_id": model_id})

    def predict(self, model: str, paths: Sequence[Path]) -> list[Prediction]:
        """The likeliest class of each image file; a bad file has a reason instead."""
        predictions = []
        for part in _requests(paths):
            response = self._send("POST", "/predict", **_form(model, part, top_k="1"))
            predictions += _predictions(response, len(part))
        return predictions

    def embed(self, model: str, paths: Sequence[Path]) -> list[list[float]]:
        """The L2-normalised vector of each image file; all of them must be good."""
        vectors: list[list[float]] = []
        for part in _requests(paths):
            items = self._call("POST", "/embed", **_form(model, part))["items"]
            if bad := [item["error"]["detail"] for item in items if item["error"]]:
                raise ServiceRefused(f"POST /embed: {bad[0]}")
            vectors += [item["embedding"] for item in items]
        return vectors

    def _call(self, method: str, path: str, **request: Any) -> Any:
        response = self._send(method, path, **request)
        if response.is_error:
            raise ServiceRefused(f"{method} {path}: {_detail(response)}")
        return response.json()

    def _send(self, method: str, path: str, **request: Any) -> httpx2.Response:
        for _ in range(BUSY_ATTEMPTS):
            try:
                response = self._http.request(method, path, **request)
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                said = str(error) or type(error).__name__
                raise ServiceRefused(f"the service at {self.url} does not answer: {said}") from None
            if response.status_code != httpx2.codes.TOO_MANY_REQUESTS:
                break
            time.sleep(float(response.headers.get("retry-after", "1")))
        return response


def _detail(response: httpx2.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"status {response.status_code}"


def _job(entry: Mapping[str, Any]) -> Job:
    error = entry["error"]
    return Job(
        id=entry["id"],
        stage=entry["stage"],
        state=entry["state"],
        model_id=entry["model_id"],
        plan=entry["plan"],
        progress=entry["progress"] or {},
        reason=f"{error['code']}: {error['detail']}" if error else None,
        seconds=_seconds(entry["started_at"], entry["finished_at"]),
    )


def _seconds(start: str | None, end: str | None) -> float | None:
    if start is None or end is None:
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _requests(paths: Sequence[Path]) -> list[list[Path]]:
    parts: list[list[Path]] = []
    total = 0
    for path in paths:
        size = path.stat().st_size
        if not parts or len(parts[-1]) >= MAX_REQUEST_IMAGES or total + size > MAX_REQUEST_BYTES:
            parts.append([])
            total = 0
        parts[-1].append(path)
        total += size
    return parts


def _form(model: str, paths: Sequence[Path], **fields: str) -> dict[str, Any]:
    files = [("files", (path.name, path.read_bytes())) for path in paths]
    return {"data": {"model": model, **fields}, "files": files}


def _predictions(response: httpx2.Response, count: int) -> list[Prediction]:
    if response.is_success:
        return [_prediction(item) for item in response.json()["items"]]
    # The service refuses a request of which no image can be used at all.
    if response.status_code in (413, 422) and len(_faults(response)) == count:
        return [Prediction(None, 0.0, fault["detail"]) for fault in _faults(response)]
    raise ServiceRefused(f"POST /predict: {_detail(response)}")


def _faults(response: httpx2.Response) -> list[dict[str, Any]]:
    return [fault for fault in response.json().get("errors") or [] if "index" in fault]


def _prediction(item: Mapping[str, Any]) -> Prediction:
    if item["error"]:
        return Prediction(None, 0.0, item["error"]["detail"])
    return Prediction(item["label"], item["predictions"][0]["probability"])
