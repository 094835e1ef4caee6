"""Environment variables that Ray reads when it is imported; imports nothing of Ray."""

import os

GROUP_START_SECONDS = 30.0
"""That Ray waits for room for a group of workers before it looks again how many there is room for."""

# Authentication is switched on by a stray token file unless it is named.
_DEFAULTS = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": f"{GROUP_START_SECONDS:g}",
}


def set_ray_defaults() -> None:
    """Set what the user has not set; call it before Ray is imported."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
