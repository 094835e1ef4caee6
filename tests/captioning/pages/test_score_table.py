from captioning.pages.score_table import score_rows


def test_a_score_has_its_interval_and_a_place_on_the_bar():
    [first, second] = score_rows({"BLEU-4": 0.25, "CIDEr-D": 1.0}, {"CIDEr-D": (0.5, 2.0)})
    assert (first["value"], first["interval"], first["at"], first["bar"]) == ("0.250", "", 25.0, None)
    assert (second["interval"], second["at"], second["bar"]) == ("0.500 to 2.000", 50.0, (25.0, 75.0))


def test_the_rival_is_on_the_same_scale():
    [row] = score_rows({"CIDEr-D": 1.0}, {}, {"CIDEr-D": 4.0})
    assert (row["rival"], row["at"], row["rival_at"]) == ("4.000", 25.0, 100.0)
    [row] = score_rows({"CIDEr-D": 1.0}, {}, {"BLEU-4": 4.0})
    assert (row["rival"], row["rival_at"]) == ("", None)
