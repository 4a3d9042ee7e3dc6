"""What schemathesis cannot know by itself: URLs that lead nowhere, and a subscription to name."""

import json
import os
import urllib.parse
import urllib.request

import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode

API = os.environ["CARILLON_API"]
TOKEN = os.environ["CARILLON_TOKEN"]
# As in `schemathesis.toml`.
SUBSCRIPTION = "sub_known"
DELIVERY = "msg_2584b287053283799cf06b468b125926"

# Addresses, so that no name is looked up; all are denied to the server.
HOSTS = ["192.0.2.1", "198.51.100.7:8443", "10.0.0.7", "127.0.0.1:9", "[2001:db8::1]", "localhost"]
URLS = st.builds(
    "{}://{}{}".format,
    st.sampled_from(["http", "https"]),
    st.sampled_from(HOSTS),
    st.sampled_from(["", "/", "/hook", "/hook?x=1&y=%20", "/caf%C3%A9"]),
)
schemathesis.openapi.format("uri", URLS)


def leads_nowhere(url):
    """The same URL, with an address in the place of a name."""
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return url
    is_http = parts.scheme.lower() in ("http", "https")
    is_name = any(c.isalpha() for c in host) and ":" not in host and host != "localhost"
    if not is_http or not is_name:
        return url
    return parts._replace(netloc=parts.netloc.replace(parts.netloc.split("@")[-1], "192.0.2.1")).geturl()


def confined(value):
    """The value with each `url` in it leading nowhere."""
    if isinstance(value, dict):
        return {
            key: leads_nowhere(item) if key == "url" and isinstance(item, str) else confined(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [confined(item) for item in value]
    return value


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """This server has an admin token, so that none may go without."""
    for methods in raw_schema["paths"].values():
        for operation in methods.values():
            operation["security"] = [one for one in operation["security"] if one]


def ask(method, path, document):
    """Asks the server for what a case needs."""
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    body = json.dumps(document).encode()
    urllib.request.urlopen(urllib.request.Request(API + path, body, headers, method=method)).close()


@schemathesis.hook
def before_call(context, case, kwargs):
    """Sees to it that what is named is there, and that nothing would leave."""
    body = confined(case.body)
    if body != case.body:
        case.body = body
    if case.meta.generation.mode == GenerationMode.POSITIVE:
        # In headers it writes letters and digits alone, so that of an entity tag nothing is left.
        for header in ("If-Match", "If-None-Match"):
            if (case.headers or {}).get(header) == "":
                del case.headers[header]
    named = str((case.path_parameters or {}).get("id"))
    if named in (SUBSCRIPTION, DELIVERY):
        ask("PUT", f"/v1/subscriptions/{SUBSCRIPTION}", {"tenant": "acme", "url": "https://192.0.2.1/known"})
    if named == DELIVERY:
        event = {"id": "known", "type": "demo.happened", "tenant": "acme"}
        ask("POST", "/v1/events", event | {"timestamp": "2026-03-01T12:30:00Z", "data": {}})
