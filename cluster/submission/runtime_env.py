"""Runtime environment of a submitted job: what it needs besides its code, without secrets, as everyone can read it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.yaml_file import read_mapping
from shards.storage.location import without_credentials

FORWARDED = ("CAPTIONING_HOME", "CAPTIONING_LOG_LEVEL", "MLFLOW_TRACKING_URI")
"""Environment variables that are passed on to every job if they are set here."""
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|KEY|_PWD|(^|_)PASS(_|$)|AUTH(?!OR|_MODE)", re.IGNORECASE)
_RUNTIME_ENV_KEYS = ("pip", "uv", "conda", "env_vars", "image_uri", "config")


def forwarded_variables(names: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables to pass on to a job.

    Args:
        names: variables to pass on besides ``FORWARDED``.
        environment: environment of this process.

    Raises:
        ValueError: a name looks like a secret's, or the variable is not set.
    """
    refuse_secrets(dict.fromkeys(names))
    missing = [name for name in names if name not in environment]
    if missing:
        raise ValueError(f"--env {missing[0]}: the variable is not set here; set it, or leave it out")
    return {name: environment[name] for name in (*FORWARDED, *names) if name in environment}


def read_runtime_env(file: Path) -> dict[str, Any]:
    """Read a runtime environment: what a job's processes need besides the image installed on the nodes.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not YAML, or does not hold a runtime environment.
    """
    known = ", ".join(_RUNTIME_ENV_KEYS)
    content = read_mapping(file, f"--runtime-env {file}", contents=f"write some of {known}, each with its value")
    if unknown := [key for key in content if key not in _RUNTIME_ENV_KEYS]:
        why = "the code comes from --working-dir" if unknown[0] in ("working_dir", "py_modules") else f"use {known}"
        raise ValueError(f"--runtime-env {file}: {unknown[0]} cannot be set; {why}")
    if len(managers := [key for key in ("pip", "uv", "conda") if key in content]) > 1:
        raise ValueError(
            f"--runtime-env {file} holds {' and '.join(managers)}, and Ray accepts only one; leave out the others"
        )
    content |= {name: _local_requirements(content[name], name) for name in ("pip", "uv", "conda") if name in content}
    variables = content.get("env_vars", {})
    if not isinstance(variables, dict) or not all(isinstance(value, str) for value in variables.values()):
        raise ValueError(
            f"--runtime-env {file}: the values of env_vars must be text, such as A: '1'; put them in quotes"
        )
    return content


def _local_requirements(value: Any, manager: str) -> Any:  # noqa: ANN401  any value of a runtime environment
    """Return the content of a file of requirements on this machine, which Ray would send; any other value unchanged."""
    if isinstance(value, dict) and isinstance(value.get("packages"), str):
        return value | {"packages": _local_requirements(value["packages"], manager)}
    if not isinstance(value, str) or not Path(value).is_file():
        return value
    if manager == "conda":
        return read_mapping(Path(value), f"the conda environment {value}")
    return Path(value).read_text(encoding="utf-8").strip().split("\n")


def refuse_secrets(content: Any, name: str = "") -> None:  # noqa: ANN401  any part of a runtime environment
    """Refuse names that look like a secret's, and texts with credentials, wherever they are in a runtime environment.

    Args:
        content: a runtime environment, or a part of it.
        name: dotted name of the part.

    Raises:
        ValueError: something looks like a secret.
    """
    if isinstance(content, Mapping):
        for key, value in content.items():
            refuse_secrets(f"{key}", name)
            inner = f"{name}.{key}" if name else f"{key}"
            if _SECRET.search(f"{key}") and not isinstance(value, Mapping):
                raise _secret(inner)
            refuse_secrets(value, inner)
    elif isinstance(content, list | tuple):
        for value in content:
            refuse_secrets(value, name)
    elif isinstance(content, str) and without_credentials(content) != content:
        raise _secret(name)


def _secret(name: str) -> ValueError:
    return ValueError(
        f"{name} looks like a secret, which everyone could read in the job's metadata; "
        "set it in the environment or the configuration files of the cluster's nodes"
    )
