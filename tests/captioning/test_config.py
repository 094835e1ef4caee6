import math

import pytest

from captioning.config import ModelConfig, OptimizerConfig, TrainingConfig
from tests.support.case_table import each_case

FRACTION_OF_UNITS = "is not a fraction of the units; use a value from 0 to below 1"
POSITIVE = "is not positive and finite; use a number above 0"
NOT_NEGATIVE = "is negative or not finite; use 0 or more"


@each_case(
    ("config", "name", "value", "message"),
    [
        (ModelConfig, "image_size_px", 0, f"image_size_px 0 {POSITIVE}"),
        (ModelConfig, "embedding_size", -1, f"embedding_size -1 {POSITIVE}"),
        (ModelConfig, "hidden_size", 0, f"hidden_size 0 {POSITIVE}"),
        (ModelConfig, "image_size_px", 1025, "image_size_px 1025 is too large; use at most 1024"),
        (ModelConfig, "embedding_size", 10**6, "embedding_size 1000000 is too large; use at most 16384"),
        (ModelConfig, "hidden_size", 10**6, "hidden_size 1000000 is too large; use at most 16384"),
        (TrainingConfig, "max_caption_words", 10**9, "max_caption_words 1000000000 is too large; use at most 1000"),
        (ModelConfig, "dropout", 1.0, f"dropout 1.0 {FRACTION_OF_UNITS}"),
        (ModelConfig, "dropout", -0.1, f"dropout -0.1 {FRACTION_OF_UNITS}"),
        (ModelConfig, "dropout", math.nan, f"dropout nan {FRACTION_OF_UNITS}"),
        (OptimizerConfig, "learning_rate", 0.0, f"learning_rate 0.0 {POSITIVE}"),
        (
            OptimizerConfig,
            "learning_rate",
            math.nan,
            f"learning_rate nan {POSITIVE}",
        ),  # nan compares as neither positive nor negative
        (OptimizerConfig, "learning_rate", math.inf, f"learning_rate inf {POSITIVE}"),
        (OptimizerConfig, "max_gradient_norm", 0.0, f"max_gradient_norm 0.0 {POSITIVE}"),
        (OptimizerConfig, "warmup_steps", -1, f"warmup_steps -1 {NOT_NEGATIVE}"),
        (OptimizerConfig, "weight_decay", -0.1, f"weight_decay -0.1 {NOT_NEGATIVE}"),
        (OptimizerConfig, "weight_decay", math.nan, f"weight_decay nan {NOT_NEGATIVE}"),
        (OptimizerConfig, "encoder_learning_rate_factor", -1, f"encoder_learning_rate_factor -1 {NOT_NEGATIVE}"),
        (OptimizerConfig, "final_factor", 1.5, "final_factor 1.5 is not a fraction of the learning rate; use 0 to 1"),
        (TrainingConfig, "num_epochs", 0.0, f"num_epochs 0.0 {POSITIVE}"),
        (TrainingConfig, "num_epochs", math.inf, f"num_epochs inf {POSITIVE}"),
        (TrainingConfig, "batch_size", 0, f"batch_size 0 {POSITIVE}"),
        (TrainingConfig, "accumulation", 0, f"accumulation 0 {POSITIVE}"),
        (TrainingConfig, "max_caption_words", 0, f"max_caption_words 0 {POSITIVE}"),
        (TrainingConfig, "shuffle_window_shards", 0, f"shuffle_window_shards 0 {POSITIVE}"),
        (TrainingConfig, "keep_last", 0, f"keep_last 0 {POSITIVE}"),  # a run resumes from its latest checkpoint
        (TrainingConfig, "keep_best", -1, f"keep_best -1 {NOT_NEGATIVE}"),
        (TrainingConfig, "checkpoint_every_steps", -1, f"checkpoint_every_steps -1 {NOT_NEGATIVE}"),
        (TrainingConfig, "crop_area", 0.0, "crop_area 0.0 is not a fraction of an image; use a value above 0, up to 1"),
        (TrainingConfig, "crop_area", 1.1, "crop_area 1.1 is not a fraction of an image"),
        (
            TrainingConfig,
            "label_smoothing",
            1.0,
            "label_smoothing 1.0 is not a fraction; use a value from 0 to below 1",
        ),
    ],
)
def test_a_value_out_of_bounds_is_refused(config, name, value, message):
    with pytest.raises(ValueError, match=message):
        config(**{name: value})


def test_all_values_out_of_bounds_are_named():
    with pytest.raises(ValueError, match=r"^learning_rate 0 is .*\nweight_decay -1 is .*\nfinal_factor 2 is .*$"):
        OptimizerConfig(learning_rate=0, weight_decay=-1, final_factor=2)


@each_case(
    ("config", "values"),
    [
        (ModelConfig, {"dropout": 0.0, "image_size_px": 1, "embedding_size": 1, "hidden_size": 1}),
        (ModelConfig, {"image_size_px": 1024, "embedding_size": 16_384, "hidden_size": 16_384}),
        (TrainingConfig, {"max_caption_words": 1000}),
        (OptimizerConfig, {"warmup_steps": 0, "weight_decay": 0.0, "encoder_learning_rate_factor": 0.0}),
        (OptimizerConfig, {"final_factor": 0.0}),
        (OptimizerConfig, {"final_factor": 1.0}),
        (TrainingConfig, {"crop_area": 1.0, "label_smoothing": 0.0, "keep_best": 0, "checkpoint_every_steps": 0}),
        (TrainingConfig, {"num_epochs": 0.1, "batch_size": 1, "accumulation": 1}),
    ],
)
def test_a_value_at_its_bound_is_taken(config, values):
    made = config(**values)
    assert {name: getattr(made, name) for name in values} == values
