"""config.py: what an operator may set, and what a mistake is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from minicloud.config import Config, load_config, parse_config
from minicloud.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "config" / "minicloud.yaml"


def test_missing_file_means_every_default(tmp_path: Path) -> None:
    assert load_config(str(tmp_path / "none.yaml")) == Config(path=str(tmp_path / "none.yaml"))


def test_empty_file_means_every_default(tmp_path: Path) -> None:
    file = tmp_path / "minicloud.yaml"
    file.write_text("# nothing\n")
    assert load_config(str(file)) == Config(path=str(file))


def test_values_of_every_kind_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "minicloud.yaml"
    file.write_text(
        "region: lab-1\nlisten_port: 80\nvcpu_overcommit_ratio: 8\npublic_address_pools: [192.0.2.0/28]\n"
        "image_parameters: {/aws/service/debian/latest: debian-12}\naccount_alias: acme-lab\n"
        "deadlines:\n  guest_shutdown_seconds: 5\n"
    )
    config = load_config(str(file))
    assert (config.region, config.listen_port, config.vcpu_overcommit_ratio) == ("lab-1", 80, 8.0)
    assert config.public_address_pools == ("192.0.2.0/28",)
    assert config.image_parameters == {"/aws/service/debian/latest": "debian-12"}
    assert config.account_alias == "acme-lab"
    assert config.deadlines.guest_shutdown_seconds == 5.0
    assert config.deadlines.guest_reboot_seconds == Config().deadlines.guest_reboot_seconds


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"regoin": "lab-1"}, "regoin"),
        ({"region": 5}, "region"),
        ({"region": "Lab"}, "region"),
        ({"listen_port": "80"}, "listen_port"),
        ({"listen_port": True}, "listen_port"),
        ({"listen_port": 70000}, "listen_port"),
        ({"vcpu_overcommit_ratio": 0}, "vcpu_overcommit_ratio"),
        ({"virt_type": "xen"}, "virt_type"),
        ({"public_address_pools": "192.0.2.0/28"}, "public_address_pools"),
        ({"public_address_pools": ["192.0.2.1/28"]}, "public_address_pools"),
        ({"public_address_pools": ["192.0.2.0/24", "192.0.2.128/25"]}, "public_address_pools"),
        ({"vpc_cidr": "10.0.0.0/28"}, "vpc_cidr"),
        ({"state_folder": "relative"}, "state_folder"),
        ({"image_import_folders": ["relative"]}, "image_import_folders"),
        ({"workers": 0}, "workers"),
        ({"image_parameters": ["/a"]}, "image_parameters"),
        ({"image_parameters": {"/a": 1}}, "image_parameters"),
        ({"image_parameters": {"a": "debian-12"}}, "image_parameters"),
        ({"image_parameters": {"/a//b": "debian-12"}}, "image_parameters"),
        ({"image_parameters": {"/a:1": "debian-12"}}, "image_parameters"),
        ({"image_parameters": {"/minicloud/images/x": "debian-12"}}, "image_parameters"),
        ({"image_parameters": {"/a": "x"}}, "image_parameters"),
        ({"account_alias": "Acme"}, "account_alias"),
        ({"account_alias": "a--b"}, "account_alias"),
        ({"deadlines": [1]}, "deadlines"),
        ({"deadlines": {"launch": 1}}, "deadlines.launch"),
        ({"deadlines": {"launch_seconds": 0}}, "deadlines.launch_seconds"),
        ({"slow_request_seconds": 0}, "slow_request_seconds"),
        ({"path": "/elsewhere"}, "path"),
        ({"tls_certificate": "/c.pem"}, "tls_key"),
        ({"tls_key": "/k.pem"}, "tls_certificate"),
        ({"tls_certificate": "c.pem", "tls_key": "/k.pem"}, "tls_certificate"),
        ({"tls_certificate": "/c.pem", "tls_key": "k.pem"}, "tls_key"),
        ({"tls_certificate": "/c.pem", "tls_key": "/k.pem", "advertise_url": "http://here"}, "advertise_url"),
    ],
)
def test_a_mistake_is_refused_by_file_and_key(document: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config(document, "/etc/minicloud/minicloud.yaml")
    assert str(refused.value).startswith("/etc/minicloud/minicloud.yaml: ")
    assert named in str(refused.value)


def test_text_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "minicloud.yaml"
    for text in ("- a\n- b\n", "{unclosed", "just words"):
        file.write_text(text)
        with pytest.raises(ConfigError, match=str(file)):
            load_config(str(file))


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(str(tmp_path))


def test_the_example_shows_every_default_truly() -> None:
    shown = re.sub(r"^#( *[a-z_]+:.*)$", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)
    document = yaml.safe_load(shown)
    # These have no default that could be shown: the example gives a likely value.
    likely = {
        "account_alias",
        "advertise_url",
        "database_url",
        "image_import_folders",
        "instance_types_files",
        "object_store_folder",
        "tls_certificate",
        "tls_key",
    }
    for key in likely:
        assert document.pop(key)
    assert parse_config(document, Config().path) == Config()
    assert set(document) | likely == set(Config.__dataclass_fields__) - {"path"}
