#!/usr/bin/env python3
"""What the chart has rendered, run on this machine against RabbitMQ and Redis: the same arguments, file, variables, probes and
times. One pod from its start to its end; with the argument `rolling`, three that are replaced one by one under load.

As a cluster would: a pod is ready when its probe says so; one that ends keeps working for preStop's seconds, gets SIGTERM, and is
killed after terminationGracePeriodSeconds.
"""
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pika

import chart
from chart import container_of, of_kind, pod_of, template, workload
from results import Results

BROKER, REDIS = os.environ["CARILLON_TEST_BROKER_URL"], os.environ["CARILLON_TEST_REDIS_URL"]
TOKEN = "an-admin-token-for-tests-only-0123456789"
# Names of its own: others use the same servers.
PREFIX = f"helm-{secrets.token_hex(4)}"
QUEUES = ("events", "deliveries", "dead-letters", "quarantine")
# The load: events a second, for at least so long and until all is replaced, spread over some endpoints.
RATE, LOAD_SECONDS, TENANTS = 200, 40, 4
# Longer than anything takes on a machine that is busy with other things.
PATIENCE_SECONDS = 300


def answer_seconds(n):
    """How long the receiver thinks about an event: one in fifty takes longer than a drain without it would."""
    return 2 if n % 50 == 0 else 0.05


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Pod:
    """A process with the command, configuration and environment of a pod of the production Deployment."""

    def __init__(self, folder, number, mode="production"):
        self.http, self.ops = free_port(), free_port()
        config = {
            "http": {"listen": f"0.0.0.0:{self.http}", "admin_token": TOKEN}, "ops": {"listen": f"0.0.0.0:{self.ops}"},
            "broker": {"url": BROKER, "prefix": PREFIX}, "redis": {"url": REDIS, "prefix": PREFIX},
            "secrets": {"keys": ["k1:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="]},
            "egress": {"allow": ["127.0.0.0/8"]}, "delivery": {"rate_limit": {"per_second": 0}},
        }
        self.folder = Path(folder) / f"pod-{number}"
        self.folder.mkdir()
        given = {"config": config, "mode": mode, "init": {"enabled": mode == "production"}}
        if mode == "embedded":
            del config["broker"], config["redis"]
            given["persistence"] = {"mountPath": str(self.folder)}
        values = self.folder / "values.json"
        values.write_text(json.dumps(given))
        self.documents = template(values=values)
        self.spec, self.container = pod_of(workload(self.documents)), container_of(workload(self.documents))
        self.env = chart.environment(self.container, self.documents, self.folder)
        self.log = (self.folder / "log").open("wb")
        self.process = None

    def start(self):
        command = [chart.BIN, *self.container["args"]]
        self.process = subprocess.Popen(command, env=self.env, cwd="/", stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log)
        return self

    def probe(self, which):
        """The status that a probe of the container gets; 0 when nothing answers."""
        probe = self.container[f"{which}Probe"]["httpGet"]
        port = {p["name"]: p["containerPort"] for p in self.container["ports"]}[probe["port"]]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{probe['path']}", timeout=3) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def until_ready(self):
        """Within what the startup probe allows."""
        probe = self.container["startupProbe"]
        end = time.monotonic() + probe["periodSeconds"] * probe["failureThreshold"]
        while self.probe("startup") != 200 or self.probe("readiness") != 200:
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.said()}"
            assert time.monotonic() < end, f"not ready in time: {self.said()}"
            time.sleep(0.1)

    def end(self):
        """As a kubelet ends it. Seconds from SIGTERM to its end."""
        wait = self.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        time.sleep(wait)
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(self.spec["terminationGracePeriodSeconds"] - wait)
        except subprocess.TimeoutExpired:
            raise AssertionError("it would have been killed") from None
        assert code == 0, f"exit code {code}: {self.said()}"
        return time.monotonic() - begun

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def once(self, kind, **env):
        """Runs the command of the init Job or of the test's pod to its end."""
        container = container_of(of_kind(self.documents, kind))
        own = {**chart.environment(container, self.documents, self.folder), **env}
        done = chart.carillon(*container["args"], env=own, timeout=60)
        assert done.returncode == 0, f"{container['args']}: {done.stdout}{done.stderr}"
        return done.stdout

    def post(self, path, document):
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", json.dumps(document).encode(), {
            "authorization": f"Bearer {TOKEN}", "content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())

    def said(self):
        return (self.folder / "log").read_text(errors="replace")[-2000:]


def one_pod(folder):
    """Ready only once Redis is marked; `helm test` is content; SIGTERM ends it well."""
    pod = Pod(folder, 0)
    try:
        pod.start()
        end = time.monotonic() + 60
        while pod.probe("startup") != 200:
            assert time.monotonic() < end and pod.process.poll() is None, pod.said()
            time.sleep(0.1)
        assert pod.probe("readiness") == 503, "ready on a Redis that is not marked"
        assert "is marked" in pod.once("Job"), "init"
        pod.until_ready()
        told = pod.once("Pod", CARILLON_API=f"http://127.0.0.1:{pod.http}")
        assert "answers and takes the token" in told, told
        took = pod.end()
        print(f"one pod: ready, looked at, ended in {took:.1f} s of {pod.spec['terminationGracePeriodSeconds']} s", flush=True)
    finally:
        pod.kill()


