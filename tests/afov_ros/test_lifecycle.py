"""A node that is left running: life cycle, time that jumps, bursts, garbage."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rclpy.serialization import serialize_message

from afov.clouds import read_points
from afov.student import Student
from benchmarks.fuzz import mutated
from tests.afov_ros.conftest import CLOUD, Peer, message, random_sweep, running, structured

SWEEP = random_sweep(1200, seed=4)
SEGMENTATION = "/lasting: segmentation"


@pytest.fixture(scope="module")
def node(model: Path, environment: dict[str, str]) -> Iterator[Any]:
    with running("lasting", f"model:={model}", environment=environment) as process:
        yield process


@pytest.fixture(scope="module")
def ear(node: Any, environment: dict[str, str]) -> Iterator[Peer]:
    from sensor_msgs.msg import PointCloud2

    peer = Peer()
    peer.clouds = peer.listen(PointCloud2, "/lasting/segmentation")
    peer.stream(message(structured(SWEEP)), lambda: bool(peer.clouds))
    yield peer
    peer.close()


def transition(ear: Peer, label: str, node: str = "/lasting") -> bool:
    from lifecycle_msgs.srv import ChangeState

    request = ChangeState.Request()
    request.transition.label = label
    return bool(ear.call(ChangeState, f"{node}/change_state", request).success)


def state(ear: Peer, node: str = "/lasting") -> str:
    from lifecycle_msgs.srv import GetState

    return str(ear.call(GetState, f"{node}/get_state").current_state.label)


def values(status: Any) -> dict[str, str]:
    return {v.key: v.value for v in status.values}


def still_right(ear: Peer, model: Path) -> None:
    """A good sweep is labelled as the student labels it."""
    ids = Student.open(model).label(SWEEP).class_id
    ear.clouds.clear()
    ear.stream(
        message(structured(SWEEP), stamp=(7, 7)),
        lambda: any(c.header.stamp.sec == 7 for c in ear.clouds),
    )
    answer = next(c for c in ear.clouds if c.header.stamp.sec == 7)
    np.testing.assert_array_equal(read_points(answer)["class_id"], np.where(ids == 0, 255, ids))


def test_deactivated_it_is_silent_and_activated_it_labels_again(ear: Peer, model: Path) -> None:
    assert state(ear) == "active"
    assert transition(ear, "deactivate") and state(ear) == "inactive"
    ear.clouds.clear()
    for _ in range(8):
        ear.publisher.publish(message(structured(SWEEP)))
        ear.executor.spin_once(timeout_sec=0.2)
    assert not ear.clouds and ear.ros.count_subscribers(CLOUD) == 0
    assert transition(ear, "activate") and state(ear) == "active"
    still_right(ear, model)


def test_what_waits_for_the_node_to_be_active_goes_on_when_it_is_and_no_sooner(
    ear: Peer, environment: dict[str, str]
) -> None:
    wait = [sys.executable, "-m", "afov_ros.wait_active", "/lasting", "--patience"]
    assert transition(ear, "deactivate")
    assert subprocess.run([*wait, "2"], env=environment).returncode == 2
    waiting = subprocess.Popen([*wait, "60"], env=environment)
    time.sleep(2)
    assert waiting.poll() is None
    assert transition(ear, "activate") and ear.ros.count_subscribers(CLOUD) == 1
    assert waiting.wait(timeout=20) == 0


def test_cleaned_up_it_frees_all_and_can_be_configured_again(ear: Peer, model: Path) -> None:
    assert transition(ear, "deactivate") and transition(ear, "cleanup")
    assert state(ear) == "unconfigured"
    ear.spin_until(lambda: ear.ros.count_publishers("/lasting/segmentation") == 0)
    assert transition(ear, "configure") and transition(ear, "activate")
    still_right(ear, model)


def test_without_autostart_it_waits_to_be_told(
    ear: Peer, model: Path, environment: dict[str, str]
) -> None:
    with running("patient", f"model:={model}", "autostart:=false", environment=environment):
        assert state(ear, "/patient") == "unconfigured"
        assert transition(ear, "configure", "/patient")
        assert transition(ear, "activate", "/patient")


def test_a_transition_that_is_none_does_not_end_the_node(ear: Peer, model: Path, node: Any) -> None:
    from lifecycle_msgs.srv import ChangeState

    client = ear.ros.create_client(ChangeState, "/lasting/change_state")
    for label in ("activate", "configure", "fly"):
        request = ChangeState.Request()
        request.transition.label = label
        future = client.call_async(request)
        until = time.monotonic() + 1.0
        while not future.done() and time.monotonic() < until:
            ear.executor.spin_once(timeout_sec=0.1)
        assert not future.done() or not future.result().success
    ear.ros.destroy_client(client)
    assert state(ear) == "active" and node.poll() is None
    still_right(ear, model)


def test_time_that_jumps_back_is_noticed_and_harmless(ear: Peer, model: Path) -> None:
    later, earlier = (message(structured(SWEEP), stamp=(s, 0)) for s in (5000, 4000))
    ear.stream(later, lambda: any(c.header.stamp.sec == 5000 for c in ear.clouds))
    before = int(values(ear.diagnostics(SEGMENTATION, lambda s: True))["time jumped back"])
    ear.diagnostics(
        SEGMENTATION, lambda s: int(values(s)["time jumped back"]) == before + 1, earlier
    )
    still_right(ear, model)


def test_simulated_time_is_the_nodes_time_also_when_a_recording_begins_anew(
    model: Path, environment: dict[str, str], talker: Peer
) -> None:
    from diagnostic_msgs.msg import DiagnosticArray
    from rosgraph_msgs.msg import Clock
    from std_msgs.msg import Float64

    clock, now = talker.ros.create_publisher(Clock, "/clock", 10), Clock()
    with running("replayed", f"model:={model}", "use_sim_time:=true", environment=environment):
        latencies = talker.listen(Float64, "/replayed/debug/pipeline_latency_ms")
        reports = talker.listen(DiagnosticArray, "/diagnostics")
        for second in (5000, 5030, 5000):
            now.clock.sec, now.clock.nanosec = second, 250_000_000

            def in_time(now: Any = now) -> bool:
                clock.publish(now)
                stamps = [r.header.stamp for r in reports[-1:]]
                return stamps == [now.clock] and [round(m.data) for m in latencies[-1:]] == [250]

            talker.stream(message(structured(SWEEP), stamp=(second, 0)), in_time)
        jumps = values(talker.diagnostics("/replayed: segmentation", lambda s: True))
        assert jumps["time jumped back"] == "1"


def test_what_it_had_no_time_for_is_counted(ear: Peer) -> None:
    big = message(structured(random_sweep(30_000, seed=2)))
    before = values(ear.diagnostics(SEGMENTATION, lambda s: True))
    for _ in range(12):
        ear.publisher.publish(big)
        time.sleep(0.01)
    time.sleep(3)

    def done(status: Any) -> bool:
        now = values(status)
        kinds = ("labelled", "dropped", "missed", "refused")
        gained = {k: int(now[k]) - int(before[k]) for k in kinds}
        # The numbers of the last ones are known when another cloud has come.
        lost = gained["dropped"] + gained["missed"]
        return sum(gained.values()) >= 13 and lost > 0 and gained["refused"] == 0

    ear.diagnostics(SEGMENTATION, done, message(structured(SWEEP)))


@pytest.mark.slow
def test_garbage_is_refused_and_a_good_sweep_labelled_after_it(
    ear: Peer, model: Path, node: Any
) -> None:
    rng = np.random.default_rng(0)
    data = serialize_message(message(structured(SWEEP)))
    for _ in range(400):
        ear.publisher.publish(mutated(data, rng))
        ear.executor.spin_once(timeout_sec=0.01)
    still_right(ear, model)
    assert node.poll() is None
