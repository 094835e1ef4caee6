"""Environment variables that Ray and MLflow read when they are imported; this module imports neither."""

import os

NAMESPACE = "captioning"
"""Ray's namespace of the coordinators' names."""

GROUP_START_SECONDS = 30.0
"""Time that Ray waits for a group of workers to start before it asks again how many fit."""

# Authentication is switched on by a stray token file unless it is named.
_DEFAULTS = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Switches off what a search does not use of Ray Tune; ``cluster.search`` says why.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": f"{GROUP_START_SECONDS:g}",
    # Lines and bars of MLflow's own between ours.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def set_library_defaults() -> None:
    """Set the variables that the user has not set; call this before Ray is imported."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
