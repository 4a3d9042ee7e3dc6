#!/usr/bin/env python3
"""Writes the Grafana dashboards of the chart: carillon/dashboards/*.json (`make dashboards`).

    dashboards.py            writes them
    dashboards.py --check    exit code 1 when one is not what would be written

A panel is defined once, here: what it shows, what that means and what to do.
"""

import json
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "carillon/dashboards"
ON = 'namespace=~"$namespace", job=~"$job"'
AT = ON + ', instance=~"$instance"'

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
GREEN, YELLOW, ORANGE, RED, BLUE = "green", "#EAB839", "orange", "red", "blue"


def steps(*pairs):
    """Thresholds: a colour from the beginning, then (from, colour)."""
    first, *others = pairs
    return {
        "mode": "absolute",
        "steps": [{"color": first, "value": None}] + [{"color": c, "value": v} for v, c in others],
    }


def panel(kind, title, about, queries, unit, *, w=6, h=4, thresholds=None, mappings=None, **more):
    """A panel; `queries` are (expression, legend)."""
    defaults = {"unit": unit, "custom": {}, "mappings": mappings or []}
    if "decimals" in more:
        defaults["decimals"] = more["decimals"]
    if more.get("min") is not None:
        defaults["min"] = more["min"]
    if "max" in more:
        defaults["max"] = more["max"]
    if more.get("no_value"):
        defaults["noValue"] = more["no_value"]
    instant = kind in ("stat", "table", "bargauge")
    options = {}
    if kind == "stat":
        defaults["color"] = {"mode": "thresholds"}
        options = {
            "colorMode": "background" if thresholds else "value",
            "graphMode": "area",
            "justifyMode": "auto",
            "textMode": "auto" if len(queries) == 1 and not more.get("named") else "value_and_name",
            "orientation": "auto",
            "wideLayout": True,
            "percentChangeColorMode": "standard",
            "showPercentChange": False,
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        }
        instant = False
    if kind == "timeseries":
        defaults["color"] = {"mode": "palette-classic"}
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 60 if more.get("stack") else 10,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if more.get("stack") else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if thresholds else "off"},
            "scaleDistribution": {"type": "log", "log": 10} if more.get("log") else {"type": "linear"},
        }
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    if kind == "table":
        defaults["color"] = {"mode": "thresholds"}
        options = {"showHeader": True, "cellHeight": "sm"}
    defaults["thresholds"] = thresholds or steps(GREEN)
    made = {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": SOURCE,
        "gridPos": {"h": h, "w": w, "x": 0, "y": 0},
        "fieldConfig": {"defaults": defaults, "overrides": more.get("overrides", [])},
        "options": options,
        "targets": [
            {
                "datasource": SOURCE,
                "refId": chr(ord("A") + n),
                "expr": expression,
                "legendFormat": legend,
                "editorMode": "code",
                "instant": instant,
                "range": not instant,
                **({"format": "table"} if kind == "table" else {}),
            }
            for n, (expression, legend) in enumerate(queries)
        ],
    }
    if "transformations" in more:
        made["transformations"] = more["transformations"]
    return made


def stat(title, about, expression, unit, thresholds, legend="", **more):
    return panel("stat", title, about, [(expression, legend)], unit, thresholds=thresholds, **more)


def graph(title, about, queries, unit, w=12, h=8, **more):
    return panel("timeseries", title, about, queries, unit, w=w, h=h, min=more.pop("min", 0), **more)


def row(title):
    return {
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": {"h": 1, "w": 24, "x": 0, "y": 0},
        "panels": [],
    }


def colour(name, value):
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": value}}],
    }


def laid_out(panels):
    """Side by side, from left to right and from top to bottom."""
    x = y = tallest = 0
    for number, each in enumerate(panels, 1):
        place = each["gridPos"]
        if x + place["w"] > 24:
            x, y, tallest = 0, y + tallest, 0
        place["x"], place["y"] = x, y
        x, tallest = x + place["w"], max(tallest, place["h"])
        each["id"] = number
    return panels


