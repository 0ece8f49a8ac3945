"""The operator's configuration: one YAML file, read once, passed in. Nobody else reads files of settings or the
environment; a wrong key or value is a ConfigError that names the file, the key and what would be valid.

The file is found by the caller (`--config`, MINICLOUD_CONFIG, else /etc/minicloud/minicloud.yaml).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from minicloud.errors import ConfigError

DEFAULT_PATH = "/etc/minicloud/minicloud.yaml"
VIRT_TYPES = ("auto", "kvm", "qemu")
# EC2 API reference, RegisterImage, "Name"; IAM API reference, CreateAccountAlias, "AccountAlias".
IMAGE_NAME = r"[a-zA-Z0-9()\[\] ./\-'@_]{3,128}"
ACCOUNT_ALIAS = r"[a-z0-9](?:[a-z0-9]|-(?!-)){1,61}[a-z0-9]"


@dataclass(frozen=True)
class Deadlines:
    """How long the controller waits before it forces or fails something, in seconds."""

    guest_shutdown_seconds: float = 120.0
    guest_reboot_seconds: float = 240.0
    launch_seconds: float = 900.0
    terminated_visible_seconds: float = 3600.0


@dataclass(frozen=True)
class Config:
    """Everything an operator may set. Paths are absolute; networks are CIDR text that has been checked.

    `advertise_url` is how hosts reach this daemon for images; `tls_certificate` and `tls_key` are files in PEM, with
    which the endpoint speaks TLS; `public_address_pools` are CIDRs whose addresses instances get (every address of a
    pool may be used). `image_parameters` maps names of public parameters to names of
    the root account's images; `account_alias` is that account's. `vcpu_overcommit_ratio` 4.0 lets a host with 8 threads
    hold 32 vCPUs. `reserved_memory_mib` is kept for the host itself. A request that takes `slow_request_seconds`
    counts as a slow one.
    """

    path: str = DEFAULT_PATH
    region: str = "local-1"
    listen_address: str = "127.0.0.1"
    listen_port: int = 8010
    tls_certificate: str | None = None
    tls_key: str | None = None
    advertise_url: str | None = None
    socket_path: str = "/run/minicloud/minicloud.sock"
    state_folder: str = "/var/lib/minicloud/controller"
    database_url: str | None = None
    object_store_folder: str | None = None
    image_import_folders: tuple[str, ...] = ()
    max_import_bytes: int = 64 * 1024**3
    instance_types_files: tuple[str, ...] = ()
    virt_type: str = "auto"
    vcpu_overcommit_ratio: float = 4.0
    memory_overcommit_ratio: float = 1.0
    disk_overcommit_ratio: float = 4.0
    reserved_memory_mib: int = 512
    vpc_cidr: str = "172.31.0.0/16"
    transit_cidr: str = "100.127.0.0/16"
    public_address_pools: tuple[str, ...] = ("10.200.0.0/24",)
    dns_servers: tuple[str, ...] = ()
    image_parameters: Mapping[str, str] = field(default_factory=dict)
    account_alias: str | None = None
    max_instances_per_account: int = 1000
    slow_request_seconds: float = 1.0
    workers: int = 16
    deadlines: Deadlines = field(default_factory=Deadlines)

    @property
    def database(self) -> str:
        """SQLAlchemy's URL of the state database."""
        return self.database_url or f"sqlite:///{self.state_folder}/minicloud.db"

    @property
    def object_folder(self) -> str:
        """The folder of the object store."""
        return self.object_store_folder or f"{self.state_folder}/objects"

    @property
    def spool_folder(self) -> str:
        """Where `minicloud image register` uploads wait for their import."""
        return f"{self.state_folder}/spool"

    @property
    def request_log_folder(self) -> str:
        """Where the last requests are written down (`minicloud events`)."""
        return f"{self.state_folder}/requests"

    @property
    def endpoint_url(self) -> str:
        """The endpoint that clients are told of."""
        scheme = "https" if self.tls_certificate else "http"
        return self.advertise_url or f"{scheme}://{self.listen_address}:{self.listen_port}"


