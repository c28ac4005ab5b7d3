"""Energy in closed form, from a meter where there is one."""

import ctypes
import importlib.util
from typing import Any

import pytest
import torch

from transferlab import energy
from transferlab.callbacks import cost
from transferlab.callbacks.cost import Cost
from transferlab.energy import Nvml, assumed_power, energy_record, open_meter
from transferlab.errors import UserError


def test_an_estimate_is_watts_times_time_times_the_buildings_share() -> None:
    found = energy_record(
        7200.0, None, meter=None, watts=250.0, assumed="250 W assumed", pue=1.2,
        carbon_intensity=400.0,
    )  # fmt: skip
    assert found["kwh"] == pytest.approx(0.25 * 2 * 1.2)
    assert found["co2e_kg"] == pytest.approx(0.6 * 0.4)
    assert (found["how"], found["by"], found["watts"]) == ("estimated", "250 W assumed", 250.0)


def test_a_meters_joules_take_the_place_of_assumed_watts() -> None:
    found = energy_record(
        10.0, 3.6e6, meter=("a counter", True), watts=1.0, assumed="1 W", pue=1.0,
        carbon_intensity=1000.0,
    )  # fmt: skip
    assert (found["kwh"], found["co2e_kg"], found["how"]) == (1.0, 1.0, "measured")
    assert found["watts"] == pytest.approx(3.6e5)
    modelled = energy_record(
        10.0, 3.6e6, meter=("a model", False), watts=1.0, assumed="1 W", pue=1.0,
        carbon_intensity=1000.0,
    )  # fmt: skip
    assert (modelled["how"], modelled["by"]) == ("estimated", "a model")


def test_no_time_takes_no_energy() -> None:
    found = energy_record(0.0, None, meter=None, watts=8.0, assumed="", pue=1.5, carbon_intensity=1)
    assert (found["kwh"], found["watts"]) == (0.0, 8.0)


def test_threads_count_on_a_cpu_and_devices_elsewhere() -> None:
    assert assumed_power("cpu", 2, 3, None) == 2 * 3 * 4.0
    assert assumed_power("cuda", 2, 16, None) == 2 * 300.0
    assert assumed_power("cpu", 2, 3, 10.0) == 60.0
    assert assumed_power("mps", 1, 8, 15.0) == 15.0


class Clock:
    """Seconds that pass only when told to."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


class Stub:
    """A meter of a device that draws 50 W by the clock."""

    name, measured = "a stub", True

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def joules(self) -> float:
        return 50.0 * self.clock.now


def test_a_fit_counts_its_own_energy_over_a_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(cost, "time", clock)
    monkeypatch.setattr(cost, "open_meter", lambda *_: Stub(clock))
    module: Any = torch.nn.Linear(1, 1)
    module.device = torch.device("cpu")
    trainer: Any = None
    first = Cost("estimate")
    first.on_train_start(trainer, module)
    clock.now += 60
    saved = first.state_dict()
    clock.now += 1000  # it was killed, and the machine did something else
    second = Cost("estimate")
    second.load_state_dict(saved)
    second.on_train_start(trainer, module)
    clock.now += 12
    second.on_train_end(trainer, module)
    assert second.fit_seconds == 72
    assert second.joules == pytest.approx(72 * 50.0)
    assert second.meter == ("a stub", True)


def test_a_process_without_a_meter_leaves_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(cost, "time", clock)
    module: Any = torch.nn.Linear(1, 1)
    module.device = torch.device("cpu")
    trainer: Any = None
    unmetered = Cost("estimate")
    unmetered.on_train_start(trainer, module)
    clock.now += 5
    saved = unmetered.state_dict()
    assert saved["joules"] is None
    monkeypatch.setattr(cost, "open_meter", lambda *_: Stub(clock))
    metered = Cost("estimate")
    metered.load_state_dict(saved)
    metered.on_train_start(trainer, module)
    metered.on_train_end(trainer, module)
    assert metered.joules is None, "part of the run was not counted"


class Driver:
    """NVML as one GPU shows it."""

    def __init__(self, millijoules: int, supported: bool = True) -> None:
        self.millijoules, self.supported, self.asked = millijoules, supported, b""

    def nvmlInit_v2(self) -> int:  # noqa: N802 - NVML's name
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:  # noqa: N802
        self.asked = uuid
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, count: Any) -> int:  # noqa: N802
        ctypes.cast(count, ctypes.POINTER(ctypes.c_ulonglong))[0] = self.millijoules
        return 0 if self.supported else 3


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    properties = type("Properties", (), {"uuid": "1234-abcd"})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    return torch.device("cuda", 0)


def test_nvml_counts_millijoules_of_the_device_that_trains(gpu: torch.device) -> None:
    driver = Driver(5_000_000_000)
    meter = Nvml.open(gpu, driver)
    assert meter is not None
    assert driver.asked == b"GPU-1234-abcd"
    assert meter.joules() == 5_000_000.0
    driver.millijoules += 2500
    assert meter.joules() == 5_000_002.5


def test_a_gpu_without_a_counter_is_estimated(gpu: torch.device) -> None:
    assert Nvml.open(gpu, Driver(1, supported=False)) is None
    assert Nvml.open(torch.device("cpu"), object()) is None


@pytest.mark.parametrize("how", ["off", "estimate"])
def test_a_cpu_has_no_meter(how: str) -> None:
    assert open_meter(how, torch.device("cpu")) is None


def test_codecarbon_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"transferlab\[energy\]"):
        open_meter("codecarbon", torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("codecarbon") is None,
    reason="codecarbon is not part of the dev extra: it brings cryptography and a dozen more",
)
@pytest.mark.filterwarnings("ignore")
def test_codecarbon_counts_work_without_a_network() -> None:
    meter = energy.CodeCarbon()
    start = meter.joules()
    first = torch.randn(400, 400)
    for _ in range(60):
        first = torch.tanh(first @ first)
    busy = meter.joules()
    assert busy > start >= 0
    assert meter.name.startswith("codecarbon ")
