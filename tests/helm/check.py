#!/usr/bin/env python3
"""The chart, rendered with each of ci/*.yaml and with values that it has to refuse. Needs no cluster and no servers."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import kubernetes_validate
import yaml

import chart
from chart import CHART, KUBERNETES, ROOT, Refused, container_of, of_kind, pod_of, template, workload
from results import Results

# Kinds that other operators bring; their schemas are not Kubernetes'.
CUSTOM = {"ExternalSecret", "ScaledObject", "TriggerAuthentication", "ServiceMonitor", "PrometheusRule", "RabbitmqCluster",
          "HTTPRoute"}
CASES = sorted((CHART / "ci").glob("*-values.yaml"))
BASE = CHART / "ci/secret-by-value-values.yaml"
EMBEDDED = CHART / "ci/embedded-values.yaml"
KEYS = "secrets.existingSecret=s"

# Values that are refused, and a part of what is said. Each is given on top of nothing.
REFUSED = [
    ([], "there is no admin token"),
    (["replcias=3"], "replcias"),
    (["image.tga=1"], "tga"),
    ([KEYS, "config.delivery.timeuot=5s"], "timeuot"),
    ([KEYS, "config.delivry.timeout=5s"], "delivry"),
    ([KEYS, "config.delivery.timeout=5"], "timeout"),
    ([KEYS, "config.delivery.timeout=5 seconds"], "timeout"),
    ([KEYS, "config.delivery.rate_limit.persecond=5"], "persecond"),
    ([KEYS, "config.intake.prefetch=0"], "prefetch"),
    ([KEYS, "config.telemetry.log=xml"], "log"),
    ([KEYS, "networkPolicy.broker.form=x"], "form"),
    ([KEYS, "secrets.from.borkerUrl.name=x"], "borkerUrl"),
    ([KEYS, "mode=cluster"], "mode"),
    ([KEYS, "image.digest=sha256:12"], "digest"),
    ([KEYS, "replicas=0"], "replicas"),
    ([KEYS, "evaluation.rabbitmq.replicas=2"], "replicas"),
    ([KEYS, "terminationGracePeriodSeconds=49"], "at least 50"),
    ([KEYS, "terminationGracePeriodSeconds=120", "config.shutdown.grace=1m45s"], "at least 125"),
    ([KEYS, "config.http.listen=127.0.0.1:8080"], "cannot reach it there"),
    ([KEYS, "config.ops.listen=localhost:9464"], "cannot reach it there"),
    ([KEYS, "config.ops.listen=0.0.0.0:8080"], "same port"),
    ([KEYS, "secrets.entries.adminToken="], "there is no admin token"),
    ([KEYS, "secrets.entries.brokerUrl="], "there is no broker.url"),
    ([KEYS, "secrets.entries.redisUrl="], "there is no redis.url"),
    (["config.http.admin_token=t"], "there is no broker.url"),
    ([KEYS, "config.redis.url=redis://a", "evaluation.redis.enabled=true", "evaluation.redis.password=p"], "two places"),
    ([KEYS, "config.broker.url=amqp://a", "secrets.from.brokerUrl.name=b", "secrets.from.brokerUrl.key=k"], "two places"),
    ([KEYS, "evaluation.redis.enabled=true"], "password is not set"),
    ([KEYS, "mode=embedded", "config.broker.url=amqp://a"], "mode is embedded"),
    ([KEYS, "mode=embedded", "keda.enabled=true"], "turn off keda"),
    ([KEYS, "mode=embedded", "autoscaling.enabled=true"], "turn off autoscaling"),
    ([KEYS, "mode=embedded", "init.enabled=true"], "turn off init"),
    ([KEYS, "mode=embedded", "config.embedded.path=/tmp/carillon.db"], "not on the volume"),
    ([KEYS, "keda.enabled=true", "autoscaling.enabled=true"], "both enabled"),
    ([KEYS, "autoscaling.enabled=true", "autoscaling.minReplicas=11"], "minReplicas is more"),
    ([KEYS, "strategy.maxSurge=0"], "nothing could be rolled"),
    (["config.http.admin_token=t", "config.redis.url=redis://a", "config.broker.url=amqp://a\\,amqp://b", "keda.enabled=true"],
     "KEDA reads one URL"),
    ([KEYS, "secrets.from.brokerUrl.name=b", "secrets.from.brokerUrl.key=k", "secrets.from.brokerUrl.suffix=/x", "keda.enabled=true"],
     "KEDA reads a whole one"),
    ([KEYS, "ca.configMap=a", "ca.secret=b"], "both set"),
    ([KEYS, "ca.configMap=a", "config.broker.ca_file=/x"], "take one of them away"),
    ([KEYS, "ingress.enabled=true"], "without ingress.hosts"),
    ([KEYS, "httpRoute.enabled=true", "httpRoute.hosts={a.example}"], "through which Gateway"),
    ([KEYS, "secrets.externalSecret.enabled=true"], "no name"),
    ([KEYS, "monitoring.runbookBaseUrl=https://x"], "runbookBaseUrl"),
]


def sets(values):
    return [part for value in values for part in ("--set", value)]


def document_is_current():
    done = subprocess.run([sys.executable, ROOT / "tests/helm/document.py", "--check"], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr


def schema_has_every_key():
    """Against the binary: a key that is new there has to be in the chart, too."""
    page = json.loads(chart.carillon("config", "reference", "--json", env={}).stdout)["markdown"]
    wanted = set(re.findall(r"^### `(\w+\.\w+)`$", page, flags=re.M))
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["config"]["properties"]
    there = {f"{section}.{key}" for section, keys in schema.items() for key in keys["properties"]}
    assert len(wanted) > 30 and wanted == there, f"missing {wanted - there}, too many {there - wanted}"


def linted(values, binary):
    chart.helm("lint", "--strict", CHART, "--values", values, binary=binary)


def is_the_same_in(values, binary):
    assert template(values=values) == template(values=values, binary=binary)


def valid(values, kube):
    for document in template(values=values, kube=kube):
        if document["kind"] not in CUSTOM:
            try:
                kubernetes_validate.validate(document, kube, strict=True)
            except Exception as error:
                raise AssertionError(f"{document['kind']} {document['metadata']['name']}: {error}") from error


def labelled(values):
    """Names, namespaces and the recommended labels; selectors that find pods; nothing twice."""
    documents = template(values=values)
    seen = set()
    pods = [d["spec"]["template"]["metadata"]["labels"] for d in documents if d["kind"] in ("Deployment", "StatefulSet", "Job")]
    pods += [d["metadata"]["labels"] for d in documents if d["kind"] == "Pod"]
    for document in documents:
        head = document["metadata"]
        what = (document["kind"], head.get("namespace"), head["name"])
        assert what not in seen, f"{what} twice"
        seen.add(what)
        assert head.get("namespace"), f"{what} has no namespace"
        assert len(head["name"]) <= 63, what
        for label in ("name", "instance", "version", "component", "part-of", "managed-by"):
            assert head["labels"].get(f"app.kubernetes.io/{label}"), f"{what} has no label {label}"
        spec = document.get("spec", {})
        selector = None
        if document["kind"] == "Service":
            selector = spec["selector"]
        elif document["kind"] in ("NetworkPolicy", "PodDisruptionBudget", "Deployment", "StatefulSet"):
            selector = spec.get("podSelector", spec.get("selector")).get("matchLabels", {})
        if selector is not None:
            assert any(selector.items() <= pod.items() for pod in pods), f"{what} selects no pod"


def hardened(values):
    """Every pod of Carillon's; those that are changed by values are held by checkov, too."""
    for document in template(values=values):
        pod = pod_of(document)
        if not pod:
            continue
        what = document["kind"], document["metadata"]["name"]
        context = pod["securityContext"]
        assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False, what
        assert context["runAsNonRoot"] and context["runAsUser"] > 10000, what
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, what
        for container in pod["containers"]:
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"], what
            assert own["capabilities"] == {"drop": ["ALL"]}, what
            assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"], what