def load_config(path: str) -> Config:
    """Read the configuration at `path`; a missing file means every default. Raises ConfigError."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Config(path=path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML: {error}") from error
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: must be a mapping of settings, such as `region: local-1`")
    return parse_config(document, path)


def parse_config(document: dict[str, Any], path: str) -> Config:
    """Check a document and return it as Config. Raises ConfigError naming the key."""
    values = _take(Config, document, path, "", skip=("path", "deadlines"))
    deadlines = document.get("deadlines", {})
    if not isinstance(deadlines, dict):
        raise ConfigError(f"{path}: deadlines: must be a mapping of names to seconds")
    config = Config(
        path=path, deadlines=Deadlines(**_take(Deadlines, deadlines, path, "deadlines.", skip=())), **values
    )
    _check(config)
    return config


def _take(kind: type, document: dict[str, Any], path: str, prefix: str, skip: tuple[str, ...]) -> dict[str, Any]:
    known = {f.name: f for f in fields(kind)}
    values: dict[str, Any] = {}
    for key, value in document.items():
        if key not in known or key == "path":
            raise ConfigError(f"{path}: {prefix}{key}: no such setting; known are {', '.join(sorted(known))}")
        if key not in skip:
            values[key] = _convert(str(known[key].type), value, f"{path}: {prefix}{key}")
    return values


def _convert(kind: str, value: Any, where: str) -> Any:
    if kind == "int" and type(value) is int:
        return value
    if kind == "float" and type(value) in (int, float):
        return float(value)
    if kind in ("str", "str | None") and type(value) is str and value:
        return value
    if kind == "str | None" and value is None:
        return None
    if kind == "tuple[str, ...]" and isinstance(value, list) and all(type(item) is str for item in value):
        return tuple(value)
    texts = (*value, *value.values()) if isinstance(value, dict) else (None,)
    if kind == "Mapping[str, str]" and all(type(one) is str for one in texts):
        return dict(value)
    kinds = {
        "int": "a whole number",
        "float": "a number",
        "tuple[str, ...]": "a list of texts",
        "Mapping[str, str]": "a mapping of texts to texts",
    }
    wanted = kinds.get(kind, "a text")
    raise ConfigError(f"{where}: must be {wanted}, not {value!r}")


def _check(config: Config) -> None:
    def refuse(key: str, message: str) -> ConfigError:
        return ConfigError(f"{config.path}: {key}: {message}")

    if not re.fullmatch(r"[a-z]+(-[a-z0-9]+)*-[0-9]+", config.region):
        raise refuse("region", f"must look like `local-1`, not {config.region!r}")
    if config.virt_type not in VIRT_TYPES:
        raise refuse("virt_type", f"must be one of {', '.join(VIRT_TYPES)}")
    if not 0 < config.listen_port < 65536:
        raise refuse("listen_port", "must be between 1 and 65535")
    for key, other in (("tls_certificate", "tls_key"), ("tls_key", "tls_certificate")):
        path = getattr(config, key)
        if path is not None and not path.startswith("/"):
            raise refuse(key, f"{path!r} must be an absolute path of a file in PEM")
        if path is not None and getattr(config, other) is None:
            raise refuse(other, f"is needed too: {key} is set, and the endpoint speaks TLS with both or not at all")
    if config.tls_certificate and config.advertise_url and not config.advertise_url.startswith("https://"):
        raise refuse("advertise_url", f"must begin with https://, for tls_certificate is set: {config.advertise_url!r}")
    for key in ("vcpu_overcommit_ratio", "memory_overcommit_ratio", "disk_overcommit_ratio"):
        if not 0 < getattr(config, key) <= 100:
            raise refuse(key, "must be above 0 and at most 100")
    for key in ("workers", "max_instances_per_account", "max_import_bytes"):
        if getattr(config, key) < 1:
            raise refuse(key, "must be at least 1")
    if config.slow_request_seconds <= 0:
        raise refuse("slow_request_seconds", "must be above 0")
    for one in fields(config.deadlines):
        if getattr(config.deadlines, one.name) <= 0:
            raise refuse(f"deadlines.{one.name}", "must be above 0")
    for key, networks in (
        ("vpc_cidr", (config.vpc_cidr,)),
        ("transit_cidr", (config.transit_cidr,)),
        ("public_address_pools", config.public_address_pools),
    ):
        for text in networks:
            try:
                ipaddress.IPv4Network(text)
            except ValueError as error:
                raise refuse(key, f"{error}") from error
    pools = [ipaddress.IPv4Network(text) for text in config.public_address_pools]
    for number, pool in enumerate(pools):
        if any(pool.overlaps(other) for other in pools[:number]):
            raise refuse("public_address_pools", f"{pool} overlaps another: an address would be given out twice")
    if not 16 <= ipaddress.IPv4Network(config.vpc_cidr).prefixlen <= 20:
        raise refuse("vpc_cidr", "must be a /16 to /20, which leaves every zone a /20 or /24 of it")
    for name, image in config.image_parameters.items():
        if not re.fullmatch(r"(/[a-zA-Z0-9_.\-]+)+", name) or name.startswith("/minicloud/"):
            raise refuse("image_parameters", f"{name!r} must be a parameter's name such as /aws/service/debian/latest")
        if not re.fullmatch(IMAGE_NAME, image):
            raise refuse("image_parameters", f"{image!r} cannot be an image's name")
    if config.account_alias is not None and not re.fullmatch(ACCOUNT_ALIAS, config.account_alias):
        raise refuse("account_alias", "must be 3 to 63 small letters, digits and single hyphens between them")
    for key in ("state_folder", "socket_path"):
        if not getattr(config, key).startswith("/"):
            raise refuse(key, "must be an absolute path")
    for folder in config.image_import_folders + config.instance_types_files:
        if not folder.startswith("/"):
            raise refuse("image_import_folders / instance_types_files", f"{folder!r} must be an absolute path")
