"""One transaction as the rest of minicloud sees it: a table per kind of row, and tasks that wake the worker.

Made by Store only, for the length of one function. Holds what the function wrote until the commit, so a function that
is run again after a conflict starts from nothing.
"""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, update

from minicloud.clock import Clock
from minicloud.model.resources import (
    AccessKey,
    Account,
    Attachment,
    ClientToken,
    Host,
    Image,
    ImportTask,
    Instance,
    KeyPair,
    MetadataDefaults,
    NetworkInterface,
    Pool,
    Secret,
    SecurityGroup,
    SecurityGroupRule,
    Snapshot,
    Subnet,
    Task,
    Volume,
    Vpc,
    Zone,
)
from minicloud.store import schema
from minicloud.store.tables import Definition, Rows, Table, TagTable

_ACCOUNTS = Definition(schema.accounts, Account)
_ACCESS_KEYS = Definition(schema.access_keys, AccessKey)
_SECRETS = Definition(schema.secrets, Secret)
_ZONES = Definition(schema.zones, Zone)
_HOSTS = Definition(schema.hosts, Host)
_POOLS = Definition(schema.pools, Pool)
_KEY_PAIRS = Definition(schema.key_pairs, KeyPair)
_IMAGES = Definition(schema.images, Image)
_SNAPSHOTS = Definition(schema.snapshots, Snapshot)
_IMPORT_TASKS = Definition(schema.import_tasks, ImportTask)
_INSTANCES = Definition(schema.instances, Instance)
_VOLUMES = Definition(schema.volumes, Volume)
_ATTACHMENTS = Definition(schema.attachments, Attachment)
_VPCS = Definition(schema.vpcs, Vpc)
_SUBNETS = Definition(schema.subnets, Subnet)
_SECURITY_GROUPS = Definition(schema.security_groups, SecurityGroup)
_SECURITY_GROUP_RULES = Definition(schema.security_group_rules, SecurityGroupRule)
_NETWORK_INTERFACES = Definition(schema.network_interfaces, NetworkInterface)
_METADATA_DEFAULTS = Definition(schema.metadata_defaults, MetadataDefaults)
_CLIENT_TOKENS = Definition(schema.client_tokens, ClientToken)
TASKS = Definition(schema.tasks, Task)

_WAKE = (
    update(schema.tasks)
    .where(schema.tasks.c.id == bindparam("w_id"))
    .values(due_us=bindparam("v_now_us"), wake_count=schema.tasks.c.wake_count + 1)
)


class Tx:
    """The state of the cloud inside one transaction. `now_us` is when it began, in UTC microseconds.

    `steady_us` is the same moment on the clock that tasks are due by, which wall time's jumps do not move.
    """

    def __init__(self, connection: Connection, clock: Clock, writable: bool) -> None:
        self.now_us = clock.now_us()
        self.steady_us = clock.steady_us()
        self._connection = connection
        self._writable = writable
        self._new_tasks: list[Task] = []
        self._to_wake: dict[str, None] = {}
        self._woken: set[str] = set()
        self.accounts = Table(connection, _ACCOUNTS, writable)
        self.access_keys = Table(connection, _ACCESS_KEYS, writable)
        self.secrets = Table(connection, _SECRETS, writable)
        self.zones = Table(connection, _ZONES, writable)
        self.hosts = Table(connection, _HOSTS, writable)
        self.pools = Table(connection, _POOLS, writable)
        self.key_pairs = Table(connection, _KEY_PAIRS, writable)
        self.images = Table(connection, _IMAGES, writable)
        self.snapshots = Table(connection, _SNAPSHOTS, writable)
        self.import_tasks = Table(connection, _IMPORT_TASKS, writable)
        self.instances = Table(connection, _INSTANCES, writable)
        self.volumes = Table(connection, _VOLUMES, writable)
        self.attachments = Table(connection, _ATTACHMENTS, writable)
        self.vpcs = Table(connection, _VPCS, writable)
        self.subnets = Table(connection, _SUBNETS, writable)
        self.security_groups = Table(connection, _SECURITY_GROUPS, writable)
        self.security_group_rules = Table(connection, _SECURITY_GROUP_RULES, writable)
        self.network_interfaces = Table(connection, _NETWORK_INTERFACES, writable)
        self.metadata_defaults = Rows(connection, _METADATA_DEFAULTS, writable)
        self.client_tokens = Rows(connection, _CLIENT_TOKENS, writable)
        self.tags = TagTable(connection, writable)
        self._tasks = Table(connection, TASKS, writable)

    @property
    def tasks(self) -> Table[Task]:
        """The tasks, those added in this transaction included."""
        self.flush()
        return self._tasks

    @property
    def connection(self) -> Connection:
        """What queries.py runs its statements on; nobody else does."""
        self.flush()
        return self._connection

    @property
    def woken(self) -> frozenset[str]:
        """The tasks to tell the worker of once this transaction is committed."""
        return frozenset(self._woken)

    def add_task(
        self,
        id: str,
        kind: str,
        step: str,
        facts: dict[str, object] | None = None,
        lease_group: str | None = None,
    ) -> None:
        """Add the task of a resource, due now. `lease_group` is the task's own id unless given."""
        self._must_write()
        self._new_tasks.append(
            Task(
                id=id,
                kind=kind,
                step=step,
                facts={} if facts is None else facts,
                attempt=0,
                due_us=self.steady_us,
                lease_group=lease_group or id,
                lease_holder=None,
                lease_epoch=0,
                wake_count=0,
                step_started_us=self.steady_us,
                last_error=None,
                created_us=self.now_us,
            )
        )
        self._woken.add(id)

    def wake(self, task_id: str) -> None:
        """Make a task due now, and let it know if it is at work. A task that is over stays over."""
        self._must_write()
        self._to_wake[task_id] = None
        self._woken.add(task_id)

    def flush(self) -> None:
        """Write what was gathered to be written in one go. Store calls it before the commit."""
        if self._new_tasks:
            new, self._new_tasks = self._new_tasks, []
            self._tasks.insert_many(new)
        if self._to_wake:
            ids, self._to_wake = list(self._to_wake), {}
            self._connection.execute(_WAKE, [{"w_id": id, "v_now_us": self.steady_us} for id in ids])

    def _must_write(self) -> None:
        if not self._writable:
            raise RuntimeError("this is a read transaction; use Store.write")
