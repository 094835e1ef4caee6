"""Device for evaluation and captioning: inside Ray, only a GPU that Ray reserved for this process."""

import logging
import os
import sys

import torch

logger = logging.getLogger(__name__)

_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray in the process of a submitted job


def inference_device() -> torch.device:
    """Return a GPU if this process may use one, else the CPU.

    A task or actor, and a submitted job, may use only GPUs that Ray reserved for it: others train on the rest. A
    process that a user started by hand uses the first visible GPU.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if _is_reserved():
        return torch.device("cuda")
    logger.warning("no GPU is reserved for this process, so it computes on CPUs; submit the job with --num-gpus 1")
    return torch.device("cpu")


def _is_reserved() -> bool:
    ray = sys.modules.get("ray")  # a process that has not imported Ray is no task of it
    if ray and ray.is_initialized() and ray.get_runtime_context().worker.mode == ray.WORKER_MODE:
        return bool(ray.get_gpu_ids())
    return _JOB not in os.environ or bool(os.environ.get("CUDA_VISIBLE_DEVICES"))
