"""Receive BabySea webhooks with FastAPI; README.md says how to run it and why each step is there."""

import os
import sqlite3
from contextlib import closing

from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool

from babysea.webhooks import WebhookVerificationError, verify

LIMIT_BYTES = 1 << 20


def create_app() -> FastAPI:
    """The application, with secrets (a space between them) and the inbox's file from the environment."""
    secrets = os.environ["BABYSEA_WEBHOOK_SECRET"].split()
    inbox = os.environ.get("WEBHOOK_INBOX", "webhooks.sqlite3")
    with closing(sqlite3.connect(inbox)) as db, db:
        db.execute(
            "CREATE TABLE IF NOT EXISTS inbox (delivery_id TEXT PRIMARY KEY, body BLOB, handled INT DEFAULT 0)"
        )

    def keep(delivery_id: str, body: bytes) -> None:
        with closing(sqlite3.connect(inbox)) as db, db:
            db.execute(
                "INSERT INTO inbox (delivery_id, body) VALUES (?, ?) ON CONFLICT DO NOTHING",
                (delivery_id, body),
            )

    app = FastAPI()

    @app.post("/webhooks/babysea", status_code=204)
    async def receive(request: Request) -> None:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > LIMIT_BYTES:
                raise HTTPException(413)
        raw = bytes(body)  # no `body: SomeModel` parameter: what was signed are these bytes
        try:
            event = verify(raw, request.headers, secrets)
        except WebhookVerificationError as error:
            raise HTTPException(400, str(error)) from error
        await run_in_threadpool(keep, event.delivery_id, raw)

    return app
