"""Holds rules, dashboards and the runbook against each other and against what Carillon tells.

    check.py [--mutants]

PROMTOOL names promtool. With CARILLON, the program, the commands that the documents name are held against
it. The last line is `N passed, N failed`; the exit code is 1 after a failure.

--mutants also breaks the rules on purpose, one comparison, guard or waiting time after another, and fails
for each break that no unit test notices.
"""

import concurrent.futures
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests/prometheus"
RULES = ROOT / "helm/carillon/rules/carillon.yaml"
DASHBOARDS = sorted((ROOT / "helm/carillon/dashboards").glob("*.json"))
RUNBOOK = ROOT / "docs/runbook.md"
PROMTOOL = os.environ.get("PROMTOOL", "promtool")

# Words of PromQL that are neither metrics nor labels.
WORDS = set(
    "by without on ignoring group_left group_right and or unless offset bool atan2 inf nan start end".split()
)
# What Prometheus and its client add: not in the table of metrics.
OTHERS = {
    "up": set(),
    "ALERTS": {"alertname", "alertstate", "severity"},
    "process_start_time_seconds": set(),
    "process_resident_memory_bytes": set(),
    "process_cpu_seconds_total": set(),
    "process_open_fds": set(),
    "process_max_fds": set(),
    "process_threads": set(),
}
TARGET = {"namespace", "job", "instance", "pod"}
# What stands for Grafana's variables when an expression is checked.
VARIABLES = {
    "$__rate_interval": "5m",
    "$__interval": "1m",
    "$__range": "1h",
    "$datasource": "prometheus",
    "$namespace": ".*",
    "$job": ".*",
    "$instance": ".*",
}

passed = failed = 0


def check(what, problem=None):
    """Counts one check; `problem` says what is wrong, or nothing."""
    global passed, failed
    if problem:
        failed += 1
        print(f"FAILED {what}: {problem}")
    else:
        passed += 1


def promtool(*arguments):
    """The output of promtool, and whether it succeeded."""
    run = subprocess.run([PROMTOOL, *map(str, arguments)], capture_output=True, text=True)
    return run.stdout + run.stderr, run.returncode == 0


# --- What Carillon tells -------------------------------------------------------------------------


def known_metrics():
    """Name -> {label: values or None for any}, from docs/metrics.md and proposed-metrics.txt."""
    known = {name: dict.fromkeys(labels) for name, labels in OTHERS.items()}
    sources = [HERE / "proposed-metrics.txt", ROOT / "docs/metrics.md"]
    for line in (line for path in sources if path.exists() for line in path.read_text().splitlines()):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) < 3 or not re.fullmatch(r"`carillon_\w+`", cells[0]):
            continue
        labels = {}
        # `label`: `value`, `value` `label`: …
        for label, values in re.findall(r"`(\w+)`(?::((?:\s*`[\w-]+`(?!:),?)+))?", cells[2]):
            labels[label] = set(re.findall(r"`([\w-]+)`", values)) or None
        name = cells[0].strip("`")
        known[name] = labels
        if cells[1] == "histogram":
            for part in ("_bucket", "_sum", "_count"):
                known[name + part] = labels | ({"le": None} if part == "_bucket" else {})
    return known


def recorded_metrics(rules, known):
    """What recording rules add: their labels are those that they aggregate by, or any that are known."""
    for rule in rules:
        if "record" in rule:
            labels = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", rule["expr"]))))
            values = {}
            for name in re.findall(r"carillon_\w+", rule["expr"]):
                values |= known.get(name, {})
            known[rule["record"]] = {label: values.get(label) for label in labels - TARGET}


