"""What must exist before anybody can ask for anything: the root account with a key, a region's default network.

Every `ensure_` may run again and changes nothing that is there: a rule that its owner revoked stays revoked. Called by
the daemon at start and by `minicloud init`; zones.py makes the per-zone part.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from minicloud import ids
from minicloud.cloud.context import Cloud
from minicloud.model.resources import AccessKey, Account, SecurityGroup, SecurityGroupRule, Vpc
from minicloud.store import queries
from minicloud.store.store import Tx

ROOT_ACCOUNT_ID = "100000000001"
EVERYWHERE = "0.0.0.0/0"
SSH_PORT = 22


@dataclass(frozen=True, slots=True)
class Root:
    """The root account and the key that `minicloud init` hands to its owner."""

    account: Account
    access_key: AccessKey


def ensure_root(cloud: Cloud) -> Root:
    """Return the root account and its oldest access key, making what is missing."""

    def decide(tx: Tx) -> Root:
        account = tx.accounts.get(ROOT_ACCOUNT_ID)
        if account is None:
            account = Account(id=ROOT_ACCOUNT_ID, name="root", created_us=tx.now_us)
            tx.accounts.insert(account)
        keys = tx.access_keys.where(account_id=account.id)
        if keys:
            return Root(account, keys[0])
        # AWS's forms: AKIA and 16 capitals or digits; 40 characters of base64.
        key = AccessKey(
            id="AKIA" + base64.b32encode(cloud.random_bytes(10)).decode(),
            account_id=account.id,
            secret=base64.b64encode(cloud.random_bytes(30)).decode(),
            created_us=tx.now_us,
        )
        tx.access_keys.insert(key)
        return Root(account, key)

    return cloud.store.write(decide)


def ensure_region(cloud: Cloud, account_id: str, region: str) -> Vpc:
    """Return the account's default VPC in a region, making it and its default security group if they are missing.

    The group has EC2's default rules (all traffic from its own members, all egress) and minicloud's addition, visible
    like any rule: ssh from everywhere, so that the first instance can be reached.
    """

    def decide(tx: Tx) -> Vpc:
        existing = tx.vpcs.where(account_id=account_id, region=region, is_default=True)
        if existing:
            return existing[0]
        vpc = Vpc(
            id=cloud.make_id(ids.VPC),
            account_id=account_id,
            region=region,
            cidr=cloud.config.vpc_cidr,
            is_default=True,
            transit_index=_free_transit_index(tx),
            created_us=tx.now_us,
        )
        group = SecurityGroup(
            id=cloud.make_id(ids.SECURITY_GROUP),
            account_id=account_id,
            vpc_id=vpc.id,
            name="default",
            description="default VPC security group",
            created_us=tx.now_us,
        )
        tx.vpcs.insert(vpc)
        tx.security_groups.insert(group)
        tx.security_group_rules.insert_many(
            [
                _rule(cloud, group, egress=False, protocol="-1", source_group_id=group.id),
                _rule(cloud, group, egress=True, protocol="-1", cidr=EVERYWHERE),
                _rule(cloud, group, egress=False, protocol="tcp", port=SSH_PORT, cidr=EVERYWHERE),
            ]
        )
        return vpc

    return cloud.store.write(decide)


def _free_transit_index(tx: Tx) -> int:
    used = queries.used_transit_indexes(tx)
    return next(index for index in range(len(used) + 1) if index not in used)


def _rule(
    cloud: Cloud,
    group: SecurityGroup,
    *,
    egress: bool,
    protocol: str,
    port: int | None = None,
    cidr: str | None = None,
    source_group_id: str | None = None,
) -> SecurityGroupRule:
    return SecurityGroupRule(
        id=cloud.make_id(ids.SECURITY_GROUP_RULE),
        group_id=group.id,
        account_id=group.account_id,
        egress=egress,
        protocol=protocol,
        from_port=port,
        to_port=port,
        cidr=cidr,
        source_group_id=source_group_id,
        description=None,
    )
