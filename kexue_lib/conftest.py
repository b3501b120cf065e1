"""What several test files need."""

import hypothesis
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

# A machine that is busy is no failure.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")


@pytest.fixture
def shown():
    """Call a function as a notebook would and return the MIME bundles it displayed."""
    InteractiveShell.instance()

    def run(function, *arguments, **keywords):
        with capture_output() as captured:
            function(*arguments, **keywords)
        return [output.data for output in captured.outputs]

    yield run
    InteractiveShell.clear_instance()