def variable(name, label, query):
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "options": [],
        "hide": 0,
    }


def dashboard(uid, title, about, panels, *, per_replica):
    variables = [
        {
            "type": "datasource",
            "name": "datasource",
            "label": "Data source",
            "query": "prometheus",
            "current": {"text": "default", "value": "default"},
            "options": [],
            "hide": 0,
            "includeAll": False,
            "multi": False,
            "refresh": 1,
        },
        variable("namespace", "Namespace", "label_values(carillon_build_info, namespace)"),
        variable("job", "Job", 'label_values(carillon_build_info{namespace=~"$namespace"}, job)'),
    ]
    if per_replica:
        variables.append(variable("instance", "Replica", f"label_values(carillon_build_info{{{ON}}}, instance)"))
    return {
        "uid": uid,
        "title": title,
        "description": about,
        "tags": ["carillon"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "links": [
            {
                "type": "dashboards",
                "title": "Carillon",
                "tags": ["carillon"],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "icon": "external link",
                "tooltip": "",
                "url": "",
            }
        ],
        "annotations": {
            "list": [
                {
                    "name": "Starts",
                    "datasource": SOURCE,
                    "enable": True,
                    "hide": False,
                    "iconColor": BLUE,
                    "target": {
                        "refId": "Anno",
                        "expr": f"changes(process_start_time_seconds{{{ON}}}[2m]) > 0 and on (instance) carillon_build_info",
                    },
                }
            ]
        },
        "templating": {"list": variables},
        "panels": laid_out(panels),
    }


def quantiles(metric, where=ON, of=(0.5, 0.95, 0.99)):
    return [
        (
            f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{{{where}}}[$__rate_interval])))",
            f"p{q * 100:g}",
        )
        for q in of
    ]


def total(metric, by, labels="", where=ON):
    inside = where + (", " + labels if labels else "")
    return f"sum by ({by}) (rate({metric}{{{inside}}}[$__rate_interval]))"


def per_second(metric, by, labels="", where=ON):
    return (total(metric, by, labels, where), "{{" + by + "}}")


def queues(names):
    """What waits, by queue: as all replicas of a job tell alike, over all jobs."""
    return (f'sum by (queue) (carillon:queue_messages:max{{{ON}, queue=~"{names}"}})', "{{queue}}")


def waiting(names):
    return f'sum(carillon:queue_messages:max{{{ON}, queue=~"{names}"}})'


YES_NO = [{"type": "value", "options": {"0": {"text": "away", "index": 0}, "1": {"text": "well", "index": 1}}}]
BLOCKED = [{"type": "value", "options": {"0": {"text": "yes", "index": 0}, "1": {"text": "blocked", "index": 1}}}]

