"""JSON schemas of the fields of KubeRay's objects that this project writes, from the API reference of ray.io/v1.

Source: https://ray-project.github.io/kuberay/reference/api/. They are written by hand, because no package on PyPI
contains KubeRay's definitions. A pod's template is checked by Kubernetes' own schema instead.
"""


def _fields(required, **properties):
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


TEXT, FLAG, COUNT, POSITIVE = (
    {"type": "string"},
    {"type": "boolean"},
    {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
    {"type": "integer", "minimum": 1, "maximum": 2**31 - 1},
)
TEXTS = {"type": "object", "additionalProperties": TEXT}
NAME = {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 47}
TEMPLATE = {"type": "object", "required": ["spec"]}
CLUSTER_SPEC = _fields(
    ["headGroupSpec"],
    rayVersion=TEXT,
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=_fields(
        [], idleTimeoutSeconds=COUNT, upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]}
    ),
    headGroupSpec=_fields(["rayStartParams", "template"], rayStartParams=TEXTS, template=TEMPLATE),
    workerGroupSpecs={
        "type": "array",
        "items": _fields(
            ["groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"],
            groupName=TEXT,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            rayStartParams=TEXTS,
            template=TEMPLATE,
        ),
    },
)
JOB_SPEC = _fields(
    ["rayClusterSpec"],
    entrypoint=TEXT,
    backoffLimit=COUNT,
    activeDeadlineSeconds=POSITIVE,
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    rayClusterSpec=CLUSTER_SPEC,
)


def schema_of(kind):
    """Return the JSON schema of a RayCluster or a RayJob."""
    return _fields(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=_fields(["name"], name=NAME),
        spec={"RayCluster": CLUSTER_SPEC, "RayJob": JOB_SPEC}[kind],
    )
