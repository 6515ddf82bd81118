"""2.x in pods: what KubernetesExecutor runs there, in namespaces and cgroups as a runtime makes."""

from __future__ import annotations

import json

import pytest

from pidtrail.sources.addresses import own_addresses
from pidtrail.sources.replay import Replay
from pidtrail.verdict.engine import judge_stream
from tests.airflow.variants import NEEDS, Played, Ways, argv_of, chain, recorded, runners
from tests.airflow.ways import PODS

# In dags_of_ways/ways.py.
ADDRESS = "203.0.113.7"

pytestmark = NEEDS


@pytest.mark.parametrize("case", PODS)
def test_command_of_2_in_a_pod_is_the_process_on_record(ways2: Ways, case: str) -> None:
    """`airflow tasks run --local` in namespaces: both numbers are those of one process."""
    new = ways2["interpreter"]
    verdict = new.one(case)
    ((inside, start),) = new.noted(case)
    (runner,) = runners(verdict)

    assert (verdict.code, verdict.confidence) == ("match-via-namespace", "proved")
    assert recorded(verdict) == inside != runner.pid
    assert runner.start_ticks == start
    assert runner.ns_pids is not None
    assert (runner.ns_pids[0], runner.ns_pids[-1]) == (runner.pid, inside)
    assert f"PID {inside}, recorded by {verdict.recorded[-1].hostname}" in verdict.summary
    assert f"process {runner.pid} here in container" in verdict.summary


@pytest.mark.parametrize("case", PODS)
def test_pod_of_2_is_named(ways2: Ways, case: str) -> None:
    """Container and pod are those that the node made, for every process of the task."""
    verdict = ways2["interpreter"].one(case)
    pod = pod_of(ways2["interpreter"], case)

    assert {process.role for process in verdict.processes} >= {"supervisor", "runner"}
    assert {(one.container, one.pod_uid) for one in verdict.processes} == {
        (pod["container"], pod["pod_uid"])
    }


@pytest.mark.parametrize(
    ("case", "roles"),
    [
        ("pod", ["runner", "supervisor"]),
        ("pod_user", ["runner", "sudo", "supervisor"]),
        ("pod_network", ["runner", "supervisor"]),
    ],
)
def test_chain_in_a_pod_of_2(ways2: Ways, case: str, roles: list[str]) -> None:
    """The command is the supervisor, and the container's first process; `--raw` is below sudo."""
    verdict = ways2["interpreter"].one(case)
    (supervisor,) = runners(verdict, "supervisor")

    assert chain(verdict)[: len(roles)] == roles
    assert supervisor.ns_pids is not None
    assert supervisor.ns_pids[-1] == 1
    assert "--local" in (argv_of(ways2["interpreter"], supervisor) or [])


def test_host_in_a_network_of_its_own_is_no_other_host(ways2: Ways) -> None:
    """The row names it by an address that this host does not have; the process is here."""
    new = ways2["interpreter"]
    verdict = new.one("pod_network")
    (runner,) = runners(verdict)
    own = own_addresses()

    assert own is not None
    assert {seen.hostname for seen in verdict.recorded if seen.pid} == {ADDRESS}
    assert ADDRESS not in own
    assert verdict.outcome == "match"
    assert runner.pid is not None


def test_row_by_address_is_another_hosts_where_the_process_was_not(ways2: Ways) -> None:
    """The same rows, without what ran in that pod: as another node would see them."""
    new = ways2["interpreter"]
    pod = {one.pid for one in new.one("pod_network").processes}
    replay = Replay(str(new.recording))
    events = [one for one in replay.events() if one.key is None or one.key.pid not in pod]

    report = judge_stream(replay.header, events, problems=[])

    (verdict,) = [one for one in report.verdicts if one.task.dag_id == "way_pod_network"]
    assert (verdict.code, verdict.outcome) == ("other-host", "explained")
    assert f"recorded on host {ADDRESS}, not here on {replay.header.host}" in verdict.summary


def pod_of(played: Played, case: str) -> dict[str, str]:
    """Return what a pod was made of."""
    told = json.loads(played.recording.with_name("result.json").read_text())
    (found,) = [dict(pod) for pod in told["pods"] if pod["task"][0] == f"way_{case}"]
    return found
