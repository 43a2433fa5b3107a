"""The Kubernetes manifests: by their schemas, by our own rules, and beside docker-compose.yml."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.main import COMMANDS
from config.deployment import SECRETS
from config.settings import Settings
from tests.containers import ROOT, seconds, services, tool

HERE = ROOT / "deploy" / "kubernetes"
FOLDERS = (
    "base",
    "components/cloud",
    "components/simulation",
    "overlays/cluster",
    "overlays/on-demand",
    "overlays/simulation",
)
KUBECTL = tool("kubectl")
OLDEST = "uptier_oldest_waiting_seconds"


def objects(folder: str) -> Iterator[dict[str, Any]]:
    """What a folder declares by itself."""
    for path in sorted((HERE / folder).glob("*.yaml")):
        if path.name != "kustomization.yaml":
            yield from yaml.safe_load_all(path.read_text())


ALL = [found for folder in FOLDERS for found in objects(folder)]
PODS = [o for o in ALL if o["kind"] in ("Deployment", "StatefulSet", "Job")]


def named(kind: str, name: str) -> dict[str, Any]:
    return next(o for o in ALL if (o["kind"], o["metadata"]["name"]) == (kind, name))


def pod(found: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = found["spec"]["template"]["spec"]
    return spec


def containers(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod(found).get("initContainers", []), *pod(found)["containers"]]


def title(found: dict[str, Any]) -> str:
    return f"{found['kind']}-{found['metadata']['name']}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_is_part_of_its_kustomization(folder: str) -> None:
    text = (HERE / folder / "kustomization.yaml").read_text()
    listed = set(yaml.safe_load(text)["resources"])
    assert {p.name for p in (HERE / folder).glob("*.yaml")} - {"kustomization.yaml"} == {
        name for name in listed if not name.startswith("../")
    }
    assert all((HERE / folder / name).exists() for name in listed)


@pytest.mark.parametrize("found", [o for o in ALL if o["kind"] != "ScaledObject"], ids=title)
def test_it_is_as_its_schema_wants_it(found: dict[str, Any]) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    kubernetes_validate.validate(found, "1.37", strict=True)


@pytest.mark.parametrize("found", PODS, ids=title)
def test_every_pod_is_hardened_and_bounded(found: dict[str, Any]) -> None:
    spec = pod(found)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    # The variables of a service `x` are X_PORT and so on: ours must not be among them.
    assert spec["enableServiceLinks"] is False
    claims = found["spec"].get("volumeClaimTemplates", [])
    mounted = {v["name"] for v in spec["volumes"]} | {c["metadata"]["name"] for c in claims}
    for container in containers(found):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert {mount["name"] for mount in container["volumeMounts"]} <= mounted


@pytest.mark.parametrize("found", [o for o in PODS if o["kind"] != "Job"], ids=title)
def test_whatever_stays_is_probed(found: dict[str, Any]) -> None:
    for container in pod(found)["containers"]:
        assert {"readinessProbe", "livenessProbe"} <= set(container)


def test_our_containers_run_commands_that_there_are_and_workers_probe_their_lane() -> None:
    for found in PODS:
        for container in containers(found):
            if not container["image"].startswith("uptier:"):
                continue
            command, *rest = container["args"]
            assert command in COMMANDS
            if command == "worker":
                lane = rest[0]
                for probe in ("startupProbe", "readinessProbe"):
                    assert container[probe]["exec"]["command"] == ["uptier", "health", lane]
                live = container["livenessProbe"]["exec"]["command"]
                assert live == ["uptier", "health", "--live", lane]


def test_pods_get_as_long_to_end_as_in_compose() -> None:
    lease_s = Settings.model_fields["lease_s"].default
    for name in ("tier1", "tier2", "quality", "cloud"):
        assert pod(named("Deployment", name))["terminationGracePeriodSeconds"] == lease_s
    gateway = services()["gateway"]
    grace = pod(named("Deployment", "gateway"))["terminationGracePeriodSeconds"]
    assert grace > seconds(gateway["stop_grace_period"])  # for the pause before


@pytest.mark.parametrize("name", ["gateway", "metrics", "flower"])
def test_servers_are_started_as_in_compose(name: str) -> None:
    container = pod(named("Deployment", name))["containers"][0]
    assert container["args"] == services()[name]["command"]
    ports = {each["containerPort"] for each in container["ports"]}
    assert ports == {each["targetPort"] for each in named("Service", name)["spec"]["ports"]}


def test_settings_are_those_of_compose() -> None:
    lines = (HERE / "base" / "settings.env").read_text().splitlines()
    ours = dict(line.split("=", 1) for line in lines)
    theirs = services({"UPTIER_PROFILE": "gpu"})["quality"]["environment"]
    assert ours == theirs


def test_secrets_are_read_by_the_group_that_owns_them() -> None:
    for found in PODS:
        secrets = [v["secret"] for v in pod(found)["volumes"] if "secret" in v]
        assert all(
            each == {"secretName": "uptier-secrets", "defaultMode": 0o440} for each in secrets
        )
        if secrets:
            assert (
                pod(found)["securityContext"]["fsGroup"]
                == pod(found)["securityContext"]["runAsGroup"]
            )
    text = "".join(path.read_text() for path in (HERE / "base").iterdir())
    named_files = {match[1] for match in re.finditer(r"/run/secrets/(\w+)", text)}
    assert named_files <= {secret.file for secret in SECRETS}


def test_tier_1_has_two_cards_and_tier_2_one_of_its_own() -> None:
    cards = {}
    for found in PODS:
        for container in containers(found):
            held = container["resources"]["limits"].get("nvidia.com/gpu")
            if held is not None:
                assert container["image"] == "uptier:cuda"
                cards[found["metadata"]["name"]] = int(held) * found["spec"]["replicas"]
    assert cards == {"tier1": 2, "tier2": 1}
    overlay = yaml.safe_load((HERE / "overlays/cluster/kustomization.yaml").read_text())
    assert overlay["replicas"] == [{"name": "tier1", "count": 2}, {"name": "tier2", "count": 1}]


def test_simulations_need_no_card() -> None:
    job = named("Job", "simulation")
    assert job["spec"]["completions"] == 2
    assert {c["image"] for c in containers(job)} == {"uptier:cpu"}
    assert "$(JOB_COMPLETION_INDEX)" in pod(job)["containers"][0]["args"]


def test_simulations_run_only_where_they_are_asked_for() -> None:
    """What a job's pods are cannot be changed: a second apply of the cluster would fail."""
    assert [f for f in FOLDERS if any(o["kind"] == "Job" for o in objects(f))] == [
        "components/simulation"
    ]
    asking = {
        folder: yaml.safe_load((HERE / folder / "kustomization.yaml").read_text())
        for folder in FOLDERS
    }
    with_jobs = {
        f for f, k in asking.items() if "../../components/simulation" in k.get("components", [])
    }
    assert with_jobs == {"overlays/simulation"}
    assert asking["overlays/simulation"]["resources"] == ["../cluster"]
    assert named("Job", "simulation")["spec"]["ttlSecondsAfterFinished"] > 0


