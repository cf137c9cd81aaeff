"""Gives Kubernetes objects one spelling, cluster, namespace, kind and name, without asking a cluster."""

from __future__ import annotations

import re

from interlock.adapters.names import require_ascii, unique
from interlock.core.errors import Invalid
from interlock.core.model import JsonObject
from interlock.core.plan import Target

CURRENT = "current"
"""The cluster of the operator's kubeconfig when nobody names one."""

KINDS: dict[str, tuple[str, ...]] = {
    "pod": ("pods", "po"),
    "deployment": ("deployments", "deploy"),
    "statefulset": ("statefulsets", "sts"),
    "daemonset": ("daemonsets", "ds"),
    "replicaset": ("replicasets", "rs"),
    "replicationcontroller": ("replicationcontrollers", "rc"),
    "job": ("jobs",),
    "cronjob": ("cronjobs", "cj"),
    "service": ("services", "svc"),
    "ingress": ("ingresses", "ing"),
    "configmap": ("configmaps", "cm"),
    "secret": ("secrets",),
    "namespace": ("namespaces", "ns"),
    "node": ("nodes", "no"),
    "persistentvolume": ("persistentvolumes", "pv"),
    "persistentvolumeclaim": ("persistentvolumeclaims", "pvc"),
    "storageclass": ("storageclasses", "sc"),
    "serviceaccount": ("serviceaccounts", "sa"),
    "networkpolicy": ("networkpolicies", "netpol"),
    "horizontalpodautoscaler": ("horizontalpodautoscalers", "hpa"),
    "poddisruptionbudget": ("poddisruptionbudgets", "pdb"),
    "customresourcedefinition": ("customresourcedefinitions", "crd", "crds"),
    "role": ("roles",),
    "rolebinding": ("rolebindings",),
    "clusterrole": ("clusterroles",),
    "clusterrolebinding": ("clusterrolebindings",),
}
"""Kind -> its plural and short names, as `kubectl api-resources` lists them."""

CLUSTER_WIDE = frozenset(
    {
        *("namespace", "node", "persistentvolume", "storageclass", "customresourcedefinition"),
        *("clusterrole", "clusterrolebinding"),
    }
)
WORKLOADS = ("deployment", "statefulset", "daemonset", "replicaset")
BY_SPELLING = {spelling: kind for kind, others in KINDS.items() for spelling in (kind, *others)}

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.:-]{0,251}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_CONTEXT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/-]{0,252}")
_REFERENCE = re.compile(r"(?:[a-z][a-z0-9-]{0,62}(?:\.[a-z0-9.-]{1,200})?/)?[a-z0-9](?:[a-z0-9.:-]{0,251}[a-z0-9])?")


class KubernetesTargets:
    """Objects of the operator's clusters.

    Args:
        context: The kubeconfig context that commands reach when they name none.
        namespace: The namespace of that context.

    Context keys: `context`, `namespace`, `kind` (of a bare name).
    """

    kinds: tuple[str, ...] = (
        "kubernetes",
        "workload",
        "cluster",
        "helm-release",
        *(kind for kind in KINDS if kind != "service"),
    )

    def __init__(self, *, context: str = CURRENT, namespace: str = "default") -> None:
        self._context = context
        self._namespace = namespace

    def resolve(self, kind: str, name: str, context: JsonObject) -> tuple[Target, ...]:
        """One target, `deployment:CONTEXT/NAMESPACE/NAME`. `kubernetes` and `workload` take `deploy/web` and `web`.

        A bare name without a kind may be any of those it could be, and is protected as each of them.

        Raises: Invalid.
        """
        cluster = _part(context, "context", self._context, _CONTEXT)
        namespace = _part(context, "namespace", self._namespace, _NAMESPACE)
        if kind == "cluster":
            require_ascii(kind, name, _CONTEXT)
            identity = cluster if name == CURRENT else name
            return (Target(kind="cluster", id=identity, names=unique([name], besides=identity)),)
        require_ascii(kind, name, _REFERENCE)
        spelled, slash, rest = name.rpartition("/")
        if kind not in {"kubernetes", "workload"} and not slash:
            return (_object(kind, cluster, namespace, name),)
        spelled = spelled or _part(context, "kind", "", _REFERENCE)
        if spelled:
            return (_object(_kind_of(spelled), cluster, namespace, rest),)
        possible = WORKLOADS if kind == "workload" else tuple(KINDS)
        names = (alias for each in possible for alias in _aliases(each, cluster, namespace, name))
        return (Target(kind=kind, id=f"{cluster}/{namespace}/{name}", names=unique((name, *names))),)

    def pulled_along(self, target: Target, operation: str, context: JsonObject) -> tuple[Target, ...]:  # noqa: ARG002
        """Nothing that a name could tell, and where that is not enough a refusal.

        Raises: Invalid for removing a namespace, node or definition, or draining a node: what lies in it is unknown.
        """
        verb = operation.rpartition(".")[2]
        if target.kind in CLUSTER_WIDE and verb in {"delete", "remove", "drain"}:
            msg = f"what {operation} of {target.kind} {target.id} takes with it is known to the cluster alone"
            raise Invalid(msg, code="kubernetes.too_wide", fix="name the workloads in it one by one")
        return ()


def _object(kind: str, cluster: str, namespace: str, name: str) -> Target:
    identity = f"{cluster}/{name}" if kind in CLUSTER_WIDE else f"{cluster}/{namespace}/{name}"
    return Target(
        kind=kind, id=identity, names=unique((name, *_aliases(kind, cluster, namespace, name)), besides=identity)
    )


def _aliases(kind: str, cluster: str, namespace: str, name: str) -> tuple[str, ...]:
    """As people write it in a list: the name, with its namespace, with its cluster, and the namespace itself."""
    if kind in CLUSTER_WIDE:
        return (f"{kind}:{name}", f"{kind}:{cluster}/{name}", f"cluster:{cluster}")
    return (
        f"{kind}:{name}",
        f"{kind}:{namespace}/{name}",
        f"{kind}:{cluster}/{namespace}/{name}",
        f"namespace:{namespace}",
        f"namespace:{cluster}/{namespace}",
        f"cluster:{cluster}",
    )


def _kind_of(spelled: str) -> str:
    """`deploy`, `deployments.apps` and `deployment.v1.apps` are one kind; one that is not known stays as it is."""
    bare = spelled.partition(".")[0]
    return BY_SPELLING.get(bare, bare[:32])


def _part(context: JsonObject, key: str, default: str, pattern: re.Pattern[str]) -> str:
    found = context.get(key) or default
    if not isinstance(found, str) or (found and not pattern.fullmatch(found)):
        msg = f"{found!a} is not a {key} of Kubernetes"
        raise Invalid(msg, code="target.name", fix="check the name")
    return found
