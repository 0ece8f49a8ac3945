"""What a lab consists of, decided without making any of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from _lab import init, machines, plan, state


@pytest.fixture
def lab() -> plan.LabPlan:
    return plan.LabPlan("x", 98, 2, Path("/run/labs/x"), Path("/data/labs/x"), Path("/root/minicloud"))


def test_names_and_addresses_follow_from_the_plan(lab: plan.LabPlan) -> None:
    shown = [(machine.name, machine.namespace, machine.address) for machine in lab.machines]
    assert shown == [
        ("controller", "mclab-x-controller", "10.98.0.1"),
        ("host1", "mclab-x-host1", "10.98.0.11"),
        ("host2", "mclab-x-host2", "10.98.0.12"),
    ]
    assert (lab.network, lab.public_pool, lab.leg, lab.leg_address) == (
        "10.98.0.0/16",
        "10.98.1.0/24",
        "mclab98",
        "10.98.0.254",
    )


def test_no_address_is_given_twice_in_the_largest_lab(lab: plan.LabPlan) -> None:
    largest = dataclasses.replace(lab, host_count=plan.MAX_HOSTS)
    addresses = [machine.address for machine in largest.machines] + [largest.leg_address]
    assert len(set(addresses)) == plan.MAX_HOSTS + 2


def test_every_interface_name_fits_the_kernel(lab: plan.LabPlan) -> None:
    largest = dataclasses.replace(lab, host_count=plan.MAX_HOSTS, index=min(plan.NETWORK_INDEXES))
    for _namespace, lines in plan.render_network(largest):
        words = [line.split() for line in lines]
        for line in words:
            if line[:2] == ["link", "add"]:
                assert len(line[2]) <= 15


@pytest.mark.parametrize("name", ["", "A", "a/b", "-a", "a b", "x" * 33, "..", "a\n"])
def test_a_name_that_cannot_name_a_namespace_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a lab"):
        plan.check_name(name)


@pytest.mark.parametrize("name", ["a", "lab", "test-123", "x" * 32])
def test_usual_names_are_taken(name: str) -> None:
    assert plan.check_name(name) == name


def test_network_is_made_inside_namespaces_but_for_the_leg(lab: plan.LabPlan) -> None:
    scripts = plan.render_network(lab)
    ours = [line for namespace, lines in scripts if namespace is None for line in lines]
    assert ours == [
        "netns add mclab-x-controller",
        "netns add mclab-x-host1",
        "netns add mclab-x-host2",
        "link add mclab98 type veth peer name leg netns mclab-x-controller",
        "address add 10.98.0.254/16 dev mclab98",
        "link set mclab98 up",
    ]
    host = next(lines for namespace, lines in scripts if namespace == "mclab-x-host2")
    assert "route add default via 10.98.0.1" in host


def test_sshd_listens_on_its_host_only_and_takes_keys_only(lab: plan.LabPlan) -> None:
    config = plan.render_sshd_config(lab.hosts[1]).splitlines()
    assert [line for line in config if line.startswith("ListenAddress")] == ["ListenAddress 10.98.0.12"]
    assert "PasswordAuthentication no" in config
    assert "PermitRootLogin prohibit-password" in config


def test_hosts_file_names_every_machine_and_refuses_strangers(lab: plan.LabPlan) -> None:
    text = plan.render_hosts_file(lab, lab.controller)
    assert "10.98.0.12 host2\n" in text
    stranger = dataclasses.replace(lab.controller, name="host9")
    with pytest.raises(ValueError, match="host9"):
        plan.render_hosts_file(lab, stranger)


def test_a_host_starts_daemons_and_forwards_nothing_by_itself(lab: plan.LabPlan) -> None:
    spec = plan.render_init_spec(lab, lab.hosts[0])
    assert [argv[0].rpartition("/")[2] for argv in spec["daemons"]] == ["sshd", "virtlogd", "libvirtd"]
    assert spec["sysctl"] == {"net/ipv4/ip_forward": "0"}
    assert ["/data/labs/x/host1/var-lib-libvirt", "/var/lib/libvirt"] in spec["folders"]


def test_the_controller_routes_and_runs_no_libvirt(lab: plan.LabPlan) -> None:
    spec = plan.render_init_spec(lab, lab.controller)
    assert spec["daemons"] == []
    assert spec["sysctl"] == {"net/ipv4/ip_forward": "1"}
    assert [target for _source, target in spec["folders"]] == ["/root", "/etc/minicloud", "/var/lib/minicloud"]


def test_the_checkout_stays_visible_below_a_hidden_folder(lab: plan.LabPlan) -> None:
    spec = plan.render_init_spec(lab, lab.controller)
    hidden = [target for _source, target in spec["folders"]]
    assert [path for path in spec["keep"] if init.is_below(path, hidden)] == ["/root/minicloud"]
    assert not init.is_below("/rooted/minicloud", hidden)
    assert init.is_below("/root", hidden)


def test_the_first_free_network_is_taken() -> None:
    assert machines.choose_index(set(), set()) == 99
    assert machines.choose_index({99, 97}, {98}) == 96
    with pytest.raises(state.LabError, match="no free network"):
        machines.choose_index(set(plan.NETWORK_INDEXES), set())


@pytest.mark.parametrize("secret", ["!", "*", "$y$j9T$secret$hash", ""])
def test_root_of_a_host_has_no_password_and_is_not_locked(secret: str) -> None:
    shadow = f"daemon:*:19000:0:99999:7:::\nroot:{secret}:19000:0:99999:7:::\nrootless:!:1::::::\n"
    assert machines.unlock_root(shadow) == (
        "daemon:*:19000:0:99999:7:::\nroot:*:19000:0:99999:7:::\nrootless:!:1::::::\n"
    )
