"""Live drills: a real Prometheus watches real Carillon processes while things are broken on purpose.

    tests/prometheus/run.sh --drill [--pictures FOLDER]

CARILLON names the program (target/debug/carillon), PROMETHEUS and PROMTOOL theirs. One embedded process and
two replicas on a RabbitMQ and a Redis of their own are watched, under a small load from loopback.

Hours are too long for a drill: in the rules, and in them alone, each window, offset and `for` is divided
by 60, and never shorter than five scrapes; thresholds are what they are. The rules as they are shipped are
tested by the unit tests beside this.

First, nothing is broken: no alert may fire, and each expression of a dashboard and each selector of an alert
must give data, but for those in `only-on-a-fault.txt`. Then each drill says what must fire, and that it ends;
in one or other of them, each of those few must give data, too.
"""

import http.server
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pika
import yaml

sys.path.insert(0, str(Path(__file__).parent))
import check

ROOT = check.ROOT
CARILLON = os.environ.get("CARILLON", str(ROOT / "target/debug/carillon"))
PROMETHEUS = os.environ.get("PROMETHEUS", "prometheus")
SCRAPE = 2
FASTER = 60
ENDPOINTS = 12
LOOPBACK = '["127.0.0.0/8"]'
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

results = []


def say(text):
    print(time.strftime("%H:%M:%S"), text, flush=True)


def result(what, well, detail=""):
    results.append(bool(well))
    say(f"{'ok    ' if well else 'FAILED'} {what} {detail}")


def seconds(text):
    return sum(float(n) * UNITS[u] for n, u in re.findall(r"(\d+)(ms|[smhdw])", text))


def faster(text, least):
    return f"{max(least, round(seconds(text) / FASTER))}s"


def fast_rules():
    """The rules with shorter windows; nothing else is changed."""
    document = yaml.safe_load(check.RULES.read_text())
    for group in document["groups"]:
        for rule in group["rules"]:
            expr = re.sub(r"\[(\w+)\]", lambda m: f"[{faster(m[1], 5 * SCRAPE)}]", rule["expr"])
            rule["expr"] = re.sub(r"offset (\w+)", lambda m: f"offset {faster(m[1], SCRAPE)}", expr)
            if "for" in rule:
                rule["for"] = faster(rule["for"], 1)
    return document


# --- What is watched ----------------------------------------------------------------------------


