"""Steps after the first find their memory where the last one left it."""

import os
import subprocess
import sys

import pytest

STEPS = """
import resource, sys
import torch
from transferlab.processor import keep_freed_memory

kept = keep_freed_memory() if sys.argv[1] == "kept" else None
faults = []
for _ in range(12):
    values = [torch.ones(2**21) for _ in range(8)]  # 8 MiB each
    del values
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(kept, faults[-1] - faults[1], peak)
"""


def steps(how: str, **variables: str) -> tuple[str, int, int]:
    """Whether memory is kept, page faults of ten steps, and the peak in KiB."""
    line = [sys.executable, "-c", STEPS, how]
    made = subprocess.run(
        line, capture_output=True, text=True, check=True, env={**os.environ, **variables}
    )
    kept, faults, peak = made.stdout.split()
    return kept, int(faults), int(peak)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux and glibc alone")
def test_freed_memory_is_used_again() -> None:
    kept, few, peak = steps("kept")
    if kept == "False":
        pytest.skip("this system's allocator is not glibc's")
    _, many, usual = steps("given back")
    assert many > 10 * 8 * 2**23 / 2**21, "at least one for each huge page"
    assert few < many / 20
    assert peak < usual + 2**17, "no more than 128 MiB above"


def test_settings_of_the_user_stay() -> None:
    assert steps("kept", MALLOC_TRIM_THRESHOLD_="100000")[0] == "False"