OVERVIEW = [
    row("Can I sleep?"),
    stat(
        "Delivered, of what ended",
        "Deliveries that ended within the last hour: the share that was delivered, and not given up after all attempts. 99.9 % is what is promised. Below: look at dead letters, and at Endpoints for who.",
        f'sum(increase(carillon_deliveries_total{{{ON}, reason="none"}}[1h])) / sum(increase(carillon_deliveries_total{{{ON}, reason=~"none|exhausted"}}[1h]))',
        "percentunit",
        steps(RED, (0.99, ORANGE), (0.999, GREEN)),
        decimals=2,
        no_value="nothing ended",
        w=4,
    ),
    stat(
        "Acknowledged within 30 s",
        "Of what was delivered within the last hour: the share acknowledged within 30 s of the event's being taken. 99 % is what is promised. Below: endpoints are slow or rate-limited, or came back after an outage.",
        f'sum(increase(carillon_delivery_latency_seconds_bucket{{{ON}, le="30"}}[1h])) / sum(increase(carillon_delivery_latency_seconds_count{{{ON}}}[1h]))',
        "percentunit",
        steps(RED, (0.94, ORANGE), (0.99, GREEN)),
        decimals=2,
        no_value="nothing delivered",
        w=4,
    ),
    stat(
        "Events that wait",
        "Published and not taken yet. More than a few for minutes: intake has stopped or is behind.",
        waiting("events"),
        "short",
        steps(GREEN, (500, ORANGE), (10000, RED)),
        w=4,
        no_value="not known",
    ),
    stat(
        "Oldest event under way",
        "Age of the oldest event that a replica took and has not settled. Seconds are usual; minutes mean that a store or the broker takes nothing.",
        f"max(carillon_oldest_unsettled_seconds{{{ON}}})",
        "s",
        steps(GREEN, (60, ORANGE), (300, RED)),
        w=4,
    ),
    stat(
        "Unaccounted deliveries",
        "Began, did not end and do not wait, for five minutes. What stays above its usual level is lost. See CarillonDeliveriesUnaccounted in the runbook.",
        f"sum(clamp_min(min_over_time(carillon:deliveries_unaccounted{{{ON}}}[5m]), 0))",
        "short",
        steps(GREEN, (1, ORANGE), (100, RED)),
        w=4,
        decimals=0,
        no_value="not known",
    ),
    stat(
        "Replicas",
        "Replicas that answer the scrape. None: nothing is delivered, events wait in RabbitMQ.",
        f"count(carillon_build_info{{{ON}}})",
        "short",
        steps(RED, (1, GREEN)),
        w=4,
        no_value="none",
    ),
    panel(
        "stat",
        "Servers",
        "Whether the replicas can use RabbitMQ and Redis: the worst of them. Embedded there is neither.",
        [(f"min by (name) (carillon_dependency_up{{{ON}}})", "{{name}}")],
        "short",
        thresholds=steps(RED, (1, GREEN)),
        mappings=YES_NO,
        named=True,
        no_value="none needed",
        w=4,
    ),
    stat(
        "RabbitMQ takes messages",
        "Blocked: it is short of memory or disk and holds what is published. Events still go to endpoints; retries and dead letters wait.",
        f"max(carillon_broker_blocked{{{ON}}})",
        "short",
        steps(GREEN, (1, RED)),
        mappings=BLOCKED,
        w=4,
    ),
    stat(
        "Dead letters kept",
        "Given up, and kept until somebody redrives or discards them: `carillon dead-letters list`.",
        waiting("dead-letters"),
        "short",
        steps(GREEN, (1, YELLOW), (10000, ORANGE)),
        w=4,
        no_value="not known",
    ),
    stat(
        "In quarantine",
        "Messages that were not understood: nobody is told of those events. `carillon quarantine list` says why.",
        waiting("quarantine"),
        "short",
        steps(GREEN, (1, YELLOW), (100, ORANGE)),
        w=4,
        no_value="not known",
    ),
    stat(
        "Endpoints in trouble",
        "Of the endpoints with recent traffic: the share whose circuit is open or whose window is cut. One customer's trouble is usual; that of most is ours: DNS, the way out, certificates, the clock.",
        f'sum(carillon_endpoints{{{ON}, state=~"open|throttled"}}) / (sum(carillon_endpoints{{{ON}}}) > 0)',
        "percentunit",
        steps(GREEN, (0.3, ORANGE), (0.5, RED)),
        w=4,
        no_value="no traffic",
    ),
    stat(
        "Attempts missing in the audit log",
        "Within the last hour. Deliveries are not touched by it; these attempts can be neither shown nor redelivered.",
        f"sum(increase(carillon_audit_dropped_total{{{ON}}}[1h]))",
        "short",
        steps(GREEN, (1, ORANGE)),
        w=4,
        decimals=0,
    ),
    row("What comes, what goes out"),
    graph(
        "Events taken",
        "By what became of them. `quarantined` should not be there; `duplicate` is a publisher that publishes again, which does no harm; `unmatched` is nobody's.",
        [per_second("carillon_events_total", "result")],
        "ops",
        w=8,
        stack=True,
        overrides=[colour("accepted", GREEN), colour("quarantined", RED), colour("duplicate", BLUE), colour("unmatched", YELLOW)],
    ),
    graph(
        "Deliveries that ended",
        "Delivered, or given up by reason. `exhausted`: all attempts failed. `gone`: the receiver said 410. The others follow from what people did.",
        [
            (f'sum(rate(carillon_deliveries_total{{{ON}, result="delivered"}}[$__rate_interval]))', "delivered"),
            (f'sum by (reason) (rate(carillon_deliveries_total{{{ON}, result="dead_lettered"}}[$__rate_interval]))', "{{reason}}"),
        ],
        "ops",
        w=8,
        stack=True,
        overrides=[colour("delivered", GREEN), colour("exhausted", RED), colour("gone", ORANGE)],
    ),
    graph(
        "Attempts",
        "Requests that succeeded and that failed. A failed one is tried again by its schedule; Endpoints says why they fail.",
        [
            (f'sum(rate(carillon_attempts_total{{{ON}, outcome="delivered"}}[$__rate_interval]))', "delivered"),
            (f'sum(rate(carillon_attempts_total{{{ON}, outcome!="delivered"}}[$__rate_interval]))', "failed"),
        ],
        "ops",
        w=8,
        stack=True,
        overrides=[colour("delivered", GREEN), colour("failed", RED)],
    ),
    row("How long it takes"),
    graph(
        "From event to acknowledgement",
        "From the event's being taken to the endpoint's acknowledgement, retries included. p99 beyond 30 s: look at retries and deferrals.",
        quantiles("carillon_delivery_latency_seconds"),
        "s",
        w=8,
        log=True,
        min=None,
    ),
    graph(
        "Age of events when taken",
        "From the event's own timestamp to its being taken: what publishers and the queue add. Rising together with the events that wait: intake is behind.",
        quantiles("carillon_event_age_seconds", of=(0.5, 0.95)),
        "s",
        w=8,
        log=True,
        min=None,
    ),
    graph(
        "What waits",
        "By queue: events not taken, deliveries that are due, deliveries that wait for their time (retries and deferrals). The first two should be near zero; waiting is fine while it comes down again.",
        [queues("events|deliveries|wait")],
        "short",
        w=8,
    ),
    row("What goes wrong"),
    graph(
        "Retries, by why",
        "Attempts that failed and will be tried again. One reason rising alone tells most: DNS, TLS and connect errors over many endpoints are ours.",
        [(total("carillon_retries_total", "reason") + " > 0", "{{reason}}")],
        "ops",
        w=8,
        stack=True,
    ),
    graph(
        "Dead letters and quarantine",
        "What is kept. Both grow until somebody looks: redrive or discard the one, mend the publisher and requeue the other.",
        [queues("dead-letters|quarantine")],
        "short",
        w=8,
    ),
    graph(
        "Unaccounted deliveries",
        "Began, did not end and do not wait. Back to its usual level after each sway: well. Positive and lasting: lost. Negative: copies.",
        [(f"sum by (job) (carillon:deliveries_unaccounted{{{ON}}})", "{{job}}")],
        "short",
        w=8,
        min=None,
    ),
]

