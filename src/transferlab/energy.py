"""What a fit takes from the grid: measured where a counter can be read, else estimated and said so.

E [kWh] = P [W] x t [s] / 3.6e6 x PUE, and CO2e = E x intensity (Strubell et al., 2019).
"""

import ctypes
import importlib
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Protocol

import torch

from transferlab.errors import UserError

WATTS = {"cpu": 4.0, "accelerator": 300.0}
"""Assumed where nothing is measured: of one busy CPU thread, and of one accelerator.

4 W a thread is what codecarbon assumes of a CPU that it does not know; 300 W is the board power of
a data-centre card such as the A100 with 40 GB.
"""
JOULES_PER_KWH = 3.6e6


class Meter(Protocol):
    """Counts the energy of what it watches, in joules that only grow.

    Attributes:
        name: what counts.
        measured: whether its joules come from a sensor alone.
    """

    name: str
    measured: bool

    def joules(self) -> float:
        """Return the count; differences of it count."""
        ...


def energy_record(
    seconds: float,
    joules: float | None,
    *,
    meter: tuple[str, bool] | None,
    watts: float,
    assumed: str,
    pue: float,
    carbon_intensity: float,
) -> dict[str, Any]:
    """Return the energy of a fit as run.json holds it.

    Args:
        seconds: it took.
        joules: that a meter counted over all of them, or None.
        meter: its name, and whether it measures.
        watts: assumed power, where no meter counted.
        assumed: where that power comes from.
        pue: power usage effectiveness, what the building takes for each unit of computing; >= 1.
        carbon_intensity: grams of CO2e a kWh.

    Returns:
        ``kwh``, ``co2e_kg``, ``how`` (``measured`` or ``estimated``), ``by``, mean ``watts``,
        ``pue`` and ``carbon_intensity``.
    """
    counted = joules is not None and meter is not None
    own = joules if joules is not None and counted else watts * seconds
    kwh = own * pue / JOULES_PER_KWH
    return {
        "kwh": kwh,
        "co2e_kg": kwh * carbon_intensity / 1000,
        "how": "measured" if counted and meter is not None and meter[1] else "estimated",
        "by": meter[0] if counted and meter is not None else assumed,
        "watts": own / seconds if seconds > 0 else watts,
        "pue": pue,
        "carbon_intensity": carbon_intensity,
    }


def assumed_power(device: str, processes: int, threads: int, watts: float | None) -> float:
    """Return the watts that all processes of a run are taken to need.

    Args:
        device: torch's type of it, such as ``cpu``.
        processes: each with a device.
        threads: of one process, which count on a CPU alone.
        watts: of one CPU thread or one accelerator; None takes ``WATTS``.
    """
    units = processes * (threads if device == "cpu" else 1)
    return units * (WATTS["cpu" if device == "cpu" else "accelerator"] if watts is None else watts)


def open_meter(how: str, device: torch.device) -> Meter | None:
    """Return what counts this process's energy, None where it can only be estimated.

    Args:
        how: ``trainer.energy``.
        device: that trains.

    Raises:
        UserError: codecarbon is asked for and is not there.
    """
    if how == "codecarbon":
        return CodeCarbon()
    if how == "estimate" and device.type == "cuda":
        return Nvml.open(device)
    return None


def require_meter(how: str) -> None:
    """Raise a UserError where ``trainer.energy`` asks for a package that is not there."""
    if how == "codecarbon" and find_spec("codecarbon") is None:
        raise UserError(
            "trainer.energy=codecarbon needs that package: pip install 'transferlab[energy]', "
            "or set trainer.energy=estimate."
        )


class Nvml:
    """The energy counter of one NVIDIA GPU (Volta and later), read through its driver's library.

    Args:
        library: NVML.
        handle: of the GPU in it.
    """

    name = "NVML's energy counter, the GPU alone"
    measured = True

    def __init__(self, library: Any, handle: Any) -> None:
        self._library, self._handle = library, handle

    @classmethod
    def open(cls, device: torch.device, library: Any = None) -> "Nvml | None":
        """Return the counter of a device, None where the driver or the GPU has none."""
        try:
            library = library or ctypes.CDLL("libnvidia-ml.so.1")
            uuid = str(torch.cuda.get_device_properties(device).uuid)
            uuid = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
            handle = ctypes.c_void_p()
            if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByUUID(
                uuid.encode(), ctypes.byref(handle)
            ):
                return None
            counter = cls(library, handle)
            counter.joules()
        except (OSError, AttributeError, RuntimeError, AssertionError):
            return None
        return counter

    def joules(self) -> float:
        """Return the joules since the driver was loaded."""
        millijoules = ctypes.c_ulonglong()
        if self._library.nvmlDeviceGetTotalEnergyConsumption(
            self._handle, ctypes.byref(millijoules)
        ):
            raise RuntimeError("NVML gives no energy count for this GPU")
        return millijoules.value / 1000


class CodeCarbon:
    """codecarbon's account of this process, without a network; it models what it can't read."""

    measured = False

    def __init__(self) -> None:
        require_meter("codecarbon")
        self.name = f"codecarbon {version('codecarbon')}"
        tracker: Any = importlib.import_module("codecarbon").OfflineEmissionsTracker
        self._tracker = tracker(
            country_iso_code="USA",  # asked for, and without effect: its emissions are not used
            save_to_file=False, tracking_mode="process", allow_multiple_runs=True,
            measure_power_secs=15, log_level="critical",
        )  # fmt: skip
        self._kwh, self._part = 0.0, 0
        self._tracker.start_task("0")

    def joules(self) -> float:
        """Return the joules since it was made."""
        self._kwh += float(self._tracker.stop_task(str(self._part)).energy_consumed)
        self._part += 1
        self._tracker.start_task(str(self._part))
        return self._kwh * JOULES_PER_KWH
