"""How numbers are written for people: points, intervals, seconds, bytes, counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MINUS = "−"
NOTHING = "–"


@dataclass(frozen=True)
class Unit:
    """How differences of a metric are written.

    Attributes:
        scale: what a difference is multiplied by.
        noun: of several.
        decimals: digits after the point.
    """

    scale: float
    noun: str
    decimals: int


POINTS = Unit(100, "points", 1)
UNITS = {"log_loss": Unit(1, "nats", 3), "brier": Unit(1, "Brier points", 3)}


def unit_of(metric: str) -> Unit:
    """Percentage points for shares; nats for log-loss, Brier's own unit for his score."""
    return UNITS.get(metric, POINTS)


def points(
    share: float | None, *, signed: bool = True, decimals: int | None = None, unit: Unit = POINTS
) -> str:
    """A difference of shares (0.06) as percentage points (``+6.0``), or in another unit."""
    if share is None:
        return NOTHING
    text = f"{abs(unit.scale * share):.{unit.decimals if decimals is None else decimals}f}"
    if float(text) == 0:
        return text
    if share < 0:
        return MINUS + text
    return "+" + text if signed else text


def decimals_for(shares: Sequence[float], unit: Unit = POINTS) -> int:
    """The unit's decimals, or one more where they would print a value that isn't zero as zero."""
    half = 0.5 * 10**-unit.decimals
    hidden = any(share != 0 and abs(unit.scale * share) < half for share in shares)
    return unit.decimals + hidden


def interval(
    low: float | None, high: float | None, *, joint: str = " to ", unit: Unit = POINTS
) -> str:
    """An interval of differences in points: ``+2.0 to +10.0``."""
    if low is None or high is None:
        return NOTHING
    decimals = decimals_for([low, high], unit)
    ends = (points(bound, decimals=decimals, unit=unit) for bound in (low, high))
    return joint.join(ends)


def percent(share: float | None, decimals: int = 1) -> str:
    """A share as a percentage without its sign: ``85.6``."""
    return NOTHING if share is None else f"{100 * share:.{decimals}f}"


def p_value(p: float | None) -> str:
    """A p value: three decimals, or ``<0.001``."""
    if p is None:
        return NOTHING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float | None) -> str:
    """Seconds as people say them: ``1.5 s``, ``2 min 05 s``, ``1 h 12 min``."""
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 0.95 else f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(number: float | None) -> str:
    """Bytes in decimal units: ``312 MB``."""
    return NOTHING if number is None else _scaled(number, ("B", "kB", "MB", "GB", "TB"))


def large(number: float | None) -> str:
    """A big count in decimal units: ``1.2 M``, ``34 G``."""
    return NOTHING if number is None else _scaled(number, ("", "k", "M", "G", "T", "P")).strip()


def ratio(value: float | None) -> str:
    """A factor: ``×1.3``."""
    return NOTHING if value is None else f"×{value:.2f}" if value < 10 else f"×{value:.0f}"


def csv_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of a CSV in which no text is a formula to a spreadsheet.

    Text that begins with ``=``, ``+``, ``-``, ``@`` or a tab and is no number gets an apostrophe
    before it, as spreadsheets write text; the JSON files hold every name as it is.
    """
    return {
        key: f"'{value}" if isinstance(value, str) and _is_formula(value) else value
        for key, value in row.items()
    }


def _is_formula(text: str) -> bool:
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


def count(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: ``1 run``, ``1,200 images``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def short(identifier: object, length: int = 10) -> str:
    """The head of a hash; names that are short stay whole."""
    text = NOTHING if identifier is None else str(identifier)
    return text if len(text) <= length + 2 else text[:length] + "…"


def listing(parts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    if len(parts) < 2:
        return "".join(parts)
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def _scaled(number: float, units: Sequence[str]) -> str:
    value, index = float(number), 0
    while abs(value) >= 999.5 and index < len(units) - 1:
        value, index = value / 1000, index + 1
    digits = f"{value:.0f}" if index == 0 or abs(value) >= 99.5 else f"{value:.2g}"
    if "e" in digits:
        digits = f"{value:.0f}"
    return f"{digits} {units[index]}"
