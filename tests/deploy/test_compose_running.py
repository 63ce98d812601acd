"""compose.yaml, run: commands, variables, secrets and proxy as they stand there, a process in place of each container.

PostgreSQL, Redis and the S3 server are those of the tests; what Docker does is done by the kernel's own means
(container.py). Nothing leaves the machine: every container has an address of the loopback network.
"""

import asyncio
import json
import random
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.deploy.container import Container, needs_namespaces
from tests.deploy.files import COMPOSE, DEPLOY, compose, image_environment, interpolated
from tests.emulators import s3
from tests.limits.servers import free_port, needs_redis
from tests.postgres15 import Postgres15, needs_postgres15, postgres15
from tests.support import FINAL, eventually

#: The version of compose.yaml; Debian's is too old for the Caddyfile.
_CADDY = Path(sys.executable).with_name("caddy")
needs_caddy = pytest.mark.skipif(
    not _CADDY.exists(), reason="Caddy 2.11 is not installed (tests/deploy/requirements.lock)"
)

_PATIENCE_S = 60.0
_DOMAIN = "media.test"


class Installation:
    """The services of compose.yaml.

    Args:
        s3_address: where the S3 server is.
    """

    def __init__(self, folder: Path, postgres: Postgres15, s3_address: str) -> None:
        self.port = free_port()
        self._folder = folder
        self._postgres = postgres
        self._redis_port = free_port()
        self._s3_address = s3_address
        self._compose = compose()
        self._network = f"127.{random.randrange(2, 250)}.{random.randrange(2, 250)}"
        ours = enumerate(("migrate", "api-1", "api-2", "worker", "console", "proxy"), 1)
        self._hosts = {name: f"{self._network}.{number}" for number, name in ours}
        self._hosts |= {"postgres": "127.0.0.1", "valkey": "127.0.0.1"}
        self._containers: dict[str, Container] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def make_secrets(self) -> None:
        """By the script, as an operator makes them."""
        shutil.copytree(COMPOSE.parent, self._folder / "compose")
        subprocess.run(["sh", "make-secrets"], cwd=self._folder / "compose", check=True, capture_output=True)
        # Only the ports of the servers of others and the credentials of the S3 server are not as they were made.
        self._change("database_url_us", ":5432/", f":{self._postgres.port}/")
        self._change("redis_url", ":6379/", f":{self._redis_port}/")
        self._secret("s3-client.env").write_text(
            f"AWS_ACCESS_KEY_ID={s3.ACCESS_KEY}\nAWS_SECRET_ACCESS_KEY={s3.SECRET_KEY}\n"
        )

    async def make_database(self) -> None:
        """As the image of PostgreSQL makes it from the service's variables."""
        described = self._compose["services"]["postgres"]["environment"]
        assert (described["POSTGRES_USER"], described["POSTGRES_DB"]) == ("babysea", "babysea_us")
        password = self._secret("postgres_password").read_text()
        await self._postgres.execute(f"CREATE ROLE babysea LOGIN PASSWORD '{password}'")
        await self._postgres.execute("CREATE DATABASE babysea_us OWNER babysea")

    def start_counters(self) -> None:
        """Redis with the settings that Valkey has there."""
        counters = ["redis-server", str(self._secret("valkey.conf")), "--port", str(self._redis_port)]
        self._running["valkey"] = subprocess.Popen(
            [*counters, "--bind", "127.0.0.1", "--dir", str(self._folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def _secret(self, name: str) -> Path:
        return self._folder / "compose" / "secrets" / name

    def _change(self, secret: str, old: str, new: str) -> None:
        text = self._secret(secret).read_text()
        assert text.count(old) == 1
        self._secret(secret).write_text(text.replace(old, new))

    def container(self, service: str) -> Container:
        """The container of a service."""
        if service not in self._containers:
            described = self._compose["services"][service]
            files = self._compose["secrets"]
            wanted = described.get("secrets", ())
            made = Container(
                self._folder / service,
                self._environment(described, self._hosts[service]),
                {name: self._folder / "compose" / files[name]["file"] for name in wanted},
                self._hosts,
                (DEPLOY / "docker" / "healthcheck.py", COMPOSE.parent / "Caddyfile"),
            )
            made.prepare()
            self._containers[service] = made
        return self._containers[service]

    def _environment(self, described: dict[str, Any], address: str) -> dict[str, str]:
        of_env = {
            "BABYSEA_DOMAIN": _DOMAIN,
            "PROXY_SUBNET": "127.0.0.0/8",
            "SITES": f"http://api.us.{_DOMAIN}:{self.port}",
        }
        named = [each if isinstance(each, str) else each["path"] for each in described.get("env_file", ())]
        found = [self._folder / "compose" / name for name in named]
        lines = [line for path in found if path.exists() for line in path.read_text().splitlines()]
        ours = described["image"].startswith("${IMAGE")
        return {
            **(image_environment() if ours else {}),
            **dict(line.split("=", 1) for line in lines),
            **{name: interpolated(value, of_env) for name, value in described["environment"].items()},
            "PATH": "/opt/babysea/bin:/usr/local/bin:/usr/bin:/bin",
            # In place of all addresses of a container its own of the common loopback network.
            **(
                {"BABYSEA_HOST": address, "BABYSEA_METRICS_HOST": address}
                if ours
                else {"XDG_DATA_HOME": "/opt/tmp"}
            ),
            **(
                {"AWS_ENDPOINT": self._s3_address, "STORAGE_URL": f"s3://{s3.BUCKET}/outputs"} if ours else {}
            ),
            # Drawing is not what is tried here.
            **({"BABYSEA_SANDBOX_IMAGE_EDGE": "64", "BABYSEA_SANDBOX_LATENCY_S": "0"} if ours else {}),
        }

    def command(self, service: str) -> list[str]:
        """What runs in a container: the image's entry point and the service's command."""
        return ["babysea-server", *self._compose["services"][service]["command"]]

    def start(self, service: str, *, command: list[str] | None = None) -> None:
        """Start a service."""
        log = self._folder / f"{service}.log"
        self._running[service] = self.container(service).start(command or self.command(service), log)

    def stop(self, service: str) -> subprocess.Popen[bytes]:
        """Have a service end as Docker does: by the signal of the image."""
        process = self._running[service]
        process.send_signal(signal.SIGTERM)
        return process

    async def healthy(self, service: str) -> None:
        """Wait until the service's own check says so, at the port of the image.

        The check asks 127.0.0.1, which all containers have in common here, so its question is put to the container's.
        """
        address = self._hosts[service]

        async def ready() -> bool:
            async with httpx.AsyncClient() as client:
                try:
                    return (await client.get(f"http://{address}:9100/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

        await eventually(ready, within_s=_PATIENCE_S)

    def check(self) -> None:
        """Nothing has ended that was not told to."""
        for name, process in self._running.items():
            assert process.poll() is None, (self._folder / f"{name}.log").read_text()

    def end(self) -> None:
        """Whatever runs is over."""
        for process in self._running.values():
            process.kill()
            process.wait()


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    """Prepared; nothing of ours runs yet."""
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    async with s3.serving(s3.Bucket(bucket)) as address:
        with postgres15() as postgres:
            made = Installation(tmp_path, postgres, address)
            made.make_secrets()
            await made.make_database()
            made.start_counters()
            try:
                yield made
            finally:
                made.end()


async def _printed(installation: Installation, service: str, *arguments: str) -> str:
    """What a command prints in a container; in a thread, because it may ask the S3 server, which is in this loop."""
    container = installation.container(service)
    done = await asyncio.to_thread(container.run, ["babysea-server", *arguments])
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def _made(installation: Installation, noun: str, *options: str) -> dict[str, str]:
    """What `create` of a noun tells, run where an API is."""
    made: dict[str, str] = json.loads(
        await _printed(installation, "api-1", noun, "create", *options, "--json")
    )
    return made


async def _ended(process: subprocess.Popen[bytes]) -> int:
    async def code() -> tuple[int] | None:
        return None if process.poll() is None else (process.returncode,)

    return (await eventually(code, within_s=_PATIENCE_S))[0]


class _Customer:
    """Who calls the API through the proxy, and asks again where the answer is to ask again, as the SDK does."""

    def __init__(self, client: httpx.AsyncClient, key: str) -> None:
        self.client = client
        client.headers["Authorization"] = f"Bearer {key}"

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer of a process that stays, whatever one that is just leaving has said."""

        async def answered() -> httpx.Response | None:
            response = await self.client.request(method, path, **options)
            return None if response.status_code in (502, 503) else response

        response = await eventually(answered, within_s=_PATIENCE_S)
        assert response.status_code == 200, response.text
        return response

    async def made(self) -> bytes:
        """Generate a picture and get its file."""
        accepted = await self.request(
            "POST",
            "/v1/generate/image/sandbox/image",
            json={"generation_prompt": "a harbour"},
            headers={"Idempotency-Key": str(uuid.uuid4())},
        )
        path = f"/v1/content/{accepted.json()['data']['generation_id']}"

        async def final() -> dict[str, Any] | None:
            data: dict[str, Any] = (await self.request("GET", path)).json()["data"]
            return data if data["generation_status"] in FINAL else None

        generation = await eventually(final, within_s=_PATIENCE_S)
        assert generation["generation_status"] == "succeeded", generation
        link = httpx.URL(generation["generation_output_file"][0])
        assert (link.scheme, link.netloc.decode()) == ("http", self.client.headers["host"])
        return (await self.request("GET", link.raw_path.decode())).content


@pytest.mark.timeout(300)
@needs_namespaces
@needs_postgres15
@needs_redis
@needs_caddy
async def test_the_services_of_the_compose_file_serve_a_customer_and_are_replaced_one_by_one(
    installation: Installation,
) -> None:
    migrated = await _printed(installation, "migrate", *installation.command("migrate")[1:])
    assert "schema is up to date in us" in migrated

    for service in ("api-1", "api-2", "worker", "console"):
        installation.start(service)
    caddyfile = "/opt/babysea/Caddyfile"
    installation.start("proxy", command=["caddy", "run", "--adapter", "caddyfile", "--config", caddyfile])
    account = await _made(installation, "accounts", "--name", "First", "--plan", "free")
    key = await _made(
        installation, "keys", "--account", account["account_id"], "--name", "First", "--preset", "full_access"
    )

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{installation.port}", timeout=20) as client:
        client.headers["host"] = f"api.us.{_DOMAIN}:{installation.port}"

        async def answered(path: str) -> httpx.Response | None:
            installation.check()
            try:
                response = await client.get(path)
            except httpx.TransportError:
                return None
            return response if response.status_code < 500 else None

        await eventually(lambda: answered("/readyz"), within_s=_PATIENCE_S)
        console = await eventually(lambda: answered("/console"), within_s=_PATIENCE_S)
        assert console.status_code == 303
        assert "/console/" in console.headers["location"]

        customer = _Customer(client, key["api_key"])
        assert (await customer.made()).startswith(b"\x89PNG")

        # One API is replaced while the other serves, and then the other way round.
        assert await _ended(installation.stop("api-1")) == 0
        assert (await customer.made()).startswith(b"\x89PNG")
        installation.start("api-1")
        await installation.healthy("api-1")
        assert await _ended(installation.stop("api-2")) == 0
        assert (await customer.made()).startswith(b"\x89PNG")

    for process in [installation.stop(name) for name in ("api-1", "console", "worker")]:
        assert await _ended(process) == 0
