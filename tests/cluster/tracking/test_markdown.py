from cluster.tracking.markdown import escaped
from tests.support.case_table import each_case


@each_case(
    ("text", "shown"),
    [
        ("a red circle", "a red circle"),
        ("squeezenet1_1", r"squeezenet1\_1"),
        ("<img src=x onerror=alert(1)>", r"\<img src=x onerror=alert(1)>"),
        ("[a](javascript:b)", r"\[a\](javascript:b)"),
        ("**b** `c` | ~~d~~ &lt;", r"\*\*b\*\* \`c\` \| \~\~d\~\~ \&lt;"),
        ("# a\n- b", r"\# a - b"),
        ("\x1b[31m", r"\\x1b\[31m"),
        (5, "5"),
    ],
)
def test_markup_is_shown_as_it_is(text, shown):
    assert escaped(text) == shown
