"""A FastAPI app whose page views, timings and errors arrive under the visitor's ids.

SPOORWAY=http://127.0.0.1:8080 uvicorn fastapi_app:app
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from spoorway_tracker import AsyncTracker
from spoorway_tracker.integrations.asgi import Middleware

tracker = AsyncTracker(os.environ["SPOORWAY"], "shop")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
    await tracker.close()


app = FastAPI(lifespan=lifespan)
app.add_middleware(Middleware, tracker=tracker)


@app.get("/ducks/{name}", response_class=HTMLResponse)
async def duck(name: str) -> str:
    await tracker.durable(tracker.track_structured, "duck", "seen", name)
    return f"<h1>{name}</h1>"


@app.get("/broken")
async def broken() -> None:
    raise RuntimeError("no ducks")