def test_only_the_gateway_is_open_to_others() -> None:
    policies = {o["metadata"]["name"]: o["spec"] for o in ALL if o["kind"] == "NetworkPolicy"}
    offered = {o["metadata"]["name"]: o["spec"] for o in ALL if o["kind"] == "Service"}
    assert set(policies) == set(offered) - {"gateway"}
    ours = {"podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "uptier"}}}
    keda = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}}}
    for name, spec in policies.items():
        assert spec["podSelector"]["matchLabels"] == offered[name]["selector"]
        assert "Ingress" in spec["policyTypes"]
        [rule] = spec["ingress"]
        assert rule["from"] == ([ours, keda] if name == "prometheus" else [ours])
        assert [each["port"] for each in rule["ports"]] == [
            each["targetPort"] for each in offered[name]["ports"]
        ]


def test_quality_workers_have_the_weights_by_which_they_know_what_serves_a_lane() -> None:
    quality = named("Deployment", "quality")
    [worker] = pod(quality)["containers"]
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in worker["volumeMounts"]
    assert [each["args"] for each in pod(quality)["initContainers"]][-1] == ["models", "pull"]


def test_who_may_be_moved_leaves_enough_behind() -> None:
    budgets = {o["metadata"]["name"]: o["spec"] for o in ALL if o["kind"] == "PodDisruptionBudget"}
    assert set(budgets) == {"tier1", "tier2", "quality", "gateway"}
    for name, spec in budgets.items():
        deployment = named("Deployment", name)
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"].items() <= labels.items()
        # As many as there are could never be moved at all.
        assert spec.get("minAvailable", 0) < deployment["spec"]["replicas"]


