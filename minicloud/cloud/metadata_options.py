"""Instance metadata options: what a launch gets, and how an instance's are changed while it runs.

Owns EC2's rules for the options (EC2 user guide, "Configure the Instance Metadata Service options"). A change is
written as `pending` and the instance's task woken: the controller has the host answer by it and writes `applied`. It
refuses to know how a host answers a guest. Called by the front door and by launch.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.lookups import INSTANCES, require_one
from minicloud.cloud.tags import check_metadata_tags
from minicloud.errors import ApiError
from minicloud.model.resources import Image, Instance, MetadataDefaults, MetadataOptions
from minicloud.model.states import InstanceState
from minicloud.store.store import Tx

MAX_HOP_LIMIT = 64
NO_PREFERENCE = "no-preference"
NO_HOP_LIMIT_PREFERENCE = -1


@dataclass(frozen=True, slots=True)
class MetadataRequest:
    """Metadata options as given; None means not given."""

    http_endpoint: str | None = None
    http_tokens: str | None = None
    http_put_response_hop_limit: int | None = None
    instance_metadata_tags: str | None = None


@dataclass(frozen=True, slots=True)
class DefaultsRequest:
    """Account-level defaults as given; None means not given, `no-preference` (-1 for the hop limit) none any more."""

    http_endpoint: str | None = None
    http_tokens: str | None = None
    http_put_response_hop_limit: int | None = None
    instance_metadata_tags: str | None = None
    http_tokens_enforced: str | None = None


def check_hop_limit(hop_limit: int | None) -> None:
    """Raise InvalidParameterValue for a hop limit that cannot be."""
    if hop_limit is not None and not 1 <= hop_limit <= MAX_HOP_LIMIT:
        raise ApiError(
            "InvalidParameterValue",
            f"Value ({hop_limit}) for parameter HttpPutResponseHopLimit is invalid. Expecting a number from 1 to "
            f"{MAX_HOP_LIMIT}.",
        )


def choose_metadata_options(given: MetadataRequest, defaults: MetadataDefaults, image: Image) -> MetadataOptions:
    """Return the options of a new instance: each as given, else by the account's default, else the image's.

    Source: EC2 user guide, "Order of precedence for instance metadata options". Raises UnsupportedOperation where the
    account enforces tokens and the instance would not require them.
    """
    base = MetadataOptions()
    if image.imds_support == "v2.0":
        # EC2 user guide, "Configure the AMI": such images default to IMDSv2 and a hop limit of 2.
        base = MetadataOptions(http_tokens="required", http_put_response_hop_limit=2)
    options = MetadataOptions(
        http_endpoint=given.http_endpoint or defaults.http_endpoint or base.http_endpoint,
        http_tokens=given.http_tokens or defaults.http_tokens or base.http_tokens,
        http_put_response_hop_limit=(
            given.http_put_response_hop_limit
            or defaults.http_put_response_hop_limit
            or base.http_put_response_hop_limit
        ),
        instance_metadata_tags=(
            given.instance_metadata_tags or defaults.instance_metadata_tags or base.instance_metadata_tags
        ),
    )
    if defaults.http_tokens_enforced == "enabled" and options.http_tokens != "required":
        raise ApiError(
            "UnsupportedOperation",
            "You can't launch instances with IMDSv1 because httpTokensEnforced is enabled for this account. Either "
            "launch the instance with httpTokens=required or contact your account owner to disable httpTokensEnforced "
            "using the ModifyInstanceMetadataDefaults API.",
        )
    return options


def modify_metadata_options(cloud: Cloud, caller: Caller, instance_id: str, request: MetadataRequest) -> Instance:
    """Change the options of an instance that has not ended, and return it. What is not given stays as it is.

    Raises InvalidInstanceID.*, IncorrectInstanceState, InvalidParameterValue (also for tags that cannot be shown in
    the metadata), UnsupportedOperation where the account enforces tokens.
    """
    check_hop_limit(request.http_put_response_hop_limit)

    def decide(tx: Tx) -> Instance:
        row = require_one(tx, caller, INSTANCES, instance_id)
        if row.shown_state in (InstanceState.SHUTTING_DOWN, InstanceState.TERMINATED):
            raise ApiError(
                "IncorrectInstanceState",
                f"The instance '{row.id}' is not in a state from which its metadata options can be modified.",
            )
        if request.http_tokens == "optional" and find_defaults(tx, caller).http_tokens_enforced == "enabled":
            raise ApiError(
                "UnsupportedOperation",
                "You can't set httpTokens to 'optional' because httpTokensEnforced is enabled for this account.",
            )
        if request.instance_metadata_tags == "enabled":
            check_metadata_tags(tx.tags.of([row.id]).get(row.id, {}))
        old = row.metadata_options
        options = MetadataOptions(
            http_endpoint=request.http_endpoint or old.http_endpoint,
            http_tokens=request.http_tokens or old.http_tokens,
            http_put_response_hop_limit=request.http_put_response_hop_limit or old.http_put_response_hop_limit,
            instance_metadata_tags=request.instance_metadata_tags or old.instance_metadata_tags,
            state=old.state,
        )
        if options == old:
            return row
        # A stopped instance has no guest to answer: its options are those of its next start.
        state = "applied" if row.shown_state is InstanceState.STOPPED else "pending"
        tx.wake(row.id)
        return tx.instances.update(row.id, metadata_options=replace(options, state=state))

    return cloud.store.write(decide)


def shown_options_state(instance: Instance) -> str:
    """Return `pending` while a guest is not, or may not be, answered by the row's options, else `applied`."""
    return "pending" if instance.shown_state is InstanceState.PENDING else instance.metadata_options.state


def find_defaults(tx: Tx, caller: Caller) -> MetadataDefaults:
    """Return the account's defaults in the caller's region; without any, one of no preferences."""
    found = tx.metadata_defaults.where(account_id=caller.account_id, region=caller.region)
    return found[0] if found else MetadataDefaults(caller.account_id, caller.region)


def get_metadata_defaults(cloud: Cloud, caller: Caller) -> MetadataDefaults:
    """Return the account's defaults in the caller's region."""
    return cloud.store.read(lambda tx: find_defaults(tx, caller))


def modify_metadata_defaults(cloud: Cloud, caller: Caller, request: DefaultsRequest) -> None:
    """Change the account's defaults for instances launched from now on. Raises InvalidParameterValue."""
    hop_limit = request.http_put_response_hop_limit
    if hop_limit != NO_HOP_LIMIT_PREFERENCE:
        check_hop_limit(hop_limit)

    def chosen(given: str | None, current: str | None) -> str | None:
        if given is None:
            return current
        return None if given == NO_PREFERENCE else given

    def decide(tx: Tx) -> None:
        old = find_defaults(tx, caller)
        if hop_limit is None:
            new_hop_limit = old.http_put_response_hop_limit
        else:
            new_hop_limit = None if hop_limit == NO_HOP_LIMIT_PREFERENCE else hop_limit
        tx.metadata_defaults.delete_where(account_id=caller.account_id, region=caller.region)
        tx.metadata_defaults.insert(
            MetadataDefaults(
                account_id=caller.account_id,
                region=caller.region,
                http_endpoint=chosen(request.http_endpoint, old.http_endpoint),
                http_tokens=chosen(request.http_tokens, old.http_tokens),
                http_put_response_hop_limit=new_hop_limit,
                instance_metadata_tags=chosen(request.instance_metadata_tags, old.instance_metadata_tags),
                http_tokens_enforced=chosen(request.http_tokens_enforced, old.http_tokens_enforced),
            )
        )

    cloud.store.write(decide)
