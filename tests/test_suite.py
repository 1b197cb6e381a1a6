import pkgutil
import re
from pathlib import Path

from tests.conftest import of_seconds

TESTS = Path(__file__).parent


def test_the_tests_that_are_said_to_take_seconds_are_there():
    """A test that was renamed would come back into the fast part without a word."""
    for name in of_seconds():
        path, test = name.split("::")
        if path.startswith("tests/"):
            assert re.search(rf"^def {test}\(", (TESTS.parent / path).read_text(), re.MULTILINE), name
        else:
            assert pkgutil.resolve_name(test).__doc__, name
