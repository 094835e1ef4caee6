import pytest
import ray
import torch

from cluster.resources.device import inference_device


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that the machine has GPUs, and that no variable of Ray or CUDA is set."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("CUDA_VISIBLE_DEVICES", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)


def test_without_gpus_it_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert inference_device().type == "cpu"


def test_a_process_that_a_user_started_takes_a_gpu(gpus):
    assert inference_device().type == "cuda"


@pytest.mark.parametrize(("visible", "device"), [(None, "cpu"), ("", "cpu"), ("3", "cuda")])
def test_a_submitted_job_takes_only_a_gpu_that_was_reserved_for_it(gpus, monkeypatch, caplog, visible, device):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert inference_device().type == device
    assert ("submit the job with --num-gpus 1" in caplog.text) == (device == "cpu")


def _device_of_a_task():
    torch.cuda.is_available = lambda: True
    return inference_device().type


@pytest.mark.cluster
def test_a_task_takes_only_a_gpu_that_ray_reserved_for_it(session):
    assert ray.get(ray.remote(_device_of_a_task).options(num_cpus=0).remote()) == "cpu"
