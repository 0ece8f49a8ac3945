"""What a service says about a parameter that is wrong. One object per way of speaking.

EC2 has its own codes; the other services answer ValidationError in the words of AWS's common service framework.
Refuses to decide what is wrong: that is `values`, `query` and `jsonwire`, which ask here for the error to raise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from minicloud.aws.models import Service
from minicloud.aws.text import clip
from minicloud.errors import ApiError


class Faults(ABC):
    """Errors about parameters. `name` is the parameter's path as the caller wrote it; `value` None is not repeated."""

    @abstractmethod
    def missing(self, name: str) -> ApiError: ...

    @abstractmethod
    def invalid(self, name: str, value: str | None, expected: str) -> ApiError:
        """`expected` is a whole sentence."""

    @abstractmethod
    def not_allowed(self, name: str, value: str | None, allowed: Sequence[str]) -> ApiError: ...

    @abstractmethod
    def out_of_bounds(self, name: str, value: str | None, relation: str, bound: float, what: str) -> ApiError:
        """`relation` is "greater" or "less"; `what` is "value" or "length"."""

    def unknown(self, name: str) -> ApiError:
        return ApiError("UnknownParameter", f"The parameter {clip(name)} is not recognized")

    def repeated(self, name: str) -> ApiError:
        return ApiError("InvalidQueryParameter", f"The parameter {clip(name)} has been specified more than once")

    def bad_base64(self, name: str) -> ApiError:
        return self.invalid(name, None, "Expecting base64-encoded data.")

    def wrong_type(self, name: str, expected: str) -> ApiError:
        """`expected` is a noun with its article. Only JSON has types."""
        return self.invalid(name, None, f"Expecting {expected}.")


class Ec2Faults(Faults):
    """EC2's codes: MissingParameter, InvalidParameterValue (EC2 API guide, "Error codes")."""

    def missing(self, name: str) -> ApiError:
        return ApiError("MissingParameter", f"The request must contain the parameter {clip(name)}")

    def invalid(self, name: str, value: str | None, expected: str) -> ApiError:
        shown = "" if value is None else f"({clip(value)}) "
        return ApiError("InvalidParameterValue", f"Value {shown}for parameter {clip(name)} is invalid. {expected}")

    def not_allowed(self, name: str, value: str | None, allowed: Sequence[str]) -> ApiError:
        return self.invalid(name, value, f"Expecting one of: {clip(', '.join(allowed), 400)}")

    def out_of_bounds(self, name: str, value: str | None, relation: str, bound: float, what: str) -> ApiError:
        return self.invalid(name, value, f"Expecting a {what} {relation} than or equal to {bound:g}.")

    def bad_base64(self, name: str) -> ApiError:
        if "UserData" in name.split("."):
            return ApiError("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.")
        return super().bad_base64(name)


class QueryFaults(Faults):
    """ValidationError, as STS, IAM, CloudWatch and Auto Scaling word it."""

    def missing(self, name: str) -> ApiError:
        return _validation_error("Value null", name, "Member must not be null")

    def invalid(self, name: str, value: str | None, expected: str) -> ApiError:
        return _validation_error(_shown(value), name, expected.removesuffix("."))

    def not_allowed(self, name: str, value: str | None, allowed: Sequence[str]) -> ApiError:
        return _validation_error(
            _shown(value), name, f"Member must satisfy enum value set: [{clip(', '.join(allowed), 400)}]"
        )

    def out_of_bounds(self, name: str, value: str | None, relation: str, bound: float, what: str) -> ApiError:
        return _validation_error(_shown(value), name, f"Member must have {what} {relation} than or equal to {bound:g}")


def _shown(value: str | None) -> str:
    return "Value" if value is None else f"Value '{clip(value)}'"


def _validation_error(value: str, name: str, constraint: str) -> ApiError:
    return ApiError(
        "ValidationError",
        f"1 validation error detected: {value} at '{clip(name)}' failed to satisfy constraint: {constraint}",
    )


_EC2_FAULTS = Ec2Faults()
_QUERY_FAULTS = QueryFaults()


def faults_of(service: Service) -> Faults:
    """How this service speaks about parameters."""
    return _EC2_FAULTS if service.speaks_ec2 else _QUERY_FAULTS