def faults_of(expression, known):
    """What an expression names that is not there."""
    text = re.sub(r'"(?:[^"\\]|\\.)*"', lambda m: m.group(0), expression)
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', text)
    selectors = list(re.finditer(r"\b(carillon[\w:]*|up|ALERTS|process_\w+)\b(?!\s*\()(\{[^}]*\})?", text))
    faults, labels_here = [], set(TARGET) | {"le"}
    for selector in selectors:
        name, matchers = selector.group(1), selector.group(2) or ""
        # Within a string it is a value, not a name.
        if text[: selector.start()].count('"') % 2:
            continue
        if name not in known:
            faults.append(f"there is no metric {name}")
            continue
        labels = known[name]
        labels_here |= set(labels)
        for label, sign, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', matchers):
            if label in TARGET:
                continue
            if label not in labels:
                faults.append(f"{name} has no label {label}")
                continue
            values = value.split("|") if "~" in sign else [value]
            for one in values:
                if labels[label] is not None and re.fullmatch(r"[\w-]+", one) and one not in labels[label]:
                    faults.append(f"{name} has no {label}={one}")
    if not selectors:
        faults.append("names no metric")
    for group in re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", bare):
        for label in re.findall(r"\w+", group):
            if label not in labels_here:
                faults.append(f"nothing here has the label {label}")
    return faults


# --- Dashboards ----------------------------------------------------------------------------------


def panels_of(dashboard):
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def plain(expression):
    """An expression without Grafana's variables."""
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
        expression = expression.replace("${" + variable[1:] + "}", value)
    return expression


def expressions_of(dashboard):
    """Where, and the expression: of panels and of variables."""
    for panel in panels_of(dashboard):
        for target in panel.get("targets", []):
            yield f"{dashboard['title']}: {panel['title']}", target["expr"]
    for variable in dashboard["templating"]["list"]:
        query = variable.get("query")
        query = query.get("query", "") if isinstance(query, dict) else query or ""
        for selector in re.findall(r"label_values\((.*),\s*\w+\)", query):
            yield f"{dashboard['title']}: variable {variable['name']}", selector


def promtool_takes(expression):
    """What promtool says against an expression."""
    for_all = {"groups": [{"name": "g", "rules": [{"record": "r", "expr": expression}]}]}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(for_all, file)
        file.flush()
        output, well = promtool("check", "rules", file.name)
    return not well and output


def check_questions(known):
    """What the documents would have one ask Prometheus."""
    for page in ("runbook", "install", "upgrade", "sizing"):
        path = ROOT / f"docs/{page}.md"
        for code in re.findall(r"`([^`\n]*\b(?:carillon[_:]|process_)\w+[^`\n]*)`", path.read_text()):
            check(f"{page}.md: {code}", promtool_takes(code))
            check(f"{page}.md: {code}: names", "; ".join(faults_of(code, known)))


def check_dashboards(known):
    in_step = subprocess.run([sys.executable, ROOT / "helm/dashboards.py", "--check"])
    check("dashboards in step with helm/dashboards.py", in_step.returncode and "run `make dashboards`")
    check("there are three dashboards", len(DASHBOARDS) != 3 and f"there are {len(DASHBOARDS)}")
    uids, entries = set(), []
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text())
        uids.add(dashboard["uid"])
        for panel in panels_of(dashboard):
            if panel["type"] == "row":
                continue
            where = f"{path.name}: {panel['title']}"
            check(f"{where} has a description", not panel.get("description") and "it has none")
            unit = panel["fieldConfig"]["defaults"].get("unit")
            check(f"{where} has a unit", not unit and panel["type"] != "text" and "it has none")
            named = {f'{t["datasource"]["uid"]}' for t in panel.get("targets", [])}
            check(f"{where} asks the chosen data source", named - {"${datasource}"} and f"it asks {named}")
        for where, expression in expressions_of(dashboard):
            entries.append((where, plain(expression)))
    check("dashboards have ids of their own", len(uids) != len(DASHBOARDS) and "two have one id")
    for where, expression in entries:
        check(f"{where}: variables", "$" in expression and f"unknown variable in `{expression}`")
        check(f"{where}: promtool", promtool_takes(expression))
        check(f"{where}: names", "; ".join(faults_of(expression, known)))


# --- Rules ---------------------------------------------------------------------------------------


def load_tests():
    """File -> its document."""
    return {path: yaml.safe_load(path.read_text()) for path in sorted(HERE.glob("*_test.yaml"))}


def anchors_of(markdown):
    headings = re.findall(r"^#+ (.*)$", markdown, re.M)
    return [re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings]