def test_tier_1_stays_hot_and_tier_2_comes_and_goes_by_its_oldest_waiting_decision() -> None:
    scaled = {o["metadata"]["name"]: o["spec"] for o in ALL if o["kind"] == "ScaledObject"}
    assert (scaled["tier1"]["minReplicaCount"], scaled["tier2"]["minReplicaCount"]) == (1, 0)
    server = named("Service", "prometheus")["spec"]["ports"][0]["port"]
    for lane, spec in scaled.items():
        assert set(spec) <= {"scaleTargetRef", "minReplicaCount", "maxReplicaCount", "triggers",
                             "pollingInterval", "cooldownPeriod"}  # fmt: skip
        assert named("Deployment", spec["scaleTargetRef"]["name"])
        assert [each["type"] for each in spec["triggers"]] == ["prometheus"]
        metadata = spec["triggers"][0]["metadata"]
        assert metadata["query"] == f'max({OLDEST}{{lane="{lane}"}})'
        assert metadata["serverAddress"] == f"http://prometheus.uptier.svc:{server}"
        assert all(isinstance(value, str) for value in metadata.values())
        # Else a ledger that is away would count as nothing that waits, and tier 2 would leave.
        assert metadata["ignoreNullValues"] == "false"
        assert spec["cooldownPeriod"] >= Settings.model_fields["lease_s"].default


def test_the_metric_that_scaling_goes_by_is_exported() -> None:
    catalog = pytest.importorskip("ledger.metrics.catalog")
    assert catalog.OLDEST.exposed == OLDEST
    assert catalog.OLDEST.labels == ("lane",)


@pytest.mark.skipif(KUBECTL is None, reason="kubectl is not here")
@pytest.mark.parametrize("overlay", ["cluster", "on-demand", "simulation"])
def test_kustomize_itself_builds_the_overlays(tmp_path: Path, overlay: str) -> None:
    command = [str(KUBECTL), "kustomize", HERE / "overlays" / overlay]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"HOME": str(tmp_path), "PATH": ""}
    )
    assert (done.returncode, done.stderr) == (0, "")
    built = list(yaml.safe_load_all(done.stdout))
    assert {o["metadata"]["namespace"] for o in built} == {"uptier"}
    replicas = {
        o["metadata"]["name"]: o["spec"].get("replicas") for o in built if o["kind"] == "Deployment"
    }
    whose = (None, None) if overlay == "on-demand" else (2, 1)  # KEDA's to say
    assert any(o["kind"] == "Job" for o in built) == (overlay == "simulation")
    assert (replicas["tier1"], replicas["tier2"]) == whose
    settings = next(o for o in built if o["metadata"]["name"].startswith("uptier-settings-"))
    used = {
        each["configMapRef"]["name"]
        for o in built
        if o["kind"] in ("Deployment", "Job")
        for container in containers(o)
        for each in container.get("envFrom", [])
    }
    assert used == {settings["metadata"]["name"]}
