"""The catalogue of instance types: AWS's, packaged beside this module, and the operator's files over them.

Owns the form of an instance-types file. `config/instance-types.yaml` in the source tree is a link to the packaged one,
so that there is a single source that an installed tree has too. Read once, by the daemon; DescribeInstanceTypes here.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from minicloud.cloud.context import Caller, Cloud
from minicloud.errors import ApiError, ConfigError
from minicloud.model.resources import InstanceType

DEFAULT_TYPE = "m1.small"  # EC2 API reference, RunInstances: "Default: m1.small"
PACKAGED = "instance-types.yaml"
GB = 1000**3
MIB = 1024**2
MAX_INSTANCE_STORE_DISKS = 8
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "vcpus": int,
    "memory_mib": int,
    "cores": int,
    "threads_per_core": int,
    "instance_store_gb": list,
    "clock_ghz": (int, float),
    "burstable": bool,
    "current_generation": bool,
    "network_performance": str,
    "free_tier": bool,
}


def instance_store_bytes(size_gb: int) -> int:
    """Return the size of an instance-store disk: GB of 10^9 bytes, up to a whole MiB.

    QEMU refuses to open without the page cache a disk that is no multiple of the file system's block, mostly 4096.
    """
    return -(-size_gb * GB // MIB) * MIB


def load_instance_types(files: Iterable[str]) -> dict[str, InstanceType]:
    """Return the packaged types with those of `files` added or put in their place. Raises ConfigError."""
    packaged = importlib.resources.files(__package__).joinpath(PACKAGED).read_text(encoding="utf-8")
    types = parse_instance_types(packaged, PACKAGED)
    for file in files:
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: instance types cannot be read: {error}") from error
        types.update(parse_instance_types(text, file))
    return types


def parse_instance_types(text: str, path: str) -> dict[str, InstanceType]:
    """Return the types of one file by name. Raises ConfigError naming the file, the type and what is wrong."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: must be a mapping such as `t3.nano: {{vcpus: 2, memory_mib: 512}}`")
    return {str(name): _parse_type(str(name), value, f"{path}: {name}") for name, value in document.items()}


def _parse_type(name: str, value: Any, where: str) -> InstanceType:
    if not isinstance(value, dict) or not {"vcpus", "memory_mib"} <= value.keys():
        raise ConfigError(f"{where}: needs at least `vcpus` and `memory_mib`")
    for key, given in value.items():
        wanted = _FIELDS.get(key)
        if wanted is None:
            raise ConfigError(f"{where}: {key}: no such field; known are {', '.join(_FIELDS)}")
        if not isinstance(given, wanted) or (isinstance(given, bool) and wanted is not bool):
            raise ConfigError(f"{where}: {key}: {given!r} is not valid")
    store = value.get("instance_store_gb", [])
    if len(store) > MAX_INSTANCE_STORE_DISKS or not all(type(size) is int and 0 < size <= 16384 for size in store):
        raise ConfigError(f"{where}: instance_store_gb: must list at most {MAX_INSTANCE_STORE_DISKS} sizes in GB")
    vcpus = value["vcpus"]
    if not 1 <= vcpus <= 255 or not 16 <= value["memory_mib"] <= 16 * 1024**2:
        raise ConfigError(f"{where}: vcpus must be 1 to 255, memory_mib 16 to {16 * 1024**2}")
    threads = value.get("threads_per_core", 1 if vcpus == 1 else 2)
    cores = value.get("cores", max(1, vcpus // max(threads, 1)))
    if threads < 1 or cores * threads != vcpus:
        raise ConfigError(f"{where}: cores ({cores}) times threads_per_core ({threads}) must be vcpus ({vcpus})")
    clock_ghz = value.get("clock_ghz")
    return InstanceType(
        name=name,
        vcpus=vcpus,
        memory_mib=value["memory_mib"],
        instance_store_gb=tuple(store),
        cores=cores,
        threads_per_core=threads,
        clock_ghz=None if clock_ghz is None else float(clock_ghz),
        burstable=value.get("burstable", False),
        current_generation=value.get("current_generation", True),
        network_performance=value.get("network_performance", "Up to 5 Gigabit"),
        free_tier=value.get("free_tier", False),
    )


def find_type(types: Mapping[str, InstanceType], name: str) -> InstanceType:
    """Return a type for RunInstances. Raises InvalidParameterValue in EC2's words."""
    found = types.get(name)
    if found is None:
        raise ApiError("InvalidParameterValue", f"Invalid value '{name[:100]}' for InstanceType.")
    return found


def describe_instance_types(cloud: Cloud, caller: Caller, names: Iterable[str]) -> list[InstanceType]:
    """Return the named types, all of them if none is named. Raises InvalidInstanceType."""
    del caller  # every account sees the same catalogue
    wanted = list(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in cloud.types]
    if unknown:
        shown = ", ".join(name[:100] for name in unknown)
        raise ApiError("InvalidInstanceType", f"The following supplied instance types do not exist: [{shown}]")
    return [cloud.types[name] for name in wanted] if wanted else list(cloud.types.values())
