"""Filters and pages of Describe operations: read from a request, checked by EC2's rules, and the token to go on.

Refuses to know what a filter means: the store's filters/ and matching.py do. Called by operations.perform for every row
that declares `filters` or `pages`.

Sources: EC2 user guide, "Filtering resources" (at most 50 filters and 200 values a request); EC2 API reference,
"Pagination" and the texts of MaxResults.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from minicloud.cloud.context import Caller
from minicloud.cloud.seals import SealError, Seals
from minicloud.errors import ApiError
from minicloud.store.search import Asked, Filter, Key

FILTERS = "Filters"
MAX_RESULTS = "MaxResults"
NEXT_TOKEN = "NextToken"
MAX_FILTERS = 50
MAX_VALUES = 200
MAX_VALUE_LENGTH = 255
TOKEN_SECONDS = 24 * 3600
MAX_TOKEN_LENGTH = 4096
_PURPOSE = "page"


class KnownFilters(Protocol):
    """What an operation knows of filters."""

    @property
    def names(self) -> frozenset[str]:
        """The filters' names, tag:KEY aside."""
        ...

    @property
    def has_tags(self) -> bool:
        """Whether it knows tag:KEY."""
        ...

    def knows(self, name: str) -> bool:
        """Say whether a filter exists."""
        ...


@dataclass(frozen=True, slots=True)
class Pages:
    """The pages of an operation: how many items one may have, and the parameters (ids) that MaxResults refuses."""

    minimum: int = 1
    maximum: int = 1000
    not_with: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """What one request asks for, and what its page tokens are bound to: caller, operation, parameters."""

    asked: Asked
    binding: str


def parse_listing(
    seals: Seals,
    caller: Caller,
    operation: str,
    parameters: dict[str, Any],
    filters: KnownFilters | None,
    pages: Pages | None,
) -> Listing:
    """Take Filters, MaxResults and NextToken out of the parameters.

    Raises ApiError: InvalidParameterValue (an unknown filter, a page out of bounds), FilterLimitExceeded,
    InvalidParameterCombination (MaxResults with ids), InvalidNextToken (not this request's, or expired).
    """
    parsed = _parse_filters(parameters.pop(FILTERS, ()), filters) if filters is not None else ()
    if pages is None:
        return Listing(Asked(parsed), "")
    limit = parameters.pop(MAX_RESULTS, None)
    token = parameters.pop(NEXT_TOKEN, None)
    if limit is not None:
        _check_limit(limit, pages, parameters)
    binding = _binding(caller, operation, parsed, parameters)
    return Listing(Asked(parsed, limit, None if token is None else _open(seals, token, binding)), binding)


def seal_token(seals: Seals, listing: Listing, after: Key) -> str:
    """Return the token of the page after a key."""
    return seals.seal(_PURPOSE, {"for": listing.binding, "after": list(after)})


def _parse_filters(given: Sequence[Mapping[str, Any]], known: KnownFilters) -> tuple[Filter, ...]:
    if len(given) > MAX_FILTERS:
        raise ApiError("FilterLimitExceeded", f"The maximum number of filters in a request is {MAX_FILTERS}.")
    parsed = tuple(_parse_filter(one, known) for one in given)
    if sum(len(one.values) for one in parsed) > MAX_VALUES:
        raise ApiError("FilterLimitExceeded", f"The maximum number of filter values in a request is {MAX_VALUES}.")
    return parsed


def _parse_filter(given: Mapping[str, Any], known: KnownFilters) -> Filter:
    name = given.get("Name")
    if not name:
        raise ApiError("MissingParameter", "The request must contain the parameter Filter.Name")
    if not known.knows(name):
        raise ApiError("InvalidParameterValue", f"The filter '{name[:MAX_VALUE_LENGTH]}' is invalid")
    values = tuple(given.get("Values", ()))
    if not values:
        raise ApiError("MissingParameter", f"The filter '{name[:MAX_VALUE_LENGTH]}' must have a value")
    for value in values:
        if len(value) > MAX_VALUE_LENGTH:
            raise ApiError(
                "InvalidParameterValue", f"A value of a filter may have at most {MAX_VALUE_LENGTH} characters."
            )
    # NUL is in no text that the cloud holds, and PostgreSQL takes no text with it.
    return Filter(name.replace("\0", "\ufffd"), tuple(value.replace("\0", "\ufffd") for value in values))


def _check_limit(limit: int, pages: Pages, parameters: Mapping[str, Any]) -> None:
    if limit < pages.minimum:
        raise _out_of_bounds(limit, f"greater than {pages.minimum}")
    if limit > pages.maximum:
        raise _out_of_bounds(limit, f"less than {pages.maximum}")
    for name in pages.not_with:
        if parameters.get(name):
            raise ApiError(
                "InvalidParameterCombination", f"The parameter {name} cannot be used with the parameter {MAX_RESULTS}"
            )


def _out_of_bounds(limit: int, expected: str) -> ApiError:
    return ApiError(
        "InvalidParameterValue",
        f"Value ( {limit} ) for parameter maxResults is invalid. Expecting a value {expected}.",
    )


def _binding(caller: Caller, operation: str, filters: Sequence[Filter], parameters: Mapping[str, Any]) -> str:
    asked = [caller.account_id, caller.region, operation, [[one.name, one.values] for one in filters], parameters]
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


def _open(seals: Seals, token: str, binding: str) -> Key:
    try:
        if len(token) > MAX_TOKEN_LENGTH:
            raise SealError
        payload = seals.open(_PURPOSE, token, TOKEN_SECONDS)
    except SealError:
        raise ApiError("InvalidNextToken", "The specified NextToken is not valid or has expired.") from None
    if payload["for"] != binding:
        raise ApiError(
            "InvalidNextToken", "The specified NextToken belongs to a request with other parameters than this one."
        )
    return tuple(payload["after"])
