"""Celery tasks whose durations and failures are events.

SPOORWAY=http://127.0.0.1:8080 celery -A celery_app worker --pool prefork
"""

import os

from celery import Celery

from spoorway_tracker import Tracker
from spoorway_tracker.integrations.celery import connect

app = Celery("ducks", broker=os.environ["BROKER"])
app.conf.broker_transport_options = {"data_folder_in": os.environ["QUEUE"], "data_folder_out": os.environ["QUEUE"]}
connect(Tracker(os.environ["SPOORWAY"], "tasks"))


@app.task(name="feed")
def feed(ducks: int) -> int:
    if ducks > 3:
        raise ValueError("too many ducks")
    return ducks
