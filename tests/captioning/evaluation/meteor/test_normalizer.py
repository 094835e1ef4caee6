from captioning.evaluation.meteor.normalizer import normalize
from tests.support.case_table import each_case

ABBREVIATIONS = {"vs": False, "pp": True}


@each_case(
    ("caption", "words"),
    [
        ("a dog", "a dog"),
        ("a man 's t-shirt", "a man ' s t shirt"),
        ("a man's", "a man 's"),
        ("do n't", "do n 't"),
        ("rock 'n' roll", "rock ' n ' roll"),
        ("a'b'c", "a 'b'c"),  # the letters around an apostrophe are looked at once
        ("port-a-potty", "port a-potty"),  # likewise those around a hyphen
        ("a -b b- - c--d a---b", "a -b b- - c d a--b"),
        ("the 1980's 5' 1'a", "the 1980 's 5 ' 1'a"),
        ("3/4 of 50% & $5_", "3 / 4 of 50 % & $ 5 _"),
        ("1,000 a,b 1,b", "1,000 a , b 1 , b"),
        ("``a'' \u201cb\u201d `c\u2019", '" a " " b " \' c \''),
        ("u.s. x.y 1.5 9.", "us x.y 1.5 9 ."),
        ("st. mary st.", "st. mary st ."),
        ("red vs. 5 pp. 5 pp. Red", "red vs. 5 pp. 5 pp . Red"),
        ("wait ... a..b .", "wait ... a .. b ."),
        ("", ""),
    ],
)
def test_words_split_as_meteor_splits_them(caption, words):
    assert normalize(caption, ABBREVIATIONS) == words.split()
