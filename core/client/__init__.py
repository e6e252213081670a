"""A thin client of the public HTTP API."""

from core.client.events import Told
from core.client.records import Job, Labelled, Line, Model, Prediction, Upload
from core.client.service import ServiceClient, ServiceRefused, ServiceUnreachable

__all__ = [
    "Job",
    "Labelled",
    "Line",
    "Model",
    "Prediction",
    "ServiceClient",
    "ServiceRefused",
    "ServiceUnreachable",
    "Told",
    "Upload",
]
