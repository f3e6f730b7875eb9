"""`make up`: settings, images, containers, the demo's content, and a lead's way in front of the user."""

import os
import time

from deploy.compose import settings
from deploy.compose.docker import check, compose
from deploy.local import samples
from deploy.local.api import Api, ApiRefused
from deploy.local.journey import Journey
from deploy.local.progress import say, step

RECEIVER = "http://simulator:8000/webhooks/sample"


def up() -> None:
    """Refused in one line when something is missing."""
    check()
    if settings.make(os.environ):
        say("  .env was made from .env.example, with passwords and keys of its own: keep it to yourself.")
    chosen = settings.read()
    began = time.monotonic()
    with step("Building the images"):
        compose("build", "--quiet")
    with step("Starting the containers, waiting until all are ready"):
        compose("up", "--detach", "--wait")
    say(f"Ready in {time.monotonic() - began:.1f} s.")
    if "demo" in chosen.get("COMPOSE_PROFILES", "").split(","):
        _demonstrate(chosen)
    address = f"http://{chosen['LISTEN']}:{chosen['PORT']}"
    say()
    say(f"  Address   {address}   (API: {address}/api/docs)")
    say(f"  Sign in   {chosen['ADMIN_EMAIL']}, password in .env (ADMIN_PASSWORD)")
    say("  Try next:")
    say("    docker compose ps")
    say("    docker compose up -d --scale leads=4 --no-recreate")
    say("    make rollout service=leads")


def _demonstrate(chosen: dict[str, str]) -> None:
    """A connection and a workflow, in a workspace that has neither, and one lead's way."""
    try:
        with Api(int(chosen["PORT"])) as api:
            api.sign_in(chosen["ADMIN_EMAIL"], chosen["ADMIN_PASSWORD"])
            _put_in_samples(api, chosen)
            if not Journey(api).show():
                say(
                    "  … it has not arrived at the CRM: was the sample connection or workflow changed? See docker compose logs."
                )
    except ApiRefused as error:
        say(f"  No lead is sent: {error}")


def _put_in_samples(api: Api, chosen: dict[str, str]) -> None:
    if api.get("/api/crm/connections")["items"] or api.get("/api/workflows")["items"]:
        return
    connection = api.send("POST", "/api/crm/connections", samples.connection())
    api.send("POST", f"/api/crm/connections/{connection['id']}/verify")
    api.send(
        "POST",
        "/api/workflows",
        samples.workflow(
            connection_id=connection["id"],
            owner_id=api.get("/api/auth/me")["id"],
            receiver=RECEIVER,
            signing_secret=chosen["WEBHOOK_SECRET"],
        ),
    )
