"""A Flask app whose page views, timings and errors arrive under the visitor's ids.

SPOORWAY=http://127.0.0.1:8080 gunicorn --workers 2 --threads 4 flask_app:app
"""

import os

from flask import Flask

from spoorway_tracker import Tracker
from spoorway_tracker.integrations.flask import connect

tracker = Tracker(os.environ["SPOORWAY"], "pond")
app = Flask(__name__)
connect(app, tracker)


@app.get("/ducks/<name>")
def duck(name: str) -> str:
    tracker.track_structured("duck", "seen", name, durable=True)
    return f"<h1>{name}</h1>"


@app.get("/broken")
def broken() -> str:
    raise RuntimeError("no ducks")
