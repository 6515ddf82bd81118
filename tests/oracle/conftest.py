"""The tracepoints' formats, for those who need them: mounted and unmounted as in the stories."""

from tests.contract.conftest import tracefs

__all__ = ["tracefs"]
