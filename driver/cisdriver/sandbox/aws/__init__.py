"""An AWS of our own on loopback, for trying and testing without an account.

moto, behind a layer that checks requests and replies against botocore's models, adds what moto lacks, refuses
what neither knows, and starts a stand-in machine for each instance. ``docs/sandbox.md`` tells its limits.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from .images import BASE_IMAGES
from .machines import free_port

PODMAN = "cisdriver.sandbox.aws.podman:PodmanMachines"
_CLOSE_SECONDS = 60
_ENDPOINT = "endpoint.json"
#: How long a kept sandbox waits for another request before it ends by itself, in seconds.
IDLE_SECONDS = 3600


class SandboxError(Exception):
    """The sandbox could not start, or did not answer."""


@dataclass(frozen=True)
class Endpoint:
    """Where the sandbox answers, and the ids it was furnished with.

    ``env`` makes boto3, amazon.aws and Packer talk to it. The first machine with a key pair that runs at a time has its
    sshd at ``ssh_host``:``ssh_port``; its user takes the key pair of the request that started it.
    """

    url: str
    region: str
    env: dict[str, str]
    ssh_host: str
    ssh_port: int
    vpc_id: str
    subnet_id: str
    base_ami: str

    def client(self, service: str) -> Any:
        """A boto3 client of this account, whatever the environment names."""
        return _client(self.url, self.region, service)


def _client(url: str, region: str, service: str) -> Any:
    import boto3

    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    return boto3.client(service, endpoint_url=url, region_name=region, **keys)


class Sandbox:
    """The embedded AWS as a context manager.

    ``machines`` names the class of machines, ``settings`` its arguments: for ``PODMAN`` see ``podman.py``.

    With ``keep``, a directory, the account outlives its owner: the next ``Sandbox`` that keeps the same directory finds
    it as it was left. It ends by ``end()``, or when it was asked nothing for ``IDLE_SECONDS``.
    """

    def __init__(
        self, region: str = "eu-central-1", machines: str = PODMAN, keep: Path | None = None, **settings: Any
    ) -> None:
        self.region = region
        self._machines, self._settings, self._keep = machines, settings, keep
        self._process: subprocess.Popen[str] | None = None
        self._directory: Path | None = None
        self._url = ""

    def __enter__(self) -> Endpoint:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def start(self) -> Endpoint:
        """Start the process and furnish the account. Raises SandboxError with the process's last words."""
        if self._keep is not None:
            found = self.kept(self._keep)
            if found is not None:
                return self._attach(found)
            shutil.rmtree(self._keep, ignore_errors=True)  # what a killed one has left
            self._keep.mkdir(parents=True)
        self._directory = self._keep.absolute() if self._keep else Path(tempfile.mkdtemp(prefix="cisdriver-aws-"))
        ssh_port = free_port()
        try:
            self._process = self._spawn()
            options = {
                "directory": str(self._directory),
                "region": self.region,
                "ssh_port": ssh_port,
                "machines": self._machines,
                "settings": self._settings,
                "idle": IDLE_SECONDS if self._keep else None,
            }
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(options) + "\n")
            self._process.stdin.flush()
            self._url = _first_line(self._process.stdout, self._log())["url"]
            endpoint = self._furnish(ssh_port)
            if self._keep:
                (self._directory / _ENDPOINT).write_text(json.dumps(asdict(endpoint)), encoding="utf-8")
                self._process.stdin.write("kept\n")
                self._process.stdin.flush()
            return endpoint
        except BaseException:
            self._end()
            raise

    def _attach(self, found: Endpoint) -> Endpoint:
        if found.region != self.region:
            raise SandboxError(f"the sandbox that is kept in {self._keep} is of {found.region}, not of {self.region}")
        assert self._keep is not None
        self._directory, self._url = self._keep.absolute(), found.url
        return found

    @staticmethod
    def kept(keep: Path) -> Endpoint | None:
        """The account that is kept in a directory, or None where none answers."""
        try:
            endpoint = Endpoint(**json.loads((keep / _ENDPOINT).read_text(encoding="utf-8")))
            with urllib.request.urlopen(f"{endpoint.url}/_sandbox/directory", timeout=30) as reply:
                return endpoint if Path(json.load(reply)) == keep.absolute() else None
        except (OSError, ValueError, TypeError):
            return None

    @classmethod
    def end(cls, keep: Path) -> bool:
        """End the account that is kept in a directory, machines and all. False where there is none."""
        found = cls.kept(keep)
        if found is None:
            return False
        with urllib.request.urlopen(f"{found.url}/_sandbox/end", b"{}", timeout=30):
            pass
        end = time.monotonic() + _CLOSE_SECONDS
        while keep.exists():  # the last it does
            if time.monotonic() > end:
                raise SandboxError(f"the sandbox in {keep} does not end; its log is there")
            time.sleep(0.1)
        return True

    def requests(self, service: str | None = None, operation: str | None = None) -> list[dict[str, Any]]:
        """The requests so far, oldest first.

        Each is ``{time, seconds, service, operation, region, parameters, status, code, message}``.
        """
        assert self._directory is not None
        journal = self._directory / "requests.jsonl"
        lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
        found = [json.loads(line) for line in lines]
        return [one for one in found if service in (None, one["service"]) and operation in (None, one["operation"])]

    def leftovers(self) -> dict[str, list[str]]:
        """What exists that a finished run must not leave: kind to ids. Registered images are no leftovers."""
        found: dict[str, list[str]] = self._ask("leftovers")
        return found

    def machines(self) -> dict[str, dict[str, Any]]:
        """The running machines: instance id to ``{host, port, user}``."""
        found: dict[str, dict[str, Any]] = self._ask("machines")
        return found

    def fail(
        self,
        service: str,
        operation: str,
        code: str,
        message: str = "",
        times: int = 1,
        status: int = 400,
        match: dict[str, Any] | None = None,
    ) -> None:
        """Answer the next ``times`` requests of ``operation`` with an error.

        ``match`` narrows it to requests whose parameters have these values, e.g. ``{"addonName": "coredns"}``.
        """
        fault = {"service": service, "operation": operation, "code": code, "message": message or code}
        self._ask("faults", {**fault, "times": times, "status": status, "match": match or {}})

    def close(self) -> None:
        """End the process; its machines and their images go with it. Safe to call twice. One that is kept goes on."""
        if self._keep is None:
            self._end()
        elif self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
            self._process = None

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            try:
                # One that is not ready has no machines yet, but may be building their image for minutes to come.
                process.wait(_CLOSE_SECONDS if self._url and not self._keep else 0)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            process.stdout.close()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def _spawn(self) -> subprocess.Popen[str]:
        assert self._directory is not None
        source = str(Path(__file__).parents[3])
        path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))
        with (self._directory / "server.log").open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "cisdriver.sandbox.aws.server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": path},
            )

    def _log(self) -> Path:
        assert self._directory is not None
        return self._directory / "server.log"

    def _furnish(self, ssh_port: int) -> Endpoint:
        """moto's account comes with a default VPC and a subnet per zone, as a real one does."""
        env = {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_SESSION_TOKEN": "testing",
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
            "AWS_ENDPOINT_URL": self._url,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        ec2 = _client(self._url, self.region, "ec2")
        subnet = ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"][0]
        base = next(image for image in reversed(BASE_IMAGES) if image.architecture == "x86_64")
        return Endpoint(
            self._url, self.region, env, "127.0.0.1", ssh_port, subnet["VpcId"], subnet["SubnetId"], base.id
        )

    def _ask(self, what: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self._url}/_sandbox/{what}", data, timeout=30) as reply:
            return json.load(reply)


def _first_line(stream: IO[str], log: Path) -> dict[str, Any]:
    """The line the process says it is ready with. Raises SandboxError if it ends before."""
    line = stream.readline()
    if not line:
        words = log.read_text(encoding="utf-8").strip().splitlines()[-3:]
        raise SandboxError("the embedded AWS did not start: " + " | ".join(words))
    reply: dict[str, Any] = json.loads(line)
    if "error" in reply:
        raise SandboxError(f"the embedded AWS did not start: {reply['error']}")
    return reply