class Receiver:
    """All endpoints, by path; `answers` says how: a status, or what gives one each time."""

    def __init__(self):
        self.answers, self.delay = {}, {}
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers.get("content-length", 0)))
                time.sleep(receiver.delay.get(self.path, 0))
                status = receiver.answers.get(self.path, 200)
                self.send_response(status() if callable(status) else status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Servers:
    """RabbitMQ or Redis, by tests/services/guard.sh; gone when this process is."""

    def __init__(self, kind):
        self.process = subprocess.Popen(
            [ROOT / "tests/services/guard.sh", kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        ready, _, self.url = self.process.stdout.readline().strip().partition(" ")
        if ready != "ready":
            raise SystemExit(f"{kind}: {self.url}")

    def ask(self, *words):
        self.process.stdin.write("\x1f".join(words) + ("\x1f" if len(words) > 1 else "") + "\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if not line.startswith("| "):
                return line.strip(), lines
            lines.append(line[2:].rstrip())
        return "failed", lines

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Carillon:
    def __init__(self, folder, name, **settings):
        self.api, self.ops = free_port(), free_port()
        self.name, self.folder = name, folder
        self.environment = dict(
            os.environ,
            CARILLON_HTTP__LISTEN=f"127.0.0.1:{self.api}",
            CARILLON_OPS__LISTEN=f"127.0.0.1:{self.ops}",
            CARILLON_EGRESS__ALLOW=LOOPBACK,
            CARILLON_EMBEDDED__PATH=str(folder / f"{name}.db"),
            CARILLON_RETRY__INITIAL="1s",
            CARILLON_RETRY__MULTIPLIER="2",
            CARILLON_RETRY__MAX="10s",
            CARILLON_RETRY__MAX_ATTEMPTS="6",
            **settings,
        )
        self.process = None
        self.start()

    def start(self):
        log = open(self.folder / f"{self.name}.log", "ab")
        self.process = subprocess.Popen([CARILLON, "serve"], env=self.environment, cwd=self.folder, stdout=log, stderr=log)
        until(30, lambda: fetch(f"http://127.0.0.1:{self.ops}/livez") is not None, f"{self.name} does not start")

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(40)

    def call(self, method, path, body=None):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.api}{path}",
            None if body is None else json.dumps(body).encode(),
            {"content-type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


def fetch(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read()
    except (urllib.error.URLError, OSError):
        return None


def until(limit, condition, otherwise=None):
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            if otherwise:
                raise SystemExit(otherwise)
            return False
        time.sleep(0.25)
    return True


class Load:
    """A few events a second, until told otherwise."""

    def __init__(self, carillons, tenant="acme", kind="drill.load", per_second=10):
        self.carillons, self.tenant, self.kind, self.per_second = carillons, tenant, kind, per_second
        self.number, self.running = 0, True
        threading.Thread(target=self.run, daemon=True).start()

    def event(self):
        self.number += 1
        return {
            "id": f"{self.kind}-{id(self)}-{self.number}",
            "type": self.kind,
            "tenant": self.tenant,
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "data": {"number": self.number},
        }

    def run(self):
        while self.running:
            for carillon in self.carillons:
                try:
                    carillon.call("POST", "/v1/events", [self.event() for _ in range(self.per_second)])
                except (urllib.error.URLError, OSError):
                    pass
            time.sleep(1)


class Prometheus:
    def __init__(self, folder, jobs):
        (folder / "rules.yaml").write_text(yaml.safe_dump(fast_rules(), sort_keys=False))
        config = {
            "global": {"scrape_interval": f"{SCRAPE}s", "evaluation_interval": f"{SCRAPE}s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [
                {
                    "job_name": job,
                    "static_configs": [{"targets": [f"127.0.0.1:{c.ops}" for c in carillons], "labels": {"namespace": "drill"}}],
                }
                for job, carillons in jobs.items()
            ],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self.port = free_port()
        self.process = subprocess.Popen(
            [
                PROMETHEUS,
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdout=open(folder / "prometheus.log", "wb"),
            stderr=subprocess.STDOUT,
        )
        until(60, lambda: fetch(f"http://127.0.0.1:{self.port}/-/ready") is not None, "Prometheus does not start")

    def ask(self, path, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{parameters}: {error.read().decode()}") from error

    def query(self, expression):
        return self.ask("query", query=expression)["result"]

    def firing(self):
        return {(a["labels"]["alertname"], a["labels"].get("job", "")) for a in self.ask("alerts")["alerts"] if a["state"] == "firing"}


# --- Nothing is broken --------------------------------------------------------------------------


def selectors(expression):
    found = re.finditer(r"\b((?:carillon[\w:]*|up|process_\w+)\b(?!\s*\()(?:\{[^}]*\})?)", expression)
    return [m[1] for m in found if expression[: m.start()].count('"') % 2 == 0]


def expressions():
    """Each expression of a dashboard, and each selector of a rule: where it stands, and what it says."""
    replaced = check.VARIABLES | {"$__rate_interval": f"{5 * SCRAPE}s"}
    for path in check.DASHBOARDS:
        for where, expression in check.expressions_of(json.loads(path.read_text())):
            for variable, value in replaced.items():
                expression = expression.replace(variable, value)
            yield where, expression
    for group in fast_rules()["groups"]:
        for rule in group["rules"]:
            name = rule.get("alert") or rule["record"]
            for selector in [rule["expr"]] if "record" in rule else selectors(rule["expr"]):
                yield name, selector


def gives_data(prometheus, expression):
    return any(s["value"][1] != "NaN" for s in prometheus.query(expression))


def check_calm(prometheus):
    """What gives no data, and is to: where, and what it says."""
    lines = (check.HERE / "only-on-a-fault.txt").read_text().splitlines()
    excused = {line.split(" | ")[0].strip() for line in lines if line and not line.startswith("#")}
    missing = [(where, expression) for where, expression in expressions() if not gives_data(prometheus, expression)]
    for where, expression in missing:
        if where not in excused:
            result(f"{where} gives data", False, f"nothing for {expression}")
    for where in sorted(excused):
        there = all(where != other for other, _ in missing)
        result(f"{where} gives nothing while all is well", not there, "it does: take it off the list" if there else "")
    firing = prometheus.firing()
    result("no alert fires while all is well", not firing, f"{sorted(firing)}")
    return [(where, expression) for where, expression in missing if where in excused]


# --- Drills -------------------------------------------------------------------------------------


class Table:
    def __init__(self, prometheus, unseen):
        self.prometheus, self.rows = prometheus, []
        self.unseen, self.seen = unseen, []

    def drill(self, name, wanted, break_it, mend_it, limit=90, clear=180):
        """Breaks something, waits for the alerts of a job that must fire, mends it, waits until all is quiet."""
        say(f"drill: {name}")
        begun, fired = time.monotonic(), {}
        break_it()

        def look():
            for alert in self.prometheus.firing():
                fired.setdefault(alert, round(time.monotonic() - begun))
            seen = [one for one in self.unseen if gives_data(self.prometheus, one[1])]
            self.unseen = [one for one in self.unseen if one not in seen]
            self.seen += [(where, name) for where, _ in seen]
            return all(alert in fired for alert in wanted)

        well = until(limit, look)
        result(f"{name}: {', '.join(a for a, _ in wanted)} fire", well, "" if well else f"fired: {fired}")
        mended = time.monotonic()
        mend_it()
        # What follows on the heels of it belongs to the drill, too.
        quiet = until(clear, lambda: (look(), not self.prometheus.firing() & set(wanted))[1])
        result(f"{name}: they end", quiet, "" if quiet else f"{self.prometheus.firing()}")
        cleared = f"{time.monotonic() - mended:.0f} s" if quiet else "no"
        for (alert, job), after in sorted(fired.items(), key=lambda item: item[1]):
            self.rows.append((name, alert, job, f"{after} s", cleared if (alert, job) in wanted else ""))
        # The next drill begins with as little as there can be.
        until(20, lambda: not self.prometheus.firing())

    def show(self):
        for where, drill in self.seen:
            result(f"{where} gives data on a fault", True, f"during: {drill}")
        for where, expression in self.unseen:
            result(f"{where} gives data on a fault", False, f"in no drill: {expression}")
        head = ("drill", "alert", "job", "fired after", "ended after mending")
        widths = [max(len(row[i]) for row in [head, *self.rows]) for i in range(len(head))]
        for row in [head, tuple("-" * w for w in widths), *self.rows]:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def main():
    pictures = sys.argv[sys.argv.index("--pictures") + 1] if "--pictures" in sys.argv else None
    begun = time.time()
    with tempfile.TemporaryDirectory(prefix="carillon-drill.") as name:
        folder, opened = Path(name), []
        try:
            run(folder, opened, begun, pictures)
        finally:
            for close in reversed(opened):
                try:
                    close()
                except (OSError, subprocess.SubprocessError) as error:
                    say(f"while ending: {error}")
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    return 0 if all(results) and results else 1


def run(folder, opened, begun, pictures):
    say("starting RabbitMQ, Redis, Carillon and Prometheus")
    rabbitmq = Servers("rabbitmq")
    opened.append(rabbitmq.close)
    redis = Servers("redis")
    opened.append(redis.close)
    receiver = Receiver()
    servers = {"CARILLON_BROKER__URL": rabbitmq.url, "CARILLON_REDIS__URL": redis.url}
    embedded = Carillon(folder, "embedded")
    opened.append(embedded.stop)
    environment = dict(os.environ, **servers)
    subprocess.run([CARILLON, "init"], env=environment, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    first = Carillon(folder, "first", **servers)
    opened.append(first.stop)
    second = Carillon(folder, "second", **servers)
    opened.append(second.stop)

    paths = [f"/e{n}" for n in range(ENDPOINTS)]
    for carillon in (embedded, first):
        for path in paths:
            body = {"tenant": "acme", "url": f"http://127.0.0.1:{receiver.port}{path}", "event_types": ["drill.*"]}
            carillon.call("POST", "/v1/subscriptions", body)
        for tenant, path, limit in (("slow", "/slow", {"per_second": 2, "burst": 2}), ("lame", "/lame", None)):
            body = {"tenant": tenant, "url": f"http://127.0.0.1:{receiver.port}{path}", "rate_limit": limit}
            carillon.call("POST", "/v1/subscriptions", body)
        # Tried once only.
        retry = {"initial_ms": 1000, "multiplier": 1, "max_ms": 1000, "max_attempts": 1}
        body = {"tenant": "hasty", "url": f"http://127.0.0.1:{receiver.port}/hasty", "retry": retry}
        carillon.call("POST", "/v1/subscriptions", body)
    prometheus = Prometheus(folder, {"carillon": [first, second], "carillon-embedded": [embedded]})

    def end_prometheus():
        prometheus.process.terminate()
        prometheus.process.wait(20)

    opened.append(end_prometheus)
    load = Load([embedded, first])
    lame = Load([embedded, first], "lame", "drill.lame", 1)
    receiver.answers["/lame"] = 500
    opened.append(lambda: setattr(load, "running", False))
    opened.append(lambda: setattr(lame, "running", False))
    both = lambda alert: [(alert, "carillon"), (alert, "carillon-embedded")]

    # One endpoint of each always fails, so that there is something to see; but few enough to sleep.
    time.sleep(20)
    receiver.answers["/lame"] = 200
    # It goes on until its circuit is closed.
    closed = lambda: not prometheus.query('carillon_endpoint_state{state!="healthy"} == 1')
    until(90, lambda: not prometheus.firing() and time.time() - begun > 100 and closed())
    lame.running = False
    table = Table(prometheus, check_calm(prometheus))

    def outage(status):
        for path in paths:
            receiver.answers[path] = status

    table.drill(
        "endpoint outage (all answer 500)",
        # Circuits leave a probe now and then: too few in seconds for CarillonAttemptsFailing.
        both("CarillonMostEndpointsOpen") + both("CarillonEndpointsFailing"),
        lambda: outage(500),
        lambda: outage(200),
    )

    def poison():
        connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.url))
        channel = connection.channel()
        for n in range(600):
            channel.basic_publish("carillon.events", "drill.load", b'{"id": "poison-%d", "type": 7}' % n)
        connection.close()

    def again():
        poison()
        time.sleep(4)
        poison()

    table.drill(
        "poison stream (malformed events)",
        [("CarillonQuarantineGrowing", "carillon"), ("CarillonQuarantineFlood", "carillon")],
        again,
        lambda: None,
    )

    def storm():
        for carillon in (embedded, first):
            burst = Load([], "slow", "drill.slow")
            for _ in range(4):
                carillon.call("POST", "/v1/events", [burst.event() for _ in range(750)])

    def relief():
        for carillon in (embedded, first):
            for item in carillon.call("GET", "/v1/subscriptions?tenant=slow")["items"]:
                carillon.call("PATCH", f"/v1/subscriptions/{item['id']}", {"rate_limit": {"per_second": 5000, "burst": 5000}})

    table.drill("backlog (an endpoint with 2 a second gets 3,000)", both("CarillonWaitingGrows"), storm, relief, limit=150, clear=240)
    table.drill(
        "Redis down (killed)",
        [("CarillonRedisDown", "carillon")],
        lambda: redis.ask("kill", "1"),
        lambda: redis.ask("start", "1"),
    )
    table.drill(
        "RabbitMQ down (killed)",
        [("CarillonRabbitMQDown", "carillon")],
        lambda: rabbitmq.ask("kill", "1"),
        lambda: rabbitmq.ask("start", "1"),
    )
    table.drill(
        "RabbitMQ blocked (no memory)",
        [("CarillonBrokerBlocked", "carillon")],
        lambda: rabbitmq.ask("ctl", "1", "set_vm_memory_high_watermark", "0.000001"),
        lambda: rabbitmq.ask("ctl", "1", "set_vm_memory_high_watermark", "absolute", "4GB"),
    )
    table.drill("one replica down", [("CarillonReplicaDown", "carillon")], second.stop, second.start)

    def allow(networks):
        for carillon in (embedded, first, second):
            carillon.stop()
            carillon.environment["CARILLON_EGRESS__ALLOW"] = networks
            carillon.start()

    table.drill(
        "egress.allow forgotten (all addresses denied)",
        both("CarillonMostEndpointsOpen"),
        lambda: allow("[]"),
        lambda: allow(LOOPBACK),
    )

    def both_down():
        first.stop()
        second.stop()

    def both_up():
        first.start()
        second.start()

    table.drill("all replicas down", [("CarillonDown", "carillon")], both_down, both_up)

    # One that fails at random opens no circuit: every second delivery is a dead letter.
    hasty = Load([embedded, first], "hasty", "drill.hasty")

    def flip():
        receiver.answers["/hasty"] = itertools.cycle([200, 500]).__next__

    table.drill(
        "an endpoint that refuses every second delivery for good",
        both("CarillonDeliverySuccessBurnsFast") + both("CarillonDeadLettersGrowing"),
        flip,
        lambda: receiver.answers.update({"/hasty": 200}),
        clear=240,
    )
    hasty.running = False
    load.running = False
    gap = []

    def balanced():
        gap[:] = [(s["metric"]["job"], s["value"][1]) for s in prometheus.query("carillon:deliveries_unaccounted")]
        return len(gap) == 2 and all(value == "0" for _, value in gap)

    result("the books balance in the end", until(60, balanced), f"{gap}")
    print()
    table.show()
    print()
    metrics = fetch(f"http://127.0.0.1:{first.ops}/metrics")
    lint = subprocess.run([check.PROMTOOL, "check", "metrics"], input=metrics, capture_output=True)
    result("promtool check metrics", lint.returncode == 0, (lint.stdout + lint.stderr).decode().strip())
    if pictures:
        import draw

        draw.draw(prometheus, Path(pictures), begun, time.time(), f"{5 * SCRAPE}s")


if __name__ == "__main__":
    sys.exit(main())
