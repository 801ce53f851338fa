"""Who sends what Schemathesis makes up, and about whom: a made-up id or address would meet nobody."""

import itertools
import os
import random
import time

import requests
import schemathesis
from schemathesis import GenerationMode
from schemathesis.openapi.checks import RejectedPositiveData

ORIGIN = os.environ["BUCKET_API_URL"]
ROLES = ["owner", "admin", "developer", "user"]
STRANGER = "stranger@example.com"
# After so many requests the people of a bucket are no longer who they were at first.
LIFETIME = 200
TOKEN_SECONDS = 600
# Not that of the module, which Hypothesis sets to the same at each test.
RANDOM = random.Random(0)


class Tokens:
    """An access token for each address."""

    def __init__(self):
        self.known = {}

    def of(self, email):
        token, until = self.known.get(email, (None, 0))
        if time.monotonic() >= until:
            body = {"client_id": "schemathesis", "refresh_token": email, "grant_type": "refresh_token"}
            response = requests.post(f"{ORIGIN}/api/oauth/token", json=body, timeout=20)
            response.raise_for_status()
            token = response.json()["access_token"]
            self.known[email] = token, time.monotonic() + TOKEN_SECONDS
        return token


class Bucket:
    """A bucket with a member of each role, an open invitation and a server."""

    numbers = itertools.count()

    def __init__(self):
        number = next(self.numbers)
        self.people = {role: f"{role}-{number}@example.com" for role in ROLES}
        self.invited = f"invited-{number}@example.com"
        self.server = "web-1"
        bucket = self.call("POST", "/api/bucket/create_classic", {"name": "of Schemathesis"})["bucket"]
        self.id = bucket["_id"]
        path = f"/api/bucket/{self.id}"
        self.call("POST", f"{path}/upgrade", {"plan": "pro"})
        for role in ROLES[1:]:
            email = self.people[role]
            # Who has been seen is added at once.
            self.call("GET", "/api/bucket", role=role)
            self.call("POST", f"{path}/add_user", {"email": email})
            self.call("POST", f"{path}/promote_user", {"email": email, "role": role})
        self.call("POST", f"{path}/add_user", {"email": self.invited})
        self.keys = {"public_id": bucket["public_id"], "private_id": bucket["secret_id"]}
        self.call("POST", "/api/node/verifyPM2", {**self.keys, "data": {"MACHINE_NAME": self.server}})
        self.requests = 0

    def call(self, method, path, body=None, role="owner"):
        headers = {"Authorization": f"Bearer {TOKENS.of(self.people[role])}"}
        response = requests.request(method, ORIGIN + path, json=body, headers=headers, timeout=20)
        assert response.status_code == 200, f"{method} {path}: {response.status_code} {response.text}"
        return response.json()

    def anybody(self):
        return RANDOM.choice([*self.people.values(), self.invited])


class World:
    """The bucket of the moment, and whose those are that Schemathesis has created."""

    def __init__(self):
        self.bucket = Bucket()
        self.owners = {}

    def renew(self):
        self.bucket = Bucket()


TOKENS = Tokens()
WORLD = World()


def operation_id(case):
    return case.operation.definition.raw.get("operationId", "").removesuffix("_alias")


@schemathesis.auth(cache_by_key=None, refresh_interval=None)
class SomeRole:
    """The owner of what Schemathesis has created, mostly; else a person of any role."""

    def get(self, case, _context):
        owner = WORLD.owners.get((case.path_parameters or {}).get("id"))
        if owner and RANDOM.random() < 0.8:
            return owner
        return RANDOM.choice([*WORLD.bucket.people.values(), STRANGER])

    def set(self, case, email, _context):
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {TOKENS.of(email)}"}


@schemathesis.hook
def before_call(_context, case, _kwargs):
    """Names somebody and something that there is, most of the time, in a request that is as described."""
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE or RANDOM.random() < 0.2:
        return
    bucket = WORLD.bucket
    parameters = case.path_parameters or {}
    if "id" in parameters and parameters["id"] not in WORLD.owners:
        parameters["id"] = bucket.id
    if "email" in parameters:
        parameters["email"] = bucket.anybody()
    if isinstance(case.query, dict) and "email" in case.query:
        case.query["email"] = bucket.anybody()
    # Who is invited is better not in the bucket.
    if isinstance(case.body, dict) and operation_id(case) != "invite_user":
        known = {
            "email": bucket.anybody,
            "new_owner": bucket.anybody,
            "server_name": lambda: bucket.server,
            "plan": lambda: RANDOM.choice(["free", "plus", "pro", "enterprise"]),
            "public_id": lambda: bucket.keys["public_id"],
            "private_id": lambda: bucket.keys["private_id"],
        }
        case.body = {name: known[name]() if name in known else value for name, value in case.body.items()}


@schemathesis.hook
def after_call(_context, case, response):
    bucket = WORLD.bucket
    done = operation_id(case) if response.status_code == 200 else None
    if done == "create":
        # Whoever sent it: the answer says whose it is.
        created = response.json()["bucket"]
        sender = response.request.headers.get("Authorization", "").removeprefix("Bearer ")
        owners = [email for email, (token, _) in TOKENS.known.items() if token == sender]
        WORLD.owners[created["_id"]] = owners[0] if owners else None
    bucket.requests += 1
    is_less = done in ("destroy", "server_delete_server") and (case.path_parameters or {}).get("id") == bucket.id
    if is_less or bucket.requests >= LIFETIME:
        WORLD.renew()


@schemathesis.hook
def filter_failure(_context, failure, _case, response):
    """Not that a URL was refused: what is one, a parser knows (https://url.spec.whatwg.org), and no pattern."""
    if not isinstance(failure, RejectedPositiveData):
        return True
    return response.json().get("fields") != ["app_url"]
