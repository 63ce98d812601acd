"""The API without the client: what the five lines of quickstart.py save you."""

import os
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

MODEL = "bfl/flux-schnell"


def main() -> Path:
    """Generate a picture, wait for it, save it."""
    base_url = os.environ.get("BABYSEA_BASE_URL", "http://localhost:8000")
    key = os.environ["BABYSEA_API_KEY"]
    with httpx.Client(base_url=base_url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as http:
        answer = http.post(
            f"/v1/generate/image/{MODEL}",
            json={"generation_prompt": "a red fox in fresh snow"},
            headers={"Idempotency-Key": str(uuid4())},  # sent again with the same key, it buys nothing more
        )
        id = data(answer)["generation_id"]
        deadline, pause = time.monotonic() + 120, 0.25
        while (generation := data(http.get(f"/v1/content/{id}")))["generation_status"] in (
            "pending",
            "processing",
        ):
            if time.monotonic() > deadline:
                raise SystemExit(f"{id} is still running")
            time.sleep(pause)
            pause = min(5, pause * 1.5)
    if generation["generation_status"] != "succeeded":
        raise SystemExit(f"{id}: {generation.get('generation_error', 'canceled')}")
    [link] = generation["generation_output_file"]
    file = httpx.get(link, timeout=30).raise_for_status()  # the key is not for whoever keeps the files
    path = Path(f"fox.{file.headers['Content-Type'].partition('/')[2]}")
    path.write_bytes(file.content)
    return path


def data(answer: httpx.Response) -> dict[str, Any]:
    """What an answer is about; an error ends the program."""
    envelope = answer.json()
    if envelope["status"] == "error":
        error = envelope["error"]
        raise SystemExit(f"{error['message']} ({error['code']}, request {envelope['request_id']})")
    found: dict[str, Any] = envelope["data"]
    return found


if __name__ == "__main__":
    print(main())
