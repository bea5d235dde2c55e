"""What /diagnostics says of the node, its cameras and its transforms."""

from __future__ import annotations

from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from afov.errors import InputError
from afov_ros.gpu import gpu_memory, runs_on_gpu
from afov_ros.health import ERROR, OK, SILENCE, WARN, resident_mib
from afov_ros.subscriptions import source

LEVELS = {
    OK: DiagnosticStatus.OK,
    WARN: DiagnosticStatus.WARN,
    ERROR: DiagnosticStatus.ERROR,
}


def statuses(node: Any) -> list[Any]:
    """One status for the segmentation, one for each camera, one for tf."""
    name = node.get_fully_qualified_name()
    if node.vocabulary is None:
        level, text = (ERROR, f"not configured: {node.why_not}") if node.why_not else (WARN, "idle")
        return [_status(f"{name}: segmentation", level, text, _counts(node.health))]
    health, settings = node.health, node.settings
    level, text = health.verdict(
        settings.max_allowed_processing_time_ms, settings.max_acceptable_consecutive_delay_ms
    )
    if node.subscription is None:
        level, text = WARN, "configured, not active"
    elif health.silent:
        level, text = max(level, WARN), f"no cloud comes: {source(node, node.subscription)}; {text}"
    p50, p95, p99 = health.percentiles()
    language = node.vocabulary.current
    values = {
        **_counts(health),
        "rate, Hz": f"{health.rate():.1f}",
        "last sweep, ms": f"{health.milliseconds:.0f}",
        "p50, p95, p99, ms": f"{p50:.0f}, {p95:.0f}, {p99:.0f}",
        "latency since the stamp, s": f"{health.latency:.3f}",
        "vocabulary": language.student.vocabulary.name,
        "vocabulary version": str(language.version),
        "memory, MiB": f"{resident_mib():.0f}",
        **_gpu(language.student.runtime),
        **{f"sent {t}": str(n) for t, n in sorted(node.outputs.sent.items()) if "debug" not in t},
        **{f"fault: {why}": str(count) for why, count in health.faults.most_common(5)},
    }
    found = [_status(f"{name}: segmentation", level, text, values)]
    moment = node.latest
    stamp = moment.sweep.stamp if moment is not None else 0
    for camera in node.cameras:
        well, text = camera.state(stamp, settings.camera_tolerance)
        if moment is None:
            well, text = True, "waiting for the first cloud"
        age = camera.age(stamp)
        about = {"age, s": "none" if age is None else f"{age:.3f}", "refused": str(camera.refused)}
        found.append(_status(f"{name}: camera {camera.name}", OK if well else WARN, text, about))
    found.append(_transforms(node, name, moment))
    return found


def _transforms(node: Any, name: str, moment: Any) -> Any:
    """Whether the frames that are needed can be had at the newest sweep's time."""
    transforms = node.transforms
    about = {
        "frames": ", ".join(transforms.frames) or "none",
        "refused": str(transforms.refused),
    }
    faults = []
    for frame, stamp in _wanted(node, moment) if moment is not None else ():
        try:
            transforms.lookup(frame, moment.sweep.frame_id, stamp, moment.sweep.stamp)
        except InputError as error:
            faults.append(str(error))
    if transforms.silence > SILENCE:
        faults.append(f"no pose on /tf for {transforms.silence:.0f} s")
    text = "; ".join(dict.fromkeys(faults)) or transforms.heard or "ok"
    return _status(f"{name}: transforms", WARN if faults else OK, text, about)


def _wanted(node: Any, moment: Any) -> list[tuple[str, int]]:
    """Frames that a sweep needs, and at what time (nanoseconds)."""
    settings, stamp = node.settings, moment.sweep.stamp
    wanted = []
    for camera in node.cameras:
        if camera.frame_id:
            # As its image needs it, across the time between the two; a stale one needs nothing.
            seen = moment.seen.get(camera.name)
            fresh = seen is not None and abs(stamp - seen[0]) <= settings.camera_tolerance * 1e9
            wanted.append((camera.frame_id, seen[0] if fresh else stamp))
    if any(settings.ego_box):
        wanted.append((settings.ego_frame, stamp))
    if moment.things is not None:
        wanted.append((settings.fixed_frame, stamp))
    return wanted


def _gpu(runtime: Any) -> dict[str, str]:
    memory = gpu_memory() if runs_on_gpu(runtime) else None
    return {} if memory is None else {"GPU memory, MiB": f"{memory[0]:.0f} of {memory[1]:.0f}"}


def _counts(health: Any) -> dict[str, str]:
    return {
        "labelled": str(health.labelled),
        "refused": str(health.refused),
        "dropped": str(health.dropped),
        "missed": str(health.missed),
        "odd": str(health.odd),
        "time jumped back": str(health.jumps),
    }


def _status(name: str, level: int, text: str, values: dict[str, str]) -> Any:
    pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticStatus(
        name=name, level=LEVELS[level], message=text, hardware_id="afov", values=pairs
    )
