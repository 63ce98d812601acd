"""An app that makes pictures and is told when they are done; README.md says how to run it."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel, Field

from babysea import AsyncBabySea, BabySeaError
from babysea.webhooks import GenerationCompleted, GenerationFailed, WebhookVerificationError, verify


class Wish(BaseModel):
    """What somebody wants to see."""

    prompt: str = Field(min_length=1, max_length=500)


def create_app() -> FastAPI:
    """The application; the key, the server and the secret of the webhook come from the environment."""
    secret = os.environ["BABYSEA_WEBHOOK_SECRET"]
    client = AsyncBabySea()
    pictures: dict[str, dict[str, object]] = {}  # a database in real life

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with client:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/pictures", status_code=202)
    async def wish(wish: Wish) -> dict[str, str]:
        try:
            accepted = await client.generate("bfl/flux-schnell", wish.prompt)
        except BabySeaError as error:
            raise HTTPException(502, str(error)) from error
        pictures.setdefault(accepted.id, {"status": "pending"})  # the webhook may have been faster
        return {"id": accepted.id}

    @app.get("/pictures/{id}")
    async def look(id: str) -> dict[str, object]:
        if id not in pictures:
            raise HTTPException(404)
        return pictures[id]

    @app.post("/webhooks/babysea", status_code=204)
    async def receive(request: Request) -> None:
        try:
            event = verify(await request.body(), request.headers, secret)
        except WebhookVerificationError as error:
            raise HTTPException(400, str(error)) from error
        match event.data:  # doing it twice does no harm: a delivery may come again
            case GenerationCompleted(generation_id=id, generation_output_file=links):
                pictures[id] = {"status": "succeeded", "links": links}
            case GenerationFailed(generation_id=id, generation_error=reason):
                pictures[id] = {"status": "failed", "reason": reason}

    return app
