"""dnsmasq of a router as text: its configuration, its hosts file and its names. One dnsmasq per VPC and host.

Pure but for `upstream_file` and `unprivileged_user`, which look at the host. network.py writes what this renders into
the router's folder, supervisor.py runs dnsmasq on it and sends it SIGHUP when hosts or names changed; a changed
configuration (another subnet, say) means a restart, so its file is named by its content.

Guests get the address of their plan and nobody else gets any. Names of the VPC are answered here and never leave;
other questions go to the host's resolvers.
"""

from __future__ import annotations

import hashlib
import pwd
import socket
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Dict, List, Optional

Plan = Dict[str, Any]

LEASE_SECONDS = 3600
MAX_LEASES = 65536
RESOLVER_FILES = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))


def config_name(config: str) -> str:
    """Return the file name of a configuration."""
    return f"dnsmasq.{hashlib.sha256(config.encode()).hexdigest()[:16]}.conf"


def render_config(plans: List[Plan], folder: Path, user: str, upstream: Optional[Path]) -> str:
    """Return the configuration of a router whose files are in `folder`; `plans` are all its ports (at least one)."""
    router = plans[0]["router"]
    subnets = {plan["subnet"]["id"]: plan["subnet"] for plan in plans}
    lines = [
        "keep-in-foreground",
        f"user={user}",
        "group=nogroup",
        "pid-file=",
        # Interfaces come with their subnets: bind-dynamic takes them up as they appear.
        "bind-dynamic",
        "except-interface=lo",
        *(f"interface={subnets[key]['router_veth']}" for key in sorted(subnets)),
        f"dhcp-leasefile={folder}/leases",
        f"dhcp-lease-max={MAX_LEASES}",
        f"dhcp-hostsfile={folder}/hosts",
        # Guests keep their addresses whatever the lease file says: nobody else can have them.
        "dhcp-authoritative",
        "dhcp-rapid-commit",
        "dhcp-ignore-names",
        "no-ping",
        "quiet-dhcp",
        f"domain={router['domain_name']}",
        f"local=/{router['domain_name']}/",
        "no-hosts",
        f"addn-hosts={folder}/names",
        "domain-needed",
        "bogus-priv",
        "no-resolv" if upstream is None else f"resolv-file={upstream}",
        f"dhcp-option=option:mtu,{router['mtu']}",
    ]
    for index, key in enumerate(sorted(subnets)):
        subnet = subnets[key]
        network = IPv4Network(subnet["cidr"])
        servers = ",".join(router["dns_servers"]) or subnet["gateway_ip"]
        lines += [
            f"dhcp-range=set:subnet{index},{network.network_address},static,{network.netmask},{LEASE_SECONDS}",
            f"dhcp-option=tag:subnet{index},option:router,{subnet['gateway_ip']}",
            f"dhcp-option=tag:subnet{index},option:dns-server,{servers}",
        ]
    return "".join(line + "\n" for line in lines)


def render_hosts(plans: List[Plan]) -> str:
    """Return the hosts file: MAC, address and name of every port. `id:*`: a guest may call itself what it likes."""
    return "".join(
        f"{plan['mac']},id:*,{plan['private_ip']},{_label(plan)},{LEASE_SECONDS}\n" for plan in _ordered(plans)
    )


def render_names(plans: List[Plan]) -> str:
    """Return the names that the router answers for, in the form of /etc/hosts."""
    return "".join(
        f"{plan['private_ip']} {_label(plan)}.{plan['router']['domain_name']} {_label(plan)}\n"
        for plan in _ordered(plans)
    )


def choose_upstream(texts: Dict[Path, str]) -> Optional[Path]:
    """Choose, in order, the first of some resolv.conf files that names a server which a router can reach.

    A server on the host's loopback (systemd-resolved's stub, for one) is not: there the next file counts. None: no
    server anywhere, so only the VPC's own names resolve.
    """
    for path, text in texts.items():
        for line in text.splitlines():
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver" and _is_reachable(words[1]):
                return path
    return None


def upstream_file() -> Optional[Path]:
    """Return the file that names the host's resolvers; dnsmasq follows its changes by itself."""
    texts = {}
    for path in RESOLVER_FILES:
        try:
            texts[path] = path.read_text(errors="replace")
        except OSError:
            continue
    return choose_upstream(texts)


def unprivileged_user() -> str:
    """Return the user that dnsmasq becomes: it parses what guests send."""
    try:
        return pwd.getpwnam("dnsmasq").pw_name
    except KeyError:
        return "nobody"


def _is_reachable(server: str) -> bool:
    try:
        address = IPv4Address(server)
    except ValueError:
        return False  # IPv6: a router has none
    return not address.is_loopback and not address.is_unspecified


def _ordered(plans: List[Plan]) -> List[Plan]:
    return sorted(plans, key=lambda plan: socket.inet_aton(plan["private_ip"]))


def _label(plan: Plan) -> str:
    return str(plan["hostname"]).split(".", 1)[0]
