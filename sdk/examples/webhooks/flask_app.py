"""Receive BabySea webhooks with Flask; README.md says how to run it and why each step is there."""

import os
import sqlite3
from contextlib import closing

from flask import Flask, Response, abort, request

from babysea.webhooks import WebhookVerificationError, verify

LIMIT_BYTES = 1 << 20


def create_app() -> Flask:
    """The application, with secrets (a space between them) and the inbox's file from the environment."""
    secrets = os.environ["BABYSEA_WEBHOOK_SECRET"].split()
    inbox = os.environ.get("WEBHOOK_INBOX", "webhooks.sqlite3")
    with closing(sqlite3.connect(inbox)) as db, db:
        db.execute(
            "CREATE TABLE IF NOT EXISTS inbox (delivery_id TEXT PRIMARY KEY, body BLOB, handled INT DEFAULT 0)"
        )

    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = LIMIT_BYTES

    @app.post("/webhooks/babysea")
    def receive() -> Response:
        raw = request.get_data()  # not `request.json`: what was signed are these bytes
        try:
            event = verify(raw, request.headers, secrets)
        except WebhookVerificationError as error:
            abort(400, str(error))
        with closing(sqlite3.connect(inbox)) as db, db:
            db.execute(
                "INSERT INTO inbox (delivery_id, body) VALUES (?, ?) ON CONFLICT DO NOTHING",
                (event.delivery_id, raw),
            )
        return Response(status=204)

    return app
