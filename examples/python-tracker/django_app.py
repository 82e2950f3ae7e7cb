"""A Django site in one file whose page views, timings and errors arrive under the visitor's ids.

SPOORWAY=http://127.0.0.1:8080 gunicorn --workers 2 django_app:application
"""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from spoorway_tracker.integrations.django import tracker

settings.configure(
    SECRET_KEY=os.urandom(16).hex(),
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["spoorway_tracker.integrations.django.App"],
    MIDDLEWARE=["spoorway_tracker.integrations.django.Middleware"],
    SPOORWAY_TRACKER={"url": os.environ["SPOORWAY"], "app_id": "site"},
)


def duck(request: HttpRequest, name: str) -> HttpResponse:
    tracker().track_structured("duck", "seen", name, durable=True)
    return HttpResponse(f"<h1>{name}</h1>")


def broken(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("no ducks")


urlpatterns = [path("ducks/<str:name>", duck), path("broken", broken)]
application = get_wsgi_application()