def grace_is_enough(values):
    documents = template(values=values)
    pod, container = pod_of(workload(documents)), container_of(workload(documents))
    stop = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    config = chart_config(documents)
    grace = chart.seconds(config)
    given = pod["terminationGracePeriodSeconds"]
    assert given > grace + stop and given >= grace + stop + 10, f"{given} for a grace of {grace} s after {stop} s"


def chart_config(documents):
    """shutdown.grace, as the program has it from the rendered file."""
    with tempfile.TemporaryDirectory() as folder:
        env = chart.environment(container_of(workload(documents)), documents, folder)
        return re.search(r'^grace = "(.*)"$', chart.carillon("config", "print", env=env).stdout, flags=re.M)[1]


def config_is_taken(values):
    """`carillon config check` with the file and the environment of each pod of Carillon's."""
    documents = template(values=values)
    looked_at = 0
    for document in documents:
        container = (pod_of(document) or {}).get("containers", [None])[0]
        if not container or container["name"] == "redis":
            continue
        with tempfile.TemporaryDirectory() as folder:
            env = chart.environment(container, documents, folder)
            done = chart.carillon("config", "check", env=env)
            assert done.returncode == 0, f"{document['kind']}: {done.stdout}{done.stderr}"
            text = Path(env["CARILLON_CONFIG"]).read_text()
            effective = tomllib.loads(chart.carillon("config", "print", env=env).stdout)
        written = tomllib.loads(text)
        for secret in SECRET_TEXTS:
            assert secret not in text, "a secret is in the ConfigMap"
        for section, keys in yaml.safe_load(Path(values).read_text()).get("config", {}).items():
            for key, value in keys.items():
                if (section, key) in SECRET:
                    assert effective[section][key], f"{section}.{key} did not arrive"
                else:
                    assert written[section][key] == value, f"{section}.{key} is {written[section][key]}"
                    # Networks and URLs are shown in another form than they are given in.
                    if section != "egress" and key != "otlp_endpoint":
                        assert effective[section][key] == value, f"{section}.{key} came to {effective[section][key]}"
        looked_at += 1
    assert looked_at >= 1
    mode = yaml.safe_load(Path(values).read_text()).get("mode", "production")
    env_names = {variable["name"] for variable in container_of(workload(documents))["env"]}
    assert ("CARILLON_BROKER__URL" in env_names) == (mode == "production"), env_names