def check_rules(alerts, rules, known, tests):
    output, well = promtool("check", "rules", RULES)
    check("promtool check rules", not well and output)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, (output, well) in zip(tests, pool.map(lambda path: promtool("test", "rules", path), tests)):
            check(f"promtool test rules {path.name}", not well and output)
    for rule in rules:
        name = rule.get("alert") or rule["record"]
        check(f"{name}: names", "; ".join(faults_of(rule["expr"], known)))
    recorded = [rule["record"] for rule in rules if "record" in rule]
    used = RULES.read_text() + "".join(path.read_text() for path in DASHBOARDS)
    for name in recorded:
        check(f"{name} is used", len(re.findall(rf"{name}\b", used)) < 2 and "nothing uses it")
    runbook = RUNBOOK.read_text() if RUNBOOK.exists() else ""
    anchors = anchors_of(runbook)
    for name, rule in alerts.items():
        notes = rule["annotations"]
        severity = rule["labels"].get("severity")
        check(f"{name}: severity", severity not in ("critical", "warning", "info") and f"it is {severity}")
        for note in ("summary", "description", "runbook_url"):
            check(f"{name}: {note}", not notes.get(note) and "there is none")
        url = notes.get("runbook_url", "")
        check(f"{name}: runbook_url", url != f"docs/runbook.md#{name.lower()}" and f"it is {url}")
        count = anchors.count(name.lower())
        check(f"{name}: entry in the runbook", count != 1 and f"there are {count}")
        fires = [t for t in alert_tests(tests, name) if t["exp_alerts"]]
        rests = [t for t in alert_tests(tests, name) if not t["exp_alerts"]]
        check(f"{name}: a test in which it fires", not fires and "there is none")
        check(f"{name}: a test in which it does not", not rests and "there is none")
    for heading in re.findall(r"^#+ (Carillon\w+)$", runbook, re.M):
        check(f"runbook: {heading}", heading not in alerts and "there is no such alert")
    for path in (ROOT / "docs").glob("*.md"):
        for link in re.findall(r"\]\((?:docs/)?([\w.-]*\.md)?#([\w-]+)\)", path.read_text()):
            target = (ROOT / "docs" / link[0]) if link[0] else path
            there = target.exists() and link[1] in anchors_of(target.read_text())
            if target == RUNBOOK or path == RUNBOOK:
                check(f"{path.name}: link to {link[0]}#{link[1]}", not there and "there is no such anchor")


def alert_tests(tests, name):
    for document in tests.values():
        for group in document["tests"]:
            yield from (t for t in group.get("alert_rule_test", []) if t["alertname"] == name)


# --- Commands ------------------------------------------------------------------------------------


def commands_of(text):
    """The `carillon` commands of a page: its words."""
    found = re.findall(r"`(carillon [^`]*)`", text)
    found += [line for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines()]
    for command in found:
        # Behind `kubectl exec … --`, too; what a shell does with it is not looked at.
        whole = re.search(r"(?:^|-- )(carillon [a-z][^|#]*)", command.strip())
        if whole:
            yield whole.group(1).split()


def check_commands(program):
    """Every command that the documents name: is there such a one, and has it these flags?"""
    for page in ("runbook", "install", "upgrade", "sizing"):
        for words in commands_of((ROOT / f"docs/{page}.md").read_text()):
            path = []
            for word in words[1:3]:
                if not re.fullmatch(r"[a-z][a-z-]+", word):
                    break
                path.append(word)
            text = ""
            while path and not text:
                run = subprocess.run([program, *path, "--help"], capture_output=True, text=True)
                text = run.stdout if run.returncode == 0 else ""
                path = path if text else path[:-1]
            unknown = [w for w in words if w.startswith("--") and w not in text]
            reasons = re.findall(r"--reason (\w+)", " ".join(words)) if path[:1] == ["quarantine"] else []
            unknown += [reason for reason in reasons if reason not in text]
            check(f"{page}.md: {' '.join(words)}", not path and "no such command" or unknown and f"it has no {unknown}")


# --- Mutants -------------------------------------------------------------------------------------

