"""
Clocks: arithmetic only. Nothing here reads a clock.

Three clocks meet in pidtrail. CLOCK_BOOTTIME in nanoseconds is the clock of
every record (the kernel's `start_boottime` uses it, and it does not stop in
suspend). USER_HZ ticks since boot are what /proc/PID/stat field 22 shows of the
same clock, and the only precision that all sources share exactly. Wall time is
for people and for joining with Airflow's rows, and is made from boot time plus
one offset per recording.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

NS_PER_SECOND = 1_000_000_000
TICK_NS = NS_PER_SECOND // 100
"""USER_HZ is 100 on every architecture we run on (include/asm-generic/param.h)."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_SECOND = -62_135_596_800
LAST_SECOND = 253_402_300_799


def ticks_of(start_boottime_ns: int, clk_tck: int = 100) -> int:
    """
    Return the start time in USER_HZ ticks that /proc/PID/stat field 22 shows.

    The kernel divides and rounds down (fs/proc/array.c do_task_stat,
    nsec_to_clock_t), so the two are equal, not merely close.
    """
    return start_boottime_ns // (NS_PER_SECOND // clk_tck)


def wall_ns(ts_boot_ns: int, wall_offset_ns: int) -> int:
    """Return nanoseconds since the Unix epoch for a CLOCK_BOOTTIME instant."""
    return ts_boot_ns + wall_offset_ns


def rfc3339(epoch_ns: int) -> str:
    """
    Return an instant as RFC 3339, UTC, e.g. `2026-01-31T08:00:00.000000001Z`.

    RFC 3339 has the years 1 to 9999; what lies beyond, in a damaged recording,
    becomes the first or last of their seconds.
    """
    seconds, nanoseconds = divmod(epoch_ns, NS_PER_SECOND)
    moment = EPOCH + timedelta(seconds=min(max(seconds, FIRST_SECOND), LAST_SECOND))
    return f"{moment.isoformat()[:19]}.{nanoseconds:09d}Z"


def epoch_ns_of(moment: datetime) -> int:
    """
    Return nanoseconds since the epoch; a naive datetime is taken as UTC.

    Airflow stores UTC everywhere; SQLite gives it back without a zone
    (airflow/utils/sqlalchemy.py UtcDateTime, 2.x and 3.x).
    """
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    delta = aware - EPOCH
    return (delta.days * 86_400 + delta.seconds) * NS_PER_SECOND + delta.microseconds * 1000


def epoch_ns_of_text(text: str) -> int | None:
    """Return nanoseconds since the epoch of an ISO 8601 text, or None if it is not one."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return epoch_ns_of(moment)
