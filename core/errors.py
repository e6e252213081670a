"""What can go wrong, said as facts; the API maps the five roots to HTTP status codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class FewlabelsError(Exception):
    """Root of the tree; the message is for the user: field, what was found, what is allowed.

    `problems` lists single faults when there are several: one mapping each. `retry_after` is in
    how many seconds the same request may succeed, where that is known.
    """

    def __init__(
        self,
        detail: str,
        *,
        problems: Sequence[Mapping[str, object]] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.problems = tuple(problems)
        self.retry_after = retry_after

    @property
    def code(self) -> str:
        """Stable name for machines: the class name."""
        return type(self).__name__


class ConfigurationInvalid(FewlabelsError):
    """A setting is missing or wrong; the process refuses to start."""


class NotFound(FewlabelsError):
    """It is not there, or it is somebody else's."""


class Conflict(FewlabelsError):
    """The state of things forbids it."""


class Invalid(FewlabelsError):
    """The request cannot be carried out as it stands."""


class TooLarge(FewlabelsError):
    """The request exceeds a limit."""


class Unauthenticated(FewlabelsError):
    """No key, or one that does not hold."""


class Forbidden(FewlabelsError):
    """The key does not allow it."""


class Overloaded(FewlabelsError):
    """Try again later; nothing was done."""


class DeadlineExceeded(FewlabelsError):
    """The answer did not come in the time allowed."""


class Unavailable(FewlabelsError):
    """A server that this one depends on does not answer."""


class DatasetNotFound(NotFound):
    """No such dataset."""


class ImageNotFound(NotFound):
    """No such image."""


class ImportNotFound(NotFound):
    """No such import."""


class UploadNotFound(NotFound):
    """No such upload on its way to the object store."""


class SnapshotNotFound(NotFound):
    """No such snapshot."""


class JobNotFound(NotFound):
    """No such job."""


class ModelNotFound(NotFound):
    """No such model or alias."""


class BlobNotFound(NotFound):
    """No blob under this key."""


class FileNotInModel(NotFound):
    """The model has no file of this name."""


class ApiKeyNotFound(NotFound):
    """No such API key."""


class WebhookNotFound(NotFound):
    """No such webhook."""


class NameTaken(Conflict):
    """Another one already has this name."""


class TooManyWebhooks(Conflict):
    """The project has as many as it may."""


class InUse(Conflict):
    """Something unfinished still needs it."""


class JobAlreadyFinished(Conflict):
    """The job has ended; its state no longer changes."""


class JobNotRetryable(Conflict):
    """Only a job that failed, crashed or was cancelled can be tried again."""


class NoObjectStore(Conflict):
    """Blobs are kept in a folder, which clients cannot write to or name sources in."""


class NotEmbedded(Conflict):
    """No vectors of the model are stored for what was asked about."""


class NotIndexed(Conflict):
    """The model's vectors have no index to search."""


class WebhookUrlInvalid(Invalid):
    """The address is none that may be called."""


class AddressRefused(Invalid):
    """A name leads where the service does not call."""


class VectorInvalid(Invalid):
    """The vector cannot be compared with those of the model."""


class WrongModelKind(Invalid):
    """The model is of another kind than the operation needs."""


class ImageInvalid(Invalid):
    """The bytes are not an image that can be used."""


class ImageTooLarge(ImageInvalid):
    """The image exceeds a limit of bytes or pixels."""


class ImageTooCostly(ImageInvalid):
    """Decoding the image takes more time or memory than it may."""


class ArchiveInvalid(Invalid):
    """The bytes are not an archive that can be read to its end."""


class ArchiveTooLarge(TooLarge):
    """The archive exceeds a limit of entries, bytes or compression ratio."""


class PartsInvalid(Invalid):
    """The parts of an upload are not those that the object store has."""


class ChecksumWrong(Invalid):
    """The bytes do not have the checksum that was announced."""


class BucketNotAllowed(Invalid):
    """The server is not configured to import from this bucket."""


class LabelsInvalid(Invalid):
    """Labels are malformed, or name images that are unknown or ambiguous."""


class SpecInvalid(Invalid):
    """The job cannot be planned as asked on this data."""


class NotEnoughImages(SpecInvalid):
    """The dataset has too few images for the job."""


class NotEnoughLabels(SpecInvalid):
    """The dataset has too few labels or classes for the job."""


class RequestInvalid(Invalid):
    """The request's body or parameters do not have the documented form."""


class IdempotencyKeyReused(Invalid):
    """The Idempotency-Key was sent with another request before."""


class BodyTooLarge(TooLarge):
    """The request body exceeds its limit."""


class TooManyImages(TooLarge):
    """More images than one request or dataset may hold."""


class ProjectFull(TooLarge):
    """The project would hold more images or bytes than it may."""


class TooManyRequests(Overloaded):
    """The key sends more requests in a second than it may."""


class TooManyUploads(Overloaded):
    """The project has as many uploads on their way to the object store as it may have."""


class TooManyJobs(Overloaded):
    """The project has as many unfinished jobs as it may have."""


class TooManyStreams(Overloaded):
    """As many event streams are open as may be."""


class ArtifactCorrupt(Unavailable):
    """A model's file does not have the checksum that its manifest states."""


class ImageCorrupt(Unavailable):
    """The blob store does not have the bytes of an image any more, or has others."""


class NoRoomForModel(Unavailable):
    """The memory for models has no room for this one."""


class DecodersUnavailable(Unavailable):
    """The processes that decode uploads do not start."""


class StoreUnavailable(Unavailable):
    """The blob store does not answer or refuses."""


class LeaseLost(Conflict):
    """Another worker holds the job now; this one may not write to it any more."""


class JobCancelled(FewlabelsError):
    """The job was asked to stop, and stopped."""


class IllegalTransition(FewlabelsError):
    """A state change that the job's life does not have; a bug of ours."""


class BatchFailed(FewlabelsError):
    """The forward pass failed for this image, alone as well as in its batch."""


class EmbeddedServerFailed(FewlabelsError):
    """An embedded server did not start, or the data folder is in use."""
