def test_models_are_listed_with_the_scores_that_the_gate_found(registry_job, name):
    registry_job("promote", name)
    newest, oldest = registry_job("models", name)[1]
    assert (newest["version"], newest["aliases"], newest["changes"]) == ("2", ["challenger", "champion"], [2])
    assert newest["scores"]["val"]["scores"]["CIDEr-D"] > oldest["scores"]["val"]["scores"]["CIDEr-D"]


def test_the_history_is_not_listed_as_a_model(registry_job, name):
    assert f"{name}.history" not in {one["name"] for one in registry_job("models")[1]}