COMPARISON = re.compile(r"(==|!=|>=|<=|>|<)\s*((?:[\d.]+\s*\*\s*)?(?:[\d.]+\b|clamp_min\([^\n]*|max_over_time\([^\n]*))")


def mutants_of(rule):
    """What it says, and the rule, broken in one place: always true, never true, without waiting."""
    for match in COMPARISON.finditer(rule["expr"]):
        begin, end = match.span()
        for word, text in (("always", "> -Inf"), ("never", "> +Inf")):
            yield f"`{match.group(0)}` {word} true", rule | {
                "expr": rule["expr"][:begin] + text + rule["expr"][end:]
            }
    for match in re.finditer(r"^\s*unless\b", rule["expr"], re.M):
        # What is taken away is not taken away: the right side becomes empty.
        head, tail = rule["expr"][: match.end()], rule["expr"][match.end() :]
        joined = re.match(r"\s*on \([^)]*\)", tail)
        at = joined.end() if joined else 0
        rest = re.search(r"^\s*(?:unless|or)\b", tail[at:], re.M)
        after = tail[at + rest.start() :] if rest else ""
        yield f"`unless` no. {rule['expr'][:match.start()].count('unless') + 1} takes nothing away", rule | {
            "expr": head + tail[:at] + " (vector(0) > 1)\n" + after
        }
    for match in re.finditer(r'(=~|!~|!=|=)"', rule["expr"]):
        other = {"=": "!=", "!=": "=", "=~": "!~", "!~": "=~"}[match.group(1)]
        yield f"`{match.group(1)}` at {match.start()} is `{other}`", rule | {
            "expr": rule["expr"][: match.start()] + other + '"' + rule["expr"][match.end() :]
        }
    if rule.get("for"):
        yield "no waiting time", rule | {"for": "0s"}
        yield "it waits for ever", rule | {"for": "1000d"}


def survives(task):
    """Whether the tests pass with a broken rule; only what concerns it is run."""
    name, rule, groups, tests = task
    with tempfile.TemporaryDirectory() as folder:
        kept = []
        for group in groups:
            rules = [rule if r.get("alert") == name else r for r in group["rules"]]
            rules = [r for r in rules if "record" in r or r.get("alert") == name]
            kept.append({"name": group["name"], "rules": rules})
        Path(folder, "rules.yaml").write_text(yaml.safe_dump({"groups": kept}))
        for path, document in tests.items():
            chosen = []
            for group in document["tests"]:
                mine = [t for t in group.get("alert_rule_test", []) if t["alertname"] == name]
                if mine:
                    chosen.append({k: v for k, v in group.items() if k != "promql_expr_test"} | {"alert_rule_test": mine})
            if chosen:
                broken = document | {"rule_files": ["rules.yaml"], "tests": chosen}
                Path(folder, path.name).write_text(yaml.safe_dump(broken))
                if not promtool("test", "rules", Path(folder, path.name))[1]:
                    return False
    return True


def check_mutants(alerts, groups, tests):
    wanted = sys.argv[sys.argv.index("--mutants") + 1 :]
    todo = [
        (f"{name}: {what}", (name, rule, groups, tests))
        for name, original in alerts.items()
        if not wanted or name in wanted
        for what, rule in mutants_of(original)
    ]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for (what, _), alive in zip(todo, pool.map(survives, [task for _, task in todo])):
            check(f"mutant {what}", alive and "no test notices")


def main():
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    alerts = {rule["alert"]: rule for rule in rules if "alert" in rule}
    check("each alert has one rule", len(alerts) != sum("alert" in rule for rule in rules) and "one has two")
    tests = load_tests()
    if "--mutants" in sys.argv:
        check_mutants(alerts, groups, tests)
    else:
        known = known_metrics()
        recorded_metrics(rules, known)
        check("metrics are known", len(known) < 40 and f"only {len(known)}: is docs/metrics.md as it was?")
        check_rules(alerts, rules, known, tests)
        check_dashboards(known)
        check_questions(known)
        if "CARILLON" in os.environ:
            check_commands(os.environ["CARILLON"])
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