def embedded_pod(folder):
    """The same on a file; what the test's pod asks is answered."""
    pod = Pod(folder, "embedded", mode="embedded")
    try:
        pod.start().until_ready()
        listed = json.loads(pod.once("Pod", CARILLON_API=f"http://127.0.0.1:{pod.http}"))
        assert listed["items"] == [], listed
        assert (pod.folder / "carillon.db").exists(), "the file is not on the volume"
        pod.end()
    finally:
        pod.kill()


class Receiver:
    """Counts what arrives: for each webhook-id how often, and which events."""

    def __init__(self):
        self.lock, self.ids, self.events = threading.Lock(), Counter(), Counter()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                time.sleep(answer_seconds(body["data"]["n"]))
                with outer.lock:
                    outer.ids[self.headers["webhook-id"]] += 1
                    outer.events[body["data"]["n"]] += 1
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def channel():
    made = pika.BlockingConnection(pika.URLParameters(BROKER)).channel()
    made.confirm_delivery()
    return made


def publish(published, stop):
    """Events to the exchange, persistent and confirmed, at RATE a second."""
    out, begun = channel(), time.monotonic()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    while not stop.is_set() or time.monotonic() - begun < LOAD_SECONDS:
        if time.monotonic() - begun > PATIENCE_SECONDS:
            break
        n = len(published)
        event = {"id": f"{PREFIX}-{n}", "type": "rolling.test", "tenant": f"{PREFIX}-{n % TENANTS}", "timestamp": stamp,
                 "data": {"n": n}}
        properties = pika.BasicProperties(delivery_mode=2, content_type="application/json")
        out.basic_publish(f"{PREFIX}.events", "rolling.test", json.dumps(event).encode(), properties, mandatory=True)
        published.append(time.monotonic())
        time.sleep(max(0, begun + len(published) / RATE - time.monotonic()))
    out.connection.close()


def rolling(folder):
    """Lost 0, twice 0, every exit 0 within the grace, while each of three pods is replaced."""
    receiver, pods, published, stop = Receiver(), [], [], threading.Event()
    numbers = iter(range(1, 100))
    publisher = threading.Thread(target=publish, args=(published, stop))

    def add():
        pod = Pod(folder, next(numbers)).start()
        pods.append(pod)
        return pod

    try:
        running = [add()]
        running[0].once("Job")
        running += [add(), add()]
        for pod in running:
            pod.until_ready()
        for tenant in range(TENANTS):
            running[0].post("/v1/subscriptions", {"tenant": f"{PREFIX}-{tenant}", "url": receiver.url})
        publisher.start()
        time.sleep(3)
        took = []
        for old in list(running):
            # maxSurge 1, maxUnavailable 0: the new one is ready, and stays so, before the old one ends.
            new = add()
            new.until_ready()
            time.sleep(workload(new.documents)["spec"]["minReadySeconds"])
            took.append(old.end())
            running = [pod for pod in running if pod is not old] + [new]
        assert publisher.is_alive(), "the load ended before the last pod was replaced"
        stop.set()
        publisher.join()
        end = time.monotonic() + PATIENCE_SECONDS
        while len(receiver.events) < len(published) and time.monotonic() < end:
            time.sleep(0.2)
        # What comes twice may come late.
        time.sleep(2)
        took += [pod.end() for pod in running]
        lost = len(published) - len(receiver.events)
        twice = sum(receiver.ids.values()) - len(receiver.ids)
        rate = len(published) / (published[-1] - published[0])
        print(f"rolling: {len(published)} events at {rate:.0f} a second, 3 of 3 pods replaced, lost {lost}, duplicated {twice}; "
              f"ended in {', '.join(f'{s:.1f}' for s in took)} s", flush=True)
        assert len(published) > 1000, f"only {len(published)} events were published"
        assert lost == 0 and twice == 0, f"lost {lost}, duplicated {twice}"
        assert len(receiver.ids) == len(receiver.events), "a delivery changed its webhook-id"
    finally:
        stop.set()
        if publisher.ident:
            publisher.join()
        for pod in pods:
            pod.kill()


def clean_up():
    """Takes away what was declared and written."""
    connection = pika.BlockingConnection(pika.URLParameters(BROKER))
    out = connection.channel()
    for queue in (*QUEUES, *(f"wait.{ms}" for ms in ladder())):
        out.queue_delete(f"{PREFIX}.{queue}")
    for exchange in ("events", "unrouted", "notices"):
        out.exchange_delete(f"{PREFIX}.{exchange}")
    connection.close()
    forget = "for _, key in ipairs(redis.call('keys', ARGV[1])) do redis.call('unlink', key) end"
    subprocess.run(["redis-cli", "-u", REDIS, "eval", forget, "0", f"*{PREFIX}*"], check=True, stdout=subprocess.DEVNULL)


def ladder():
    """Milliseconds of the queues to wait in, as src/adapters/rabbitmq/names.rs has them."""
    step, longest = 250, 24 * 3_600_000
    while step < longest:
        yield step
        step = min(step + step // 4, longest)
    yield longest


def main():
    results = Results()
    with tempfile.TemporaryDirectory() as folder:
        if sys.argv[1:] == ["rolling"]:
            results.check("rolling restart", rolling, folder)
        else:
            results.check("one pod", one_pod, folder)
            results.check("embedded pod", embedded_pod, folder)
        results.check("cleaning up", clean_up)
    return results.end()


if __name__ == "__main__":
    sys.exit(main())
