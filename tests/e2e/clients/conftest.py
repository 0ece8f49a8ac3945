"""What the clients' flows share: the cloud as they are told of it, and how to see what they did to the world."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import clients, e2e
from support.clients import Unavailable

FLOWS = Path(__file__).parent / "flows"
# Ends what hangs; a step that waits for guests on a busy machine takes minutes.
STEP_SECONDS = 900


@dataclass
class Outside:
    """The cloud as somebody's machine sees it that has the client's program, an endpoint and credentials."""

    cloud: Any
    image_id: str
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a client's process is told: the lab's variables and no others of AWS's, and an empty home."""
        told = {name: value for name, value in self.cloud.environment.items() if name.startswith("AWS_")}
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        return {**kept, "HOME": str(self.home), "AWS_EC2_METADATA_DISABLED": "true", "AWS_PAGER": "", **told}

    def run(
        self, argv: list[str | Path], folder: Path | None = None, timeout: float = STEP_SECONDS, **variables: str
    ) -> str:
        """Run a client's program and return what it printed; AssertionError with all of it if it fails."""
        words = list(map(str, argv))
        result = subprocess.run(
            words,
            cwd=folder or self.home,
            env={**self.environment, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert result.returncode == 0, f"{words} ended with {result.returncode}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def instance(self, instance_id: str) -> dict[str, Any]:
        """Return what the daemon's own door says of an instance."""
        (reservation,) = e2e.door(self.cloud).ec2("DescribeInstances", InstanceIds=[instance_id])["Reservations"]
        return dict(reservation["Instances"][0])

    def tags(self, instance_id: str) -> dict[str, str]:
        return {one["Key"]: one["Value"] for one in self.instance(instance_id).get("Tags", [])}

    def key_file(self, name: str, text: str) -> Path:
        path = self.home / f"{name}.pem"
        path.touch(mode=0o600)
        path.write_text(text)
        return path

    def new_key(self, name: str) -> Path:
        """Return the file of a new private key; the public half stands beside it, in NAME.pub."""
        path = self.home / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)], check=True)
        return path

    def host_of(self, instance_id: str) -> str | None:
        """Return the host that an instance's machine lives on, None if it lives nowhere."""
        found = [host for host, name, _ in e2e.qemus(self.cloud) if name == instance_id]
        assert len(found) <= 1, found
        return found[0] if found else None


@pytest.fixture
def outside(cloud: Any, tmp_path: Path) -> Iterator[Outside]:
    """The cloud, as bare as it was when the test ends: what a failed flow left is taken away, and debris is none."""
    yield Outside(cloud, e2e.image_id(cloud), tmp_path)
    e2e.terminate(cloud, [one["InstanceId"] for one in e2e.live_instances(cloud)])
    for pair in e2e.door(cloud).ec2("DescribeKeyPairs")["KeyPairs"]:
        e2e.door(cloud).ec2("DeleteKeyPair", KeyPairId=pair["KeyPairId"])
    e2e.assert_no_debris(cloud)


@pytest.fixture
def got() -> Callable[[Callable[[], Any]], Any]:
    """Get a client, or skip the test by the client's name where this machine cannot."""

    def get(find: Callable[[], Any]) -> Any:
        try:
            return find()
        except Unavailable as error:
            pytest.skip(str(error))

    return get


@dataclass
class Flow:
    """A client's flow, whose steps stand in flows/steps.py."""

    outside: Outside
    argv: list[str | Path]
    variables: dict[str, str]

    def step(self, step: str, **arguments: Any) -> Any:
        return json.loads(self.outside.run([*self.argv, step, json.dumps(arguments)], **self.variables))


@pytest.fixture
def flow(request: pytest.FixtureRequest, outside: Outside, got: Callable[..., Any]) -> Flow:
    """The flow of the client that the test's parameter names."""
    import sys

    def of_environment(name: str) -> Flow:
        return Flow(outside, [clients.python_environment(name) / "bin" / "python", FLOWS / f"flow_{name}.py"], {})

    def of_awscli(program: list[str | Path]) -> Flow:
        words = " ".join(map(str, program))
        return Flow(outside, [sys.executable, FLOWS / "flow_awscli.py"], {"AWS_PROGRAM": words})

    def of_javascript() -> Flow:
        modules = clients.node_environment("javascript")
        return Flow(outside, ["node", FLOWS / "flow_javascript.mjs"], {"CLIENT_MODULES": str(modules)})

    endpoint = ["--endpoint-url", outside.environment["AWS_ENDPOINT_URL"]]
    flows: dict[str, Callable[[], Flow]] = {
        "aws-cli 1": lambda: of_awscli([Path(sys.executable).with_name("aws")]),
        "Debian's aws-cli": lambda: of_awscli([clients.debian_aws(), *endpoint]),
        "boto3": lambda: Flow(outside, [sys.executable, FLOWS / "flow_boto3.py"], {}),
        "Apache Libcloud": lambda: of_environment("libcloud"),
        "boto 2": lambda: of_environment("boto2"),
        "AWS SDK for JavaScript v3": of_javascript,
    }
    found: Flow = got(flows[request.param])
    return found