SECRET = {("http", "admin_token"), ("broker", "url"), ("redis", "url"), ("secrets", "keys")}
SECRET_TEXTS = ["an-admin-token-for-tests-only", "secret@", "MDEyMzQ1"]


def operators_url_names_the_usual_host():
    """RabbitMQ's operator ends its URL in a slash, which would be the virtual host without a name."""
    for case in ("evaluation", "external-secrets"):
        documents = template(values=CHART / f"ci/{case}-values.yaml")
        for document in documents:
            container = (pod_of(document) or {}).get("containers", [{"name": "redis"}])[0]
            if container["name"] != "redis":
                with tempfile.TemporaryDirectory() as folder:
                    env = chart.environment(container, documents, folder)
                assert env["CARILLON_BROKER__URL"] == "amqp://carillon:secret@rabbitmq:5672/%2f", env["CARILLON_BROKER__URL"]


def refuses(values, part):
    try:
        template(*sets(values))
    except Refused as refused:
        assert part in str(refused), f"expected {part!r} in {refused}"
    else:
        raise AssertionError(f"{values} is not refused")


def policy_is_the_guards():
    """The NetworkPolicy leaves out what src/domain/address.rs does, and config.egress.deny."""
    import ipaddress
    source = (ROOT / "src/domain/address.rs").read_text()
    network = lambda a, p: ipaddress.ip_network(f"{a}/{p}")
    body = lambda name: source.split(f"const {name}")[1].split("];\n")[0]
    guard4 = [network(m[0].replace(", ", "."), m[1]) for m in re.findall(r"v4\(((?:\d+, ){3}\d+), (\d+)\)", body("V4_RULES"))]
    guard6 = []
    for segments, prefix in re.findall(r"v6\(\[([^\]]+)\], (\d+)\)", body("V6_RULES")):
        words = [int(word, 0) for word in segments.split(", ")]
        guard6.append(network(ipaddress.IPv6Address(b"".join(w.to_bytes(2, "big") for w in words)), prefix))
    public6 = ipaddress.ip_network("2000::/3")
    assert len(guard4) > 15 and len(guard6) > 12
    values = CHART / "ci/existing-secret-values.yaml"
    denied = [ipaddress.ip_network(n) for n in yaml.safe_load(values.read_text())["config"]["egress"]["deny"]]
    policy = next(d for d in template(values=values) if d["kind"] == "NetworkPolicy" and d["metadata"]["name"] == "carillon")
    blocks = {peer["ipBlock"]["cidr"]: [ipaddress.ip_network(n) for n in peer["ipBlock"]["except"]]
              for rule in policy["spec"]["egress"] for peer in rule.get("to", []) if "ipBlock" in peer}
    wanted4 = [n for n in guard4 + denied if n.version == 4]
    wanted6 = [n for n in guard6 + denied if n.version == 6 and n.subnet_of(public6)]
    for there, wanted in ((blocks["0.0.0.0/0"], wanted4), (blocks["2000::/3"], wanted6)):
        # 255.255.255.255 is within 240.0.0.0/4.
        missing = [n for n in wanted if not any(n.subnet_of(t) for t in there)]
        more = [t for t in there if t not in wanted]
        assert not missing and not more, f"missing {missing}, too many {more}"
    assert set(blocks) == {"0.0.0.0/0", "2000::/3"}


