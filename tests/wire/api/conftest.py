"""A real HTTP server, boto3 clients that speak to it, and a new cloud behind it for every test."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from support import front as build

from minicloud.api.operations import load_served_catalog
from minicloud.aws.models import Catalog

ACCESS_KEY = "AKIA" + base64.b32encode(build.fixed_bytes(10)).decode()
SECRET_KEY = base64.b64encode(build.fixed_bytes(30)).decode()
NO_RETRIES = Config(retries={"total_max_attempts": 1}, read_timeout=120)


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return load_served_catalog()


@pytest.fixture(scope="session")
def server() -> Iterator[tuple[build.Server, str]]:
    server = build.Server()
    url = server.start()
    yield server, url
    server.stop()


@pytest.fixture(scope="session")
def clients(server: tuple[build.Server, str]) -> Callable[..., Any]:
    """Make boto3 clients: service, then what to change about the credentials."""
    session = boto3.Session(botocore_session=botocore.session.Session())

    def make(service: str, key: str = ACCESS_KEY, secret: str = SECRET_KEY, validate: bool = True) -> Any:
        return session.client(
            service,
            region_name=build.REGION,
            endpoint_url=server[1],
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=Config(parameter_validation=validate).merge(NO_RETRIES),
        )

    return make


@pytest.fixture(scope="session")
def boto_ec2(clients: Callable[..., Any]) -> Any:
    return clients("ec2")


@pytest.fixture
def front(catalog: Catalog, server: tuple[build.Server, str], tmp_path: Path) -> build.Front:
    """A new cloud, served by the server. Its spool is tmp_path/spool, and imports are allowed from tmp_path/images."""
    (tmp_path / "images").mkdir()
    front = build.build_front(catalog, tmp_path, image_import_folders=(str(tmp_path / "images"),))
    server[0].app = build.endpoint_of(front)
    return front


@pytest.fixture
def ec2(front: build.Front, boto_ec2: Any) -> Any:
    return boto_ec2


@pytest.fixture
def run(ec2: Any) -> Callable[..., dict[str, Any]]:
    """RunInstances of the image, one t3.nano unless told otherwise."""

    def call(**changes: Any) -> dict[str, Any]:
        parameters = {"ImageId": build.IMAGE_ID, "MinCount": 1, "MaxCount": 1, "InstanceType": "t3.nano", **changes}
        return dict(ec2.run_instances(**{name: value for name, value in parameters.items() if value is not None}))

    return call


@pytest.fixture
def refused() -> Callable[..., ClientError]:
    """Assert that a call is refused with a code, and return the error."""

    def check(code: str, call: Callable[..., Any], *arguments: Any, **parameters: Any) -> ClientError:
        with pytest.raises(ClientError) as caught:
            call(*arguments, **parameters)
        found = caught.value.response["Error"]
        assert found["Code"] == code, found
        assert caught.value.response["ResponseMetadata"]["RequestId"].startswith("request-")
        return caught.value

    return check
