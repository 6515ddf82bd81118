"""The wire parser: right values in, right events out, and WireError for everything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pidtrail.events import Exec, Exit, Fork, Migrate, Observed, Oom, Reap, Signal, Title
from pidtrail.sources import wire

TICK = 10_000_000
PAGE_KIB = 4
PARSER = wire.Parser(PAGE_KIB)
MIRROR = {
    wire.KIND_FORK: wire.FORK,
    wire.KIND_EXEC: wire.EXEC,
    wire.KIND_TITLE: wire.TITLE,
    wire.KIND_EXIT: wire.EXIT,
    wire.KIND_REAP: wire.REAP,
    wire.KIND_SIGNAL: wire.SIGNAL,
    wire.KIND_OOM: wire.OOM,
    wire.KIND_MIGRATE: wire.MIGRATE,
    wire.KIND_TASK: wire.TASK,
    wire.KIND_SELF: wire.TASK,
}
EVENTS = (Fork, Exec, Title, Exit, Reap, Signal, Oom, Migrate, Observed)


def exec_record(argv: bytes, *, full: int | None = None, filename: bytes = b"/bin/true") -> bytes:
    """Return a pt_exec with its argv bytes."""
    full = len(argv) if full is None else full
    head = (wire.KIND_EXEC, 7, 5 * TICK, 3 * TICK)
    return wire.EXEC.pack(*head, 9, 0, len(argv), full, len(filename), b"true", filename) + argv


def parse(record: bytes, *, seq: int = 1) -> object:
    """Parse one whole record."""
    return PARSER.parse(record, 0, len(record), seq)


@given(st.binary(max_size=4096))
def test_any_bytes_give_an_event_or_a_wire_error(data: bytes) -> None:
    """Nothing else comes out, whatever goes in."""
    try:
        event = parse(data)
    except wire.WireError:
        return
    assert isinstance(event, EVENTS)


@given(st.sampled_from(sorted(MIRROR)), st.binary(min_size=1, max_size=64))
def test_any_values_of_a_right_kind_give_an_event(kind: int, noise: bytes) -> None:
    """A record of the right form is an event, also with values that make no sense."""
    size = MIRROR[kind].size
    record = (kind.to_bytes(4, "little") + noise * size)[:size]
    if kind == wire.KIND_EXEC:
        # argv_len is the one value that the form depends on.
        fields = list(wire.EXEC.unpack(record))
        fields[6] = 0
        record = wire.EXEC.pack(*fields)
    assert isinstance(parse(record), EVENTS)


@given(st.sampled_from(sorted(MIRROR)), st.data())
def test_a_record_cut_short_is_refused(kind: int, data: st.DataObject) -> None:
    """However much is missing, also where the bytes after it would make it whole."""
    size = MIRROR[kind].size
    length = data.draw(st.integers(0, size - 1))
    whole = kind.to_bytes(4, "little") + bytes(size - 4)

    with pytest.raises(wire.WireError):
        PARSER.parse(whole[:length], 0, length, 1)
    with pytest.raises(wire.WireError):
        PARSER.parse(whole, 0, length, 1)


@given(st.lists(st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b"")), max_size=20))
def test_arguments_come_back(arguments: list[bytes]) -> None:
    """Any bytes but NUL, in any number; what is not UTF-8 becomes U+FFFD."""
    raw = b"".join(argument + b"\0" for argument in arguments)

    assert wire.arguments(raw) == [argument.decode("utf-8", "replace") for argument in arguments]


@given(st.binary(max_size=64))
def test_names_of_any_bytes_are_text(raw: bytes) -> None:
    """A comm ends at its first NUL, and is always text."""
    assert wire.text(raw) == raw.split(b"\0")[0].decode("utf-8", "replace")


@pytest.mark.parametrize("offset", [0, 8, 1000])
def test_a_record_is_found_at_its_offset(offset: int) -> None:
    """A batch holds many records; each is read where it is."""
    record = wire.REAP.pack(wire.KIND_REAP, 42, 9 * TICK, 2 * TICK, 4 * TICK)

    event = PARSER.parse(bytes(offset) + record + b"after", offset, len(record), 17)

    assert event == Reap(17, 9 * TICK, "core", 42, 2, 2 * TICK, None, 5 * TICK)


def test_unknown_kinds_are_refused() -> None:
    """0 is what an empty ring looks like, 99 a newer program."""
    for kind in (0, 11, 99):
        with pytest.raises(wire.WireError):
            parse(wire.REAP.pack(kind, 1, 1, 1, 1))


def test_an_exec_that_claims_more_arguments_than_it_has_is_refused() -> None:
    """The length inside must fit the length of the record."""
    record = exec_record(b"true\0")
    fields = list(wire.EXEC.unpack_from(record))
    fields[6] = 1000

    with pytest.raises(wire.WireError):
        parse(wire.EXEC.pack(*fields) + b"true\0")


def test_an_exec_record_has_room_behind_its_arguments() -> None:
    """The program reserves 256, 2048 or 16384 bytes; only argv_len of them count."""
    event = parse(exec_record(b"true\0-x\0") + bytes(200))

    assert isinstance(event, Exec)
    assert (event.argv, event.argv_truncated) == (["true", "-x"], False)
    assert (event.filename, event.comm, event.exec_id) == ("/bin/true", "true", 9)
    assert event.old_tid is None


def test_arguments_that_were_cut_say_so() -> None:
    """The last one is kept as far as it came."""
    event = parse(exec_record(b"true\0abc", full=5000))

    assert isinstance(event, Exec)
    assert (event.argv, event.argv_truncated) == (["true", "abc"], True)


def test_arguments_that_could_not_be_read_are_unknown() -> None:
    """No bytes of some is None, no bytes of none is an empty list."""
    unread, none = parse(exec_record(b"", full=10)), parse(exec_record(b""))

    assert isinstance(unread, Exec)
    assert isinstance(none, Exec)
    assert (unread.argv, unread.argv_truncated) == (None, True)
    assert (none.argv, none.argv_truncated) == ([], False)


def test_numbers_that_do_not_exist_are_none() -> None:
    """0 on the wire is "no number here", and never leaves it."""
    record = wire.FORK.pack(
        *(wire.KIND_FORK, 0, TICK, TICK, 0, 0, 0, 0, 0, 8), *[5] * 8, b"deep".ljust(16, b"\0")
    )
    event = parse(record)

    assert isinstance(event, Fork)
    assert (event.pid, event.ppid, event.creator_pid) == (None, None, None)
    assert (event.pid_ns, event.cgroup_id, event.ns_pids) == (None, None, None)


def test_a_creator_is_told_only_where_it_is_not_the_parent() -> None:
    """CLONE_PARENT."""
    for creator, told in ((10, None), (11, 11), (0, None)):
        record = wire.FORK.pack(
            *(wire.KIND_FORK, 12, TICK, TICK, 10, creator, TICK, 1, 2, 1),
            *(3, 4, 0, 0, 0, 0, 0, 0, b"x"),
        )
        event = parse(record)
        assert isinstance(event, Fork)
        assert (event.ppid, event.creator_pid) == (10, told)
        assert event.ns_pids == [3, 4]


@pytest.mark.parametrize(
    ("wstatus", "decoded"),
    [
        (0, (0, None, False)),
        (0x300, (3, None, False)),
        (9, (None, 9, False)),
        (0x8B, (None, 11, True)),
        (0xFF00, (255, None, False)),
    ],
)
def test_exit_is_decoded(wstatus: int, decoded: tuple[int | None, int | None, bool]) -> None:
    """Code or signal, never both, and the core bit."""
    record = wire.EXIT.pack(
        *(wire.KIND_EXIT, 5, 2 * TICK, TICK, wstatus, 4), *(0, 0, 1000, 1, 2, 3, 4, 5, 6)
    )
    event = parse(record)

    assert isinstance(event, Exit)
    assert (event.exit_code, event.termsig, event.core_dumped) == decoded
    assert (event.voluntary_switches, event.involuntary_switches) == (1, 2)
    assert (event.minor_faults, event.major_faults, event.migrations) == (3, 4, 5)
    assert event.max_rss_kib == 6 * PAGE_KIB


@given(*[st.integers(0, 2**63)] * 3)
def test_run_time_is_divided_and_nothing_of_it_lost(utime: int, stime: int, runtime: int) -> None:
    """User and system time add up to what the scheduler counted."""
    user_ns, system_ns = wire.split_runtime(utime, stime, runtime)

    assert user_ns + system_ns == runtime
    assert user_ns >= 0
    assert system_ns >= 0


def test_a_signal_of_the_kernel_has_no_sender() -> None:
    """Start 0 is the kernel; the user id 0 on the wire is then no user."""
    record = wire.SIGNAL.pack(*(wire.KIND_SIGNAL, 5, TICK, TICK, 9, 0x80, 0, 0, 0, b""))
    event = parse(record)

    assert isinstance(event, Signal)
    assert (event.sender_pid, event.sender_start_ticks) == (None, None)
    assert (event.sender_comm, event.sender_uid) == (None, None)
    assert (event.sig, event.code) == (9, 0x80)


def test_a_sender_without_a_number_here_still_has_a_start() -> None:
    """Killed from outside the agent's PID namespace: no number, but a name and a start."""
    record = wire.SIGNAL.pack(*(wire.KIND_SIGNAL, 5, TICK, TICK, 9, 0, 0, 1000, 3 * TICK, b"kill"))
    event = parse(record)

    assert isinstance(event, Signal)
    assert (event.sender_pid, event.sender_start_ticks) == (None, 3)
    assert (event.sender_comm, event.sender_uid) == ("kill", 1000)


def test_a_title_is_none_where_only_the_name_changed() -> None:
    """Length 0, whatever bytes are behind it."""
    record = wire.TITLE.pack(wire.KIND_TITLE, 5, TICK, TICK, 0, 0, b"name", b"old argv")
    event = parse(record)

    assert isinstance(event, Title)
    assert (event.title, event.comm) == (None, "name")


def test_a_victim_of_an_older_kernel_has_no_memory_figures() -> None:
    """Unknown is None, not 0 kB."""
    record = wire.OOM.pack(wire.KIND_OOM, 5, TICK, TICK, 0, 0, 0, 0, b"")
    event = parse(record)

    assert isinstance(event, Oom)
    assert (event.victim_comm, event.total_vm_kib, event.anon_rss_kib) == (None, None, None)


def test_an_end_before_we_came_has_no_zombie_time() -> None:
    """A zombie of the snapshot: when it died is not known."""
    event = parse(wire.REAP.pack(wire.KIND_REAP, 5, TICK, TICK, 0))

    assert isinstance(event, Reap)
    assert event.zombie_ns is None
