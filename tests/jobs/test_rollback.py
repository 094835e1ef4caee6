from tests.support.registered_versions import alias_of, make_champion


def test_a_rollback_is_on_record(registry_job, registry_client, name):
    make_champion(name, registry_client, "2")
    code, document, told = registry_job("rollback", name, "--reason", "it is worse at night")
    changes = registry_job("history", name)[1]["changes"]
    assert (code, alias_of(name, registry_client), document["change"]) == (0, "1", changes[-1])
    assert [(one["over"], one["version"], one["kind"], one["reason"]) for one in changes[-1:]] == [
        ("2", "1", "rolled back", "it is worse at night"),
    ]
    assert f"{name} version 1 is the champion again (replacing version 2)" in told


def test_a_dry_rollback_changes_nothing(registry_job, registry_client, name):
    make_champion(name, registry_client, "2")
    registry_job("rollback", name, "--dry-run")
    assert alias_of(name, registry_client) == "2"
