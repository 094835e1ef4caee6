"""Environment of a process before it imports Ray, MLflow or torch; this module imports none of them."""

import gc
import os

NAMESPACE = "captioning"
"""Ray namespace that holds the coordinators' actor names."""

GROUP_START_SECONDS = 30.0
"""Time, in seconds, that Ray waits for a worker group to start before it counts again how many workers fit."""

_DEFAULTS = {
    # Without this, Ray switches authentication on as soon as it finds a token file.
    "RAY_AUTH_MODE": "disabled",
    # Neither Ray nor MLflow reports how it is used, unless the user turns it on.
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A call after the end of a session is an error; Ray would start a cluster for it.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Ray would start an idle process for each CPU with the first driver; this project's actors start their own.
    "RAY_prestart_worker_first_driver": "0",
    # Switches off the parts of Ray Tune that a search does not use; the docstring of ``cluster.search`` says why.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": f"{GROUP_START_SECONDS:g}",
    # MLflow's own messages and progress bars would mix with this project's log lines.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # With MLflow's own 7 retries of 120 s each, a user waits for minutes without a line. These take 15 s if the tracker
    # answers with errors, and 2 minutes if it does not answer at all.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


def set_library_defaults() -> None:
    """Set each variable that the user has not set; call this before importing Ray."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)


def collect_garbage_rarely() -> None:
    """Look for garbage less often than Python does by default, which takes a sixth of the time that imports take."""
    gc.set_threshold(50_000, 20, 20)