TIMED = "carillon_endpoint_attempt_seconds_total"
TRIED = "carillon_endpoint_attempts_total"
FAILED = 'result="failed"'


def by_subscription(metric, labels=""):
    inside = ON + (", " + labels if labels else "")
    return f"sum by (subscription) (increase({metric}{{{inside}}}[15m]))"


ENDPOINTS = [
    row("All endpoints"),
    panel(
        "stat",
        "Endpoints by state",
        "With recent traffic, each replica for itself: an endpoint that two replicas serve counts twice. healthy: fine. throttled: answers 429, 502, 504 or times out, and gets fewer requests at once. open: failed five times in a row, one probe at a time. paused: asked for it by Retry-After.",
        [(f"sum by (state) (carillon_endpoints{{{ON}}})", "{{state}}")],
        "short",
        named=True,
        w=12,
    ),
    stat(
        "Disabled within a day",
        "By Carillon itself: the receiver answered 410, or failed for `delivery.disable_after`. They get nothing until somebody enables them.",
        f'sum(increase(carillon_subscriptions_disabled_total{{{ON}, reason=~"gone|failing"}}[1d]))',
        "short",
        steps(GREEN, (1, ORANGE)),
        decimals=0,
        w=6,
    ),
    stat(
        "Requests to addresses that are denied",
        "Within the last hour: a subscription leads to a private or special address. Somebody's mistake, or somebody's try. `carillon attempts list --outcome failed` says whose.",
        f"sum(increase(carillon_egress_blocked_total{{{ON}}}[1h])) or vector(0)",
        "short",
        steps(GREEN, (1, ORANGE)),
        decimals=0,
        w=6,
    ),
    graph(
        "States over time",
        "Open rising over many at once: look at the way out before you write to customers.",
        [(f"sum by (state) (carillon_endpoints{{{ON}}})", "{{state}}")],
        "short",
        w=8,
        stack=True,
        overrides=[colour("healthy", GREEN), colour("throttled", YELLOW), colour("open", RED), colour("paused", BLUE)],
    ),
    graph(
        "Failed attempts, by why",
        "client_error and server_error: the receiver's code. timeout, unavailable, rate_limited: its capacity. dns, tls, connection: its operation; over many endpoints: ours.",
        [(total("carillon_attempts_total", "outcome", 'outcome!="delivered"') + " > 0", "{{outcome}}")],
        "ops",
        w=8,
        stack=True,
    ),
    graph(
        "Duration of attempts",
        "Of those acknowledged, and the 95th percentile of all: what times out shows as a plateau at the timeout (10 s).",
        quantiles("carillon_attempt_duration_seconds", ON + ', outcome="delivered"')
        + [
            (
                f"histogram_quantile(0.95, sum by (le) (rate(carillon_attempt_duration_seconds_bucket{{{ON}}}[$__rate_interval])))",
                "p95 of all",
            )
        ],
        "s",
        w=8,
        log=True,
        min=None,
    ),
    row("The worst endpoints: at most telemetry.endpoint_series of a replica"),
    panel(
        "table",
        "Who fails",
        "Failed attempts within 15 minutes, by subscription; `carillon subscriptions get sub_…` says whose it is, `carillon attempts list --subscription sub_…` what came back. Only the worst have series of their own.",
        [
            (f"topk(15, {by_subscription(TRIED, FAILED)})", "failed"),
        ],
        "short",
        w=8,
        h=9,
        decimals=0,
        transformations=[{"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": {"Value": "failed"}, "indexByName": {}}}],
    ),
    panel(
        "table",
        "Who is slow",
        "Mean duration of an attempt within 15 minutes, by subscription. A slow endpoint holds its own requests back, nobody else's.",
        [(f"topk(15, {by_subscription(TIMED)} / ({by_subscription(TRIED)} > 0))", "mean")],
        "s",
        w=8,
        h=9,
        thresholds=steps(GREEN, (1, YELLOW), (5, ORANGE)),
        transformations=[{"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": {"Value": "mean"}, "indexByName": {}}}],
    ),
    panel(
        "table",
        "Who is not healthy",
        "Open, throttled or paused in at least one replica; the number is in how many.",
        [(f'sum by (subscription, state) (carillon_endpoint_state{{{ON}, state!="healthy"}})', "replicas")],
        "short",
        w=8,
        h=9,
        transformations=[{"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": {"Value": "replicas"}, "indexByName": {}}}],
    ),
    graph(
        "Held in lanes",
        "Deliveries in memory that wait for their endpoint's turn: about a second's worth. What does not fit goes to wait and comes back.",
        [(f"topk(10, sum by (subscription) (carillon_endpoint_held{{{ON}}}))", "{{subscription}}")],
        "short",
    ),
    graph(
        "Windows",
        "Requests that may be under way at once, over all replicas. 1: it fails or is overloaded. At `delivery.endpoint_max_in_flight` for each replica: it takes all we allow; raise it if the receiver agrees.",
        [(f"bottomk(10, sum by (subscription) (carillon_endpoint_window{{{ON}}}))", "{{subscription}}")],
        "short",
    ),
    graph(
        "Put off without an attempt",
        "rate_limited: the subscription's rate is used up; raise it if the receiver agrees. paused: Retry-After. circuit_open: it fails. busy: slower than what comes. tenant_share: its tenant publishes more than its part.",
        [per_second("carillon_deferrals_total", "reason")],
        "ops",
        stack=True,
    ),
    graph(
        "Blocked addresses, by rule",
        "Requests refused because of their address. `egress.allow` makes exceptions; think twice.",
        [(total("carillon_egress_blocked_total", "reason") + " > 0", "{{reason}}")],
        "ops",
    ),
]


