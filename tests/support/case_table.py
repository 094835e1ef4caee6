"""Many values, one test: what pytest does around a test takes longer than to ask a function of plain values."""

import functools
import inspect


def each_case(names, cases):
    """Call a test for each case, as ``pytest.mark.parametrize`` does, but as one test; a failure names its case.

    Only for tests that leave nothing behind, for the cases share their fixtures.

    Args:
        names: the test's arguments, as for ``pytest.mark.parametrize``.
        cases: their values.
    """
    keys = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    table = [dict(zip(keys, case if len(keys) > 1 else [case], strict=True)) for case in cases]
    if not table:
        raise ValueError("there is no case")

    def decorate(test):
        @functools.wraps(test)
        def call_each(**fixtures):
            for case in table:
                try:
                    test(**case, **fixtures)
                except BaseException as error:
                    error.add_note("".join(f"\n  {name} = {value!r}" for name, value in case.items()))
                    raise

        parameters = inspect.signature(test).parameters.values()
        call_each.__signature__ = inspect.Signature([one for one in parameters if one.name not in keys])
        return call_each

    return decorate
