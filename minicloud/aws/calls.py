"""A request that found its operation, and one that did not: what every protocol makes of both.

Owns the interface between the protocols and the front door. Refuses to know any protocol: those are `dispatch` (ec2 and
query) and `awsjson`. The front door asks a Call for its parameters and for its answers, and never how they are written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from minicloud.aws import replies
from minicloud.aws.models import Operation, Service
from minicloud.aws.replies import Reply
from minicloud.errors import ApiError

# Writes the answer to a request that was refused, of a service: how the caller's protocol says so.
Envelope = Callable[[Service, ApiError, str], Reply]


def _xml_envelope(service: Service, error: ApiError, request_id: str) -> Reply:
    return replies.failure(service, error, request_id=request_id)


class Undispatched(ApiError):
    """A request that found no operation. `service` is whose words suit the caller best, `envelope` whose writing."""

    def __init__(
        self, code: str, message: str, status: int, service: Service, envelope: Envelope = _xml_envelope
    ) -> None:
        super().__init__(code, message, status)
        self.service = service
        self._envelope = envelope

    def reply(self, request_id: str) -> Reply:
        """The answer."""
        return self._envelope(self.service, self, request_id)


@dataclass(frozen=True, slots=True)
class Call(ABC):
    """A request that found its operation. What differs between protocols is in the subclasses."""

    operation: Operation

    @property
    def service(self) -> Service:
        """The service that answers."""
        return self.operation.service

    @abstractmethod
    def parse(self) -> dict[str, Any]:
        """The parameters, checked, keyed by botocore's member names. Raises ApiError."""

    @abstractmethod
    def reply(self, output: Mapping[str, Any] | None, request_id: str) -> Reply:
        """The answer of an operation that worked. Raises TypeError for an `output` not of the model's shape (a bug)."""

    @abstractmethod
    def error(self, error: ApiError, request_id: str) -> Reply:
        """The answer of an operation that was refused or failed."""