def each(metric, labels="", legend="{{instance}}"):
    inside = AT + (", " + labels if labels else "")
    return (f"{metric}{{{inside}}}", legend)


INTERNALS = [
    row("Servers"),
    graph(
        "Servers, by replica",
        "1: can be used; 0: does not answer, or Redis lost Carillon's mark. One replica alone: its network. All: the server.",
        [(f"min by (name, instance) (carillon_dependency_up{{{AT}}})", "{{name}} {{instance}}")],
        "short",
        w=8,
        max=1,
    ),
    graph(
        "RabbitMQ holds publishing",
        "1: short of memory or disk. `rabbitmqctl status` names the alarm.",
        [each("carillon_broker_blocked")],
        "short",
        w=8,
        max=1,
    ),
    graph(
        "Queues",
        "As RabbitMQ or the file counts them; without what a replica has taken and not settled.",
        [queues(".*")],
        "short",
        w=8,
    ),
    row("Under way"),
    graph(
        "Events under way",
        "Taken and not settled, by replica. At `intake.prefetch` (1000) for long: endpoints or stores are slower than what comes.",
        [each("carillon_in_flight", 'stage="events"')],
        "short",
        w=8,
    ),
    graph(
        "Requests under way",
        "By replica; at most `delivery.max_in_flight` (2048).",
        [each("carillon_in_flight", 'stage="requests"')],
        "short",
        w=8,
    ),
    graph(
        "Due deliveries under way, and held in lanes",
        "Retries and deferrals that came back, and what waits in lanes for its endpoint's turn.",
        [(f'sum by (stage) (carillon_in_flight{{{AT}, stage=~"deliveries|held"}})', "{{stage}}")],
        "short",
        w=8,
    ),
    graph(
        "Oldest event under way",
        "By replica. Rising in a straight line: something is stuck there. See CarillonEventsStuck in the runbook.",
        [each("carillon_oldest_unsettled_seconds")],
        "s",
        w=8,
    ),
    graph(
        "Deferrals",
        "Deliveries put off without an attempt, by why. They cost a message in RabbitMQ each.",
        [(f"sum by (reason) (rate(carillon_deferrals_total{{{AT}}}[$__rate_interval]))", "{{reason}}")],
        "ops",
        w=8,
        stack=True,
    ),
    graph(
        "Planned, and ended",
        "Deliveries that events led to, and deliveries that ended. Apart for long: what waits grows.",
        [
            (f"sum(rate(carillon_deliveries_planned_total{{{AT}}}[$__rate_interval]))", "planned"),
            (f"sum(rate(carillon_deliveries_total{{{AT}}}[$__rate_interval]))", "ended"),
        ],
        "ops",
        w=8,
    ),
    row("Subscriptions, audit log, traces"),
    graph(
        "Subscriptions in memory",
        "Kept compiled, by replica. Sudden falls: a change of Redis's mark, or a flush.",
        [each("carillon_subscriptions_cached")],
        "short",
        w=8,
    ),
    graph(
        "Looks for subscriptions",
        "hit: in memory. miss: loaded from the store. error: the store does not answer, and the tenant's events wait.",
        [(f"sum by (result) (rate(carillon_cache_requests_total{{{AT}}}[$__rate_interval]))", "{{result}}")],
        "ops",
        w=8,
        overrides=[colour("hit", GREEN), colour("miss", YELLOW), colour("error", RED)],
    ),
    graph(
        "Lost in the audit log and in traces",
        "Attempts that the audit log could not keep, and spans that were not sent. Deliveries are not touched by either.",
        [
            (f"sum(rate(carillon_audit_dropped_total{{{AT}}}[$__rate_interval]))", "attempts"),
            (f"sum(rate(carillon_trace_spans_dropped_total{{{AT}}}[$__rate_interval]))", "spans"),
        ],
        "ops",
        w=8,
    ),
    row("Processes"),
    graph(
        "Memory",
        "Resident, by replica. docs/sizing.md says what it follows from.",
        [each("process_resident_memory_bytes", "", "{{instance}}")],
        "bytes",
        w=6,
    ),
    graph(
        "CPU",
        "Cores in use, by replica.",
        [(f"rate(process_cpu_seconds_total{{{AT}}}[$__rate_interval])", "{{instance}}")],
        "short",
        w=6,
    ),
    graph(
        "File handles",
        "Open ones, of those allowed. Each connection takes one.",
        [(f"process_open_fds{{{AT}}} / process_max_fds{{{AT}}}", "{{instance}}")],
        "percentunit",
        w=6,
        thresholds=steps(GREEN, (0.8, RED)),
    ),
    graph(
        "Uptime",
        "Since the process started, by replica.",
        [(f"time() - process_start_time_seconds{{{AT}}}", "{{instance}}")],
        "s",
        w=6,
    ),
    panel(
        "table",
        "Versions",
        "What runs where. Two versions side by side are fine during an upgrade.",
        [(f"count by (version) (carillon_build_info{{{AT}}})", "replicas")],
        "short",
        w=12,
        h=5,
        transformations=[{"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": {"Value": "replicas"}, "indexByName": {}}}],
    ),
    panel(
        "table",
        "Alerts",
        "What fires now. Each has an entry in docs/runbook.md.",
        [('max by (alertname, severity) (ALERTS{alertname=~"Carillon.*", alertstate="firing"})', "alerts")],
        "short",
        w=12,
        h=5,
        no_value="none",
        transformations=[{"id": "organize", "options": {"excludeByName": {"Time": True, "Value": True}, "renameByName": {}, "indexByName": {}}}],
    ),
]

DASHBOARDS = {
    "overview": dashboard(
        "carillon-overview", "Carillon / Overview", "Can I sleep? What comes, what goes out, what waits, what goes wrong.", OVERVIEW, per_replica=False
    ),
    "endpoints": dashboard(
        "carillon-endpoints", "Carillon / Endpoints", "Who is slow, throttled, open, paused, disabled.", ENDPOINTS, per_replica=False
    ),
    "internals": dashboard(
        "carillon-internals", "Carillon / Internals", "Servers, what is under way, caches, processes; by replica.", INTERNALS, per_replica=True
    ),
}


def main():
    stale = []
    for name, content in DASHBOARDS.items():
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        path = FOLDER / f"{name}.json"
        if "--check" in sys.argv:
            if not path.exists() or path.read_text() != text:
                stale.append(path.name)
        else:
            FOLDER.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if stale:
        sys.exit(f"not as helm/dashboards.py writes them: {', '.join(stale)}")


if __name__ == "__main__":
    main()
