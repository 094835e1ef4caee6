import os

import pytest
from ray.train import RunConfig, ScalingConfig
from ray.train.torch.config import TorchConfig, TorchConfigContextManager
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution import controller
from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy, ResizeDecision
from ray.train.v2._internal.execution.scaling_policy.factory import create_scaling_policy
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from cluster.training.group_trainer import GroupTrainer, ProcessGroupConfig, TrainController


@pytest.fixture
def trainer(tmp_path):
    return GroupTrainer(
        print,
        backend_config=ProcessGroupConfig("gloo"),
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(storage_path=str(tmp_path)),
    )


def test_the_helpers_of_ray_data_and_of_placement_groups_are_left_out_and_no_others(trainer):
    kinds = [type(callback) for callback in trainer._create_default_callbacks()]
    of_ray = [type(callback) for callback in DataParallelTrainer._create_default_callbacks(trainer)]
    assert kinds == [kind for kind in of_ray if kind not in (DatasetsCallback, PlacementGroupCleanerCallback)]
    assert len(kinds) == len(of_ray) - 2


@pytest.mark.parametrize("num_workers", [2, (1, 2)])
def test_only_a_group_that_may_be_resized_needs_the_actor_that_shares_out_resources(trainer, num_workers, monkeypatch):
    given = {}
    monkeypatch.setattr("cluster.training.group_trainer._run_controller", given.update)
    trainer._initialize_and_run_controller(scaling_policy=create_scaling_policy(ScalingConfig(num_workers=num_workers)))
    policy = given["scaling_policy"]
    if num_workers == (1, 2):
        assert type(policy) is ElasticScalingPolicy
        return
    policy.after_controller_start(None)  # without a session of Ray, each of these fails if it calls the actor
    assert policy.make_decision_for_non_running_worker_group() == ResizeDecision(2, {"CPU": 1})
    policy.before_controller_abort()


def test_the_process_group_is_that_of_rays_own_settings_of_torch():
    ours, of_ray = ProcessGroupConfig("gloo"), TorchConfig("gloo")
    assert ours.backend_cls.share_cuda_visible_devices == of_ray.backend_cls.share_cuda_visible_devices
    assert isinstance(ours.train_func_context(), TorchConfigContextManager)


def test_workers_need_a_runtime_environment_for_variables_that_they_read_alone(monkeypatch):
    of_workers = TrainController.worker_group_cls._get_worker_runtime_env
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    assert of_workers({}) == {}
    monkeypatch.setenv("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    assert of_workers({"pip": []}) == {"pip": [], "env_vars": {"RAY_TRAIN_ENABLE_PRINT_PATCH": "0"}}


def test_the_controller_knows_its_variables_before_it_reads_them(monkeypatch):
    read = []
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "2")
    monkeypatch.setattr(
        controller.TrainController,
        "__init__",
        lambda self, **arguments: read.append((os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"], arguments)),
    )
    TrainController({"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5"}, callbacks=[])
    assert read == [("0.5", {"callbacks": []})]