def allowed_networks_are_reachable():
    values = CHART / "ci/ingress-values.yaml"
    policy = next(d for d in template(values=values) if d["metadata"]["name"] == "carillon" and d["kind"] == "NetworkPolicy")
    peers = [peer["ipBlock"]["cidr"] for rule in policy["spec"]["egress"] for peer in rule.get("to", []) if "ipBlock" in peer]
    assert {"10.20.0.0/16", "10.30.0.5/32", "fd12::/16", "fd12::1/128"} <= set(peers), peers


def pods_roll_when_config_changes():
    def sums(*values):
        return pod_annotations(template(*sets(values), values=BASE))
    plain = sums()
    assert sums() == plain
    assert sums("config.delivery.timeout=9s")["checksum/config"] != plain["checksum/config"]
    assert sums("config.http.admin_token=another")["checksum/secret"] != plain["checksum/secret"]
    assert sums("config.http.admin_token=another")["checksum/config"] == plain["checksum/config"]
    labels = template(*sets(["replicas=5"]), values=BASE)
    assert pod_annotations(labels) == plain


def pod_annotations(documents):
    return workload(documents)["spec"]["template"]["metadata"]["annotations"]


def deployment_rolls_without_a_gap():
    deployment = workload(template(values=BASE))
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    probes = {name: container_of(deployment)[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert probes == {"startup": {"path": "/livez", "port": "ops"}, "liveness": {"path": "/livez", "port": "ops"},
                      "readiness": {"path": "/readyz", "port": "ops"}}
    assert container_of(deployment)["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}
    # There the field is behind a feature gate, and a hook without a handler is refused.
    old = container_of(workload(template(values=BASE, kube="1.29.0")))
    assert "lifecycle" not in old


def embedded_is_one():
    documents = template(values=EMBEDDED)
    assert not any(d["kind"] in ("Deployment", "PodDisruptionBudget") for d in documents)
    stateful = workload(documents)
    assert stateful["kind"] == "StatefulSet" and stateful["spec"]["replicas"] == 1
    claim = of_kind(documents, "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    volumes = {v["name"]: v for v in pod_of(stateful)["volumes"]}
    assert volumes["data"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert not any(d["kind"] == "PersistentVolumeClaim" for d in template(*sets(["persistence.existingClaim=mine"]), values=EMBEDDED))


def scaling_leaves_replicas_alone():
    for case, kind in (("hpa", "HorizontalPodAutoscaler"), ("keda", "ScaledObject")):
        documents = template(values=CHART / f"ci/{case}-values.yaml")
        assert "replicas" not in workload(documents)["spec"]
        assert of_kind(documents, kind)["spec"]["scaleTargetRef"]["name"] == workload(documents)["metadata"]["name"]
    triggers = of_kind(documents, "ScaledObject")["spec"]["triggers"]
    assert {t["metadata"]["queueName"] for t in triggers} == {"carillon.events", "carillon.deliveries"}


def init_is_for_installing():
    values = CHART / "ci/evaluation-values.yaml"
    assert container_of(of_kind(template(values=values), "Job"))["args"] == ["init"]
    assert not any(d["kind"] == "Job" for d in template("--is-upgrade", values=values))


def services_are_apart():
    documents = template(values=CHART / "ci/ingress-values.yaml")
    services = {d["metadata"]["name"]: d["spec"]["ports"] for d in documents if d["kind"] == "Service"}
    assert [p["name"] for p in services["carillon"]] == ["http"]
    assert [p["name"] for p in services["carillon-ops"]] == ["ops"]
    paths = [p for rule in of_kind(documents, "Ingress")["spec"]["rules"] for p in rule["http"]["paths"]]
    assert all(p["backend"]["service"] == {"name": "carillon", "port": {"name": "http"}} for p in paths)
    route = of_kind(template(values=CHART / "ci/gateway-values.yaml"), "HTTPRoute")
    assert route["spec"]["rules"][0]["backendRefs"] == [{"name": "carillon", "port": 80}]
    ports = {p["name"]: p["containerPort"] for p in container_of(workload(documents))["ports"]}
    assert ports == {"http": 8081, "ops": 9465}


def rules_and_dashboards_are_passed_on():
    """As they are, templates of their own included; and nothing where there are none."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "carillon"
        shutil.copytree(CHART, copy, ignore=shutil.ignore_patterns("rules", "dashboards"))
        values = CHART / "ci/monitoring-values.yaml"
        kinds = [d["kind"] for d in template(values=values, chart=copy)]
        assert "PrometheusRule" not in kinds and kinds.count("ConfigMap") == 1 and "ServiceMonitor" in kinds
        rule = {"alert": "A", "expr": "up == 0", "for": "5m", "labels": {"severity": "page"},
                "annotations": {"summary": "{{ $labels.pod }} is away", "runbook_url": "docs/runbook.md#a"}}
        other = {"alert": "B", "expr": "1", "annotations": {"runbook_url": "https://x.example/b"}}
        recorded = {"record": "carillon:x", "expr": "sum(x)"}
        groups = [{"name": "g", "rules": [rule, other, recorded]}]
        (copy / "rules").mkdir()
        (copy / "rules/carillon.yaml").write_text(yaml.safe_dump({"groups": groups}))
        board = '{"title": "{{ x }}", "expr": "rate(x[$__rate_interval])",\n "a": "\\"b\\" \\u00e9"}\n'
        (copy / "dashboards").mkdir()
        (copy / "dashboards/overview.json").write_text(board)
        documents = template(values=values, chart=copy)
        made = of_kind(documents, "PrometheusRule")["spec"]["groups"]
        rule["annotations"]["runbook_url"] = "https://git.example.com/carillon/blob/main/docs/runbook.md#a"
        assert made == groups, made
        shown = next(d for d in documents if d["kind"] == "ConfigMap" and "overview.json" in d["data"])
        assert shown["data"]["overview.json"] == board, shown["data"]
        assert shown["metadata"]["namespace"] == "grafana" and shown["metadata"]["labels"]["grafana_dashboard"] == "1"
        (copy / "rules/carillon.yaml").write_text("groups: [")
        try:
            template(values=values, chart=copy)
        except Refused as refused:
            assert "rules/carillon.yaml" in str(refused)
        else:
            raise AssertionError("rules that are no YAML are passed on")


def own_rules_and_dashboards():
    """Those of this chart, where they are there already."""
    documents = template(values=CHART / "ci/monitoring-values.yaml")
    boards = {path.name: path.read_text() for path in CHART.glob("dashboards/*.json")}
    made = {}
    for document in documents:
        if document["kind"] == "ConfigMap" and "carillon.toml" not in document["data"]:
            made.update(document["data"])
    assert made == boards, sorted(made)
    rules = CHART / "rules/carillon.yaml"
    if rules.exists():
        groups = of_kind(documents, "PrometheusRule")["spec"]["groups"]
        links = [r["annotations"]["runbook_url"] for g in groups for r in g["rules"] if "alert" in r]
        assert links and all(link.startswith("https://git.example.com/carillon/blob/main/docs/") for link in links), links
        assert [r.get("expr") for g in groups for r in g["rules"]] == [
            r.get("expr") for g in yaml.safe_load(rules.read_text())["groups"] for r in g["rules"]]


def notes_say_what_to_do():
    def notes(*values, file=BASE, more=()):
        text = chart.helm("install", "carillon", CHART, "--dry-run=client", "--values", file, *sets(values), *more)
        return text.split("NOTES:")[1]
    plain = notes()
    for part in ("carillon init", "rollout status deploy/carillon", "helm test", "get secret carillon", "networkPolicy.broker.to"):
        assert part in plain, part
    assert "without encryption" not in plain
    embedded = notes(file=EMBEDDED)
    assert "carillon init" not in embedded and "statefulset/carillon" in embedded and "without encryption" in embedded
    assert "Job carillon-init" in notes(file=CHART / "ci/evaluation-values.yaml")
    assert "no TLS" in notes("ingress.enabled=true", "ingress.hosts={a.example}")
    assert "There is no volume" in notes(file=CHART / "ci/off-values.yaml")


def packaged():
    """What the package holds, and what it does not."""
    import tarfile
    with tempfile.TemporaryDirectory() as folder:
        chart.helm("package", CHART, "--destination", folder)
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as package:
            names = package.getnames()
    assert "carillon/templates/deployment.yaml" in names and "carillon/values.schema.json" in names
    assert not [name for name in names if "/ci/" in name or name.endswith(".py")], names


def version_is_the_programs():
    cargo = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), flags=re.M)[1]
    head = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert head["appVersion"] == cargo, f"appVersion {head['appVersion']}, Cargo.toml {cargo}"


def checkov():
    with tempfile.TemporaryDirectory() as folder:
        for values in CASES:
            documents = [d for d in template(values=values) if d["kind"] not in CUSTOM]
            (Path(folder) / values.name).write_text(yaml.safe_dump_all(documents))
        done = subprocess.run([os.environ["CHECKOV"], "--directory", folder, "--config-file", ROOT / "tests/helm/checkov.yaml",
                               "--output", "json"], capture_output=True, text=True, check=False)
        report = json.loads(done.stdout)
        summary = report["summary"]
        failed = {f"{c['check_id']} {c['resource']} {c['check_name']}" for c in report["results"]["failed_checks"]}
        assert summary["passed"] > 500, summary
        assert not failed and not summary["parsing_errors"] and done.returncode == 0, failed


def main():
    results = Results()
    helm3 = os.environ["HELM3"]
    for look in (document_is_current, schema_has_every_key, policy_is_the_guards, allowed_networks_are_reachable, operators_url_names_the_usual_host,
                 pods_roll_when_config_changes, deployment_rolls_without_a_gap, embedded_is_one, scaling_leaves_replicas_alone,
                 init_is_for_installing, services_are_apart, rules_and_dashboards_are_passed_on, own_rules_and_dashboards,
                 notes_say_what_to_do, packaged, version_is_the_programs, checkov):
        results.check(look.__name__, look)
    for values, part in REFUSED:
        results.check(f"refuses {values}", refuses, values, part)
    for values in CASES:
        name = values.name.removesuffix("-values.yaml")
        for look in (labelled, hardened, grace_is_enough, config_is_taken):
            results.check(f"{name} {look.__name__}", look, values)
        for binary in (chart.HELM, helm3):
            results.check(f"{name} lint {binary}", linted, values, binary)
        results.check(f"{name} the same by Helm 3", is_the_same_in, values, helm3)
        for kube in KUBERNETES:
            results.check(f"{name} valid for {kube}", valid, values, kube)
    print(f"chart: {results.passed} passed, {results.failed} failed")
    return results.end()


if __name__ == "__main__":
    sys.exit(main())
