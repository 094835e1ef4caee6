def test_the_history_is_a_table(registry_job, captioning, name):
    registry_job("promote", name)
    _, _, table = captioning("history", name)
    assert ("none -> 1" in table, "1 -> 2" in table, "champion is version 2" in table) == (True, True, True)


def test_a_history_tells_of_a_champion_that_is_gone(registry_job, registry_client, name):
    registry_client.delete_model_version(name, "1")
    code, document, complaint = registry_job("history", name)
    assert (code, document["champion"], "was deleted from the registry" in complaint) == (0, "1", True)
