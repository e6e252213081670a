"""A thin client of the public HTTP API: JSON in, frozen dataclasses out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from core.client.events import Told, told_in
from core.client.records import Job, Labelled, Line, Model, Prediction, Upload
from core.errors import Unavailable

CONNECT_SECONDS = 10.0
# An archive is answered once all of its images are verified and stored.
ANSWER_SECONDS = 900.0
BUSY_ATTEMPTS = 20
# A quiet event stream has a comment every 15 seconds: one that is silent for longer is dead.
STREAM_SECONDS = 40.0
BUSY = frozenset(
    {httpx2.codes.BAD_GATEWAY, httpx2.codes.SERVICE_UNAVAILABLE, httpx2.codes.GATEWAY_TIMEOUT}
)
LINE = ("file", "outcome", "code", "detail")
CSV = {"content-type": "text/csv"}
PARTIAL = {"params": {"partial": "true"}}
MAX_REQUEST_IMAGES = 32
MAX_REQUEST_BYTES = 32 * 10**6


class ServiceRefused(Unavailable):
    """The service does not answer, or answers with an error; the message is the service's."""


class ServiceUnreachable(ServiceRefused):
    """The service does not answer, or says that it cannot just now."""


class ServiceClient:
    """Calls one service; every method raises ServiceRefused when it does not do what is asked."""

    def __init__(
        self, url: str, *, api_key: str | None = None, answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        """Nothing is sent yet."""
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx2.Client(
            base_url=self.url,
            headers=headers,
            timeout=httpx2.Timeout(answer_seconds, connect=CONNECT_SECONDS),
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

    def ensure_dataset(self, name: str) -> str:
        """The id of the dataset of this name, made when there is none."""
        found = self._call("GET", "/datasets", params={"name": name})["items"]
        return str(found[0]["id"]) if found else self.create_dataset(name)

    def missing_images(self, dataset_id: str, names: Mapping[str, Sequence[str]]) -> list[str]:
        """Which images, by their SHA-256, have to be sent; the others get these names too."""
        body = {"sha256": list(names), "names": names}
        return list(
            self._call("POST", f"/datasets/{dataset_id}/images/missing", json=body)["missing"]
        )

    def upload_archive(self, dataset_id: str, archive: Path) -> Upload:
        """Add the images of a zip archive, streamed from disk."""
        with archive.open("rb") as stream:
            return self._upload(dataset_id, stream, "application/zip")

    def upload_tar(self, dataset_id: str, pieces: Iterable[bytes]) -> Upload:
        """Add the images of a tar archive that comes in pieces."""
        return self._upload(dataset_id, pieces, "application/x-tar")

    def _upload(self, dataset_id: str, content: Any, media_type: str) -> Upload:
        headers = {"content-type": media_type}
        path = f"/datasets/{dataset_id}/images"
        body = self._call("POST", path, content=content, headers=headers)
        lines = [Line(*(entry[k] for k in LINE)) for entry in body["lines"]]
        return Upload(body["added"], body["duplicates"], lines)

    def put_labels(self, dataset_id: str, csv_text: str) -> int:
        """Set labels by file name, all or none; returns how many."""
        body = self._label(dataset_id, content=csv_text.encode(), headers=CSV)
        return int(body["labelled"])

    def label_csv(self, dataset_id: str, csv_text: str) -> Labelled:
        """Set those of the labels that can be set."""
        return _labelled(self._label(dataset_id, content=csv_text.encode(), headers=CSV, **PARTIAL))

    def label_images(self, dataset_id: str, labels: Sequence[Mapping[str, Any]]) -> Labelled:
        """Set those of the labels that can be set; each names its image and its class."""
        return _labelled(self._label(dataset_id, json={"labels": labels}, **PARTIAL))

    def _label(self, dataset_id: str, **request: Any) -> Any:
        return self._call("PUT", f"/datasets/{dataset_id}/labels", **request)

    def submit(self, spec: Mapping[str, Any]) -> list[Job]:
        """Ask for a stage or a pipeline; the jobs in the order they run."""
        return [_job(entry) for entry in self._call("POST", "/jobs", json=spec)["jobs"]]

    def job(self, job_id: str) -> Job:
        """A job as it stands."""
        return _job(self._call("GET", f"/jobs/{job_id}"))

    def jobs(self, **filters: Any) -> list[Job]:
        """The newest jobs, of this `state`, `stage` or `dataset_id`; `limit` says how many."""
        return [_job(entry) for entry in self._call("GET", "/jobs", params=filters)["items"]]

    def series(self, job_id: str, name: str, *, points: int) -> list[tuple[int, float]]:
        """Steps and values of a series of a job, at most so many that show the same curve."""
        asked = {"name": name, "points": points}
        found = self._call("GET", f"/jobs/{job_id}/metrics", params=asked)["series"]
        return list(zip(found[0]["steps"], found[0]["values"], strict=True)) if found else []

    def events(self, job_id: str, *, after: str | None = None) -> Iterator[Told]:
        """What happens to a job, until the stream closes; `end` is the last word.

        Raises:
            ServiceUnreachable: The connection broke, or the service has no room for a stream;
                come again with the last id as `after`.
        """
        path = f"/jobs/{job_id}/events"
        headers = {} if after is None else {"Last-Event-ID": after}
        timeout = httpx2.Timeout(STREAM_SECONDS, connect=CONNECT_SECONDS)
        try:
            with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                if response.is_error:
                    response.read()
                    full = response.status_code == httpx2.codes.TOO_MANY_REQUESTS
                    later = full or response.status_code in BUSY
                    kind = ServiceUnreachable if later else ServiceRefused
                    raise kind(f"GET {path}: {_detail(response)}")
                yield from told_in(response.iter_lines())
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            said = str(error) or type(error).__name__
            raise ServiceUnreachable(f"the service at {self.url} broke off: {said}") from None

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
            kind = ServiceUnreachable if response.status_code in BUSY else ServiceRefused
            raise kind(f"{method} {path}: {_detail(response)}")
        return response.json()

    def _send(self, method: str, path: str, **request: Any) -> httpx2.Response:
        for _ in range(BUSY_ATTEMPTS):
            try:
                response = self._http.request(method, path, **request)
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                said = str(error) or type(error).__name__
                raise ServiceUnreachable(
                    f"the service at {self.url} does not answer: {said}"
                ) from None
            if response.status_code != httpx2.codes.TOO_MANY_REQUESTS:
                break
            time.sleep(float(response.headers.get("retry-after", "1")))
        return response


def _detail(response: httpx2.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"status {response.status_code}"


def _labelled(body: Mapping[str, Any]) -> Labelled:
    lines = [
        Line(f"labels, line {entry['line']}", "rejected", "LabelInvalid", entry["detail"])
        for entry in body["problems"]
    ]
    return Labelled(body["labelled"], lines)


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
