"""What the tests of the chart share: rendering it, and running what it has rendered on this machine."""
import base64
import functools
import os
import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/carillon"
HELM = os.environ["HELM"]
BIN = os.environ["CARILLON_BIN"]
KUBERNETES = [f"1.{minor}.0" for minor in range(29, 35)]
# What Secrets hold that the chart does not make, by the variable that is read from it.
ELSEWHERE = {
    "CARILLON_HTTP__ADMIN_TOKEN": "an-admin-token-for-tests-only-0123456789",
    "CARILLON_BROKER__URL": "amqp://carillon:secret@rabbitmq:5672",
    # The cluster operator's, with the slash that it ends in.
    "GIVEN_BROKER_URL": "amqp://carillon:secret@rabbitmq:5672/",
    "CARILLON_REDIS__URL": "redis://:secret@redis:6379/0",
    "CARILLON_TOKEN": "an-admin-token-for-tests-only-0123456789",
    "CARILLON_SECRETS__KEYS": '["k1:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="]',
}


class Refused(Exception):
    """Helm said no."""


def helm(*args, binary=HELM):
    done = subprocess.run([binary, *map(str, args)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(done.stderr + done.stdout)
    return done.stdout


def template(*args, chart=CHART, **more):
    """The rendered resources, not to be changed: what comes from this chart is rendered once."""
    return (_rendered if chart is CHART else _template)(*args, chart=chart, **more)


def _template(*args, values=None, kube=KUBERNETES[-1], chart=CHART, binary=HELM):
    given = ["--values", values] if values else []
    text = helm("template", "carillon", chart, "--namespace", "carillon", "--kube-version", kube, *given, *args,
                binary=binary)
    return [document for document in yaml.safe_load_all(text) if document]


_rendered = functools.cache(_template)


def of_kind(documents, kind, component=None):
    """The only resource of its kind (and component)."""
    label = "app.kubernetes.io/component"
    found = [d for d in documents if d["kind"] == kind and component in (None, d["metadata"]["labels"][label])]
    if len(found) != 1:
        raise AssertionError(f"{len(found)} of {kind} {component or ''}")
    return found[0]


def workload(documents):
    """The dispatcher's Deployment or StatefulSet."""
    kind = "Deployment" if any(d["kind"] == "Deployment" for d in documents) else "StatefulSet"
    return of_kind(documents, kind, "dispatcher")


def pod_of(document):
    """The pod in a resource, or none."""
    if document["kind"] == "Pod":
        return document["spec"]
    return document["spec"].get("template", {}).get("spec") if isinstance(document.get("spec"), dict) else None


def container_of(document):
    return pod_of(document)["containers"][0]


def environment(container, documents, folder):
    """The container's variables, with carillon.toml in `folder` in place of its mount."""
    secrets = {}
    for document in documents:
        if document["kind"] == "Secret":
            values = {key: base64.b64decode(value).decode() for key, value in document.get("data", {}).items()}
            secrets[document["metadata"]["name"]] = {**values, **document.get("stringData", {})}
    found = {}
    for variable in container["env"]:
        name = variable["name"]
        if "value" in variable:
            # As a kubelet does it: with variables that came before.
            found[name] = re.sub(r"\$\((\w+)\)", lambda match: found[match[1]], variable["value"])
        else:
            wanted = variable["valueFrom"]["secretKeyRef"]
            own = secrets.get(wanted["name"])
            found[name] = own[wanted["key"]] if own is not None else ELSEWHERE[name]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    config = next(d for d in documents if d["kind"] == "ConfigMap" and "carillon.toml" in d["data"])
    assert found["CARILLON_CONFIG"] == f"{mounts['config']}/carillon.toml", found["CARILLON_CONFIG"]
    file = Path(folder) / "carillon.toml"
    file.write_text(config["data"]["carillon.toml"])
    found["CARILLON_CONFIG"] = str(file)
    return found


def carillon(*args, env, **more):
    """Runs a command of the binary to its end."""
    return subprocess.run([BIN, *args], env=env, capture_output=True, text=True, check=False, **more)


def seconds(duration):
    """Of 1h30m, 30s, 250ms."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(int(n) * units[unit] for n, unit in re.findall(r"(\d+)(ms|[smhd])", duration))
