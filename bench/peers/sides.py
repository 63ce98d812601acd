"""What is installed, started and asked for each side.

Installed from the registries into a throw-away folder, with the clients as they are set up on this machine. The
versions are those of the day the table in the README was made.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bench.load import http_request

LITELLM = "1.108.7"
PORTKEY = "1.15.2"
_INSTALL_MAX_S = 900
_MODEL = "gpt-image-1"
_PROMPT = "A lighthouse on a cliff at dawn, gulls in the wind"
_BODY = msgspec.json.encode({"model": _MODEL, "prompt": _PROMPT, "n": 1})
#: Nobody on a machine that measures may ask the world anything: whoever honours a proxy finds a closed door.
_NOWHERE = {
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1,localhost",
}


class InstallError(RuntimeError):
    """A side could not be installed; the message holds what its installer said."""


@dataclass(frozen=True, slots=True)
class Side:
    """One gateway: how it is started on its port, when it is ready, and what is sent to it."""

    name: str
    version: str
    command: Sequence[str]
    port: int
    request: bytes
    environment: Mapping[str, str] = field(default_factory=dict)
    alive: str = "/"
    """A path that answers with any status as soon as it serves."""


def image_request(headers: Mapping[str, str]) -> bytes:
    """OpenAI's call for one image."""
    return http_request(
        "POST",
        "/v1/images/generations",
        headers={"Content-Type": "application/json", **headers},
        body=_BODY,
    )


def install(folder: Path) -> None:
    """Install both peers into `folder`; done once, found again afterwards.

    Raises:
        InstallError: an installer failed, or took longer than fifteen minutes.
    """
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    python = folder / "litellm" / "bin" / "python"
    if not python.exists():
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(folder / "litellm")])
        _run([uv, "pip", "install", "--quiet", "--python", str(python), f"litellm[proxy]=={LITELLM}"])
    portkey = folder / "portkey"
    if not portkey.exists():
        portkey.mkdir(parents=True)
        (portkey / "package.json").write_text('{"private": true}')
        # Its own code only: what its packages would run at installation is not needed to serve.
        _run(
            [
                "npm",
                "install",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
                f"@portkey-ai/gateway@{PORTKEY}",
            ],
            portkey,
        )


def litellm(folder: Path, upstream: int, port: int) -> Side:
    """LiteLLM's proxy as its production page has it, one worker, without a database: nothing is kept."""
    config = folder / "litellm.json"  # JSON is YAML
    config.write_bytes(
        msgspec.json.encode(
            {
                "model_list": [
                    {
                        "model_name": _MODEL,
                        "litellm_params": {
                            "model": f"openai/{_MODEL}",
                            "api_key": "sk-upstream",
                            "api_base": f"http://127.0.0.1:{upstream}/v1",
                        },
                    }
                ],
                "general_settings": {"master_key": "sk-peers"},
                "litellm_settings": {"set_verbose": False, "json_logs": True, "request_timeout": 600},
            }
        )
    )
    command = [str(folder / "litellm" / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1"]
    return Side(
        "LiteLLM proxy",
        LITELLM,
        [*command, "--port", str(port), "--num_workers", "1"],
        port,
        image_request({"Authorization": "Bearer sk-peers"}),
        {
            **_NOWHERE,
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOG": "ERROR",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_TELEMETRY": "False",
        },
        "/health/liveliness",
    )


def portkey(folder: Path, upstream: int, port: int) -> Side:
    """Portkey's gateway, headless; where to call and with which key comes with each request."""
    program = folder / "portkey" / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    return Side(
        "Portkey gateway",
        PORTKEY,
        ["node", str(program), "--headless", f"--port={port}"],
        port,
        image_request(
            {
                "Authorization": "Bearer sk-upstream",
                "x-portkey-provider": "openai",
                "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1",
            }
        ),
        {**_NOWHERE, "NODE_ENV": "production"},
    )


def _run(command: Sequence[str], folder: Path | None = None) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=dict(os.environ),
            capture_output=True,
            text=True,
            timeout=_INSTALL_MAX_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise InstallError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
