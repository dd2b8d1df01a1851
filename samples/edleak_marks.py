"""A pytest plugin: repeats each test, and marks each repetition for edleak.

    test-gate.sh python3 -m pytest -p edleak_marks tests/

The marks of a test have the name `iteration NODE_ID`, so the report names the test that leaves memory behind.
A recording has room for 256 names. If there are more tests, run them in several processes. Without a
recording, each test runs once.
"""

import ctypes
import gc
import os

import pytest


def _set_mark():
    try:
        return ctypes.CDLL(None).edleak_set_mark
    except AttributeError:
        return None


_MARK = _set_mark()
_ITERATIONS = int(os.environ.get("EDLEAK_ITERATIONS", "30"))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if _MARK is None:
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    name = ("iteration " + pyfuncitem.nodeid.replace("/", ".")).encode()
    for _ in range(_ITERATIONS):
        gc.collect()
        _MARK(name)
        pyfuncitem.obj(**arguments)
    gc.collect()
    _MARK(name)
    return True
