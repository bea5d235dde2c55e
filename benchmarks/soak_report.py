"""What `soak.py` measured, as Markdown."""

from __future__ import annotations

from typing import Any

import numpy as np

TRANSPORT = 0.02  # seconds that a cloud may be on its way, either way


def steady_report(heard: Any, rate: float) -> list[str]:
    """Loss, latency by part, memory, labels."""
    if not heard.answers:
        return ["Nothing came back. The node's output:", "", *heard.stderr.splitlines()[-20:]]
    sent, counts = len(heard.sent), last_counts(heard)
    kinds = ("labelled", "refused", "dropped", "missed")
    labelled, refused, dropped, missed = (int(counts.get(k, 0)) for k in kinds)
    when, _, latency = np.array(heard.answers).T
    lines = [
        f"## Steady: {sent} sweeps at {rate:g} Hz",
        "",
        "| what | |",
        "|---|---|",
        f"| sent, came back | {sent}, {len(when)} |",
        f"| the node's count: {', '.join(kinds)} | {labelled}, {refused}, {dropped}, {missed} |",
        f"| sent and in none of these counts | {sent - labelled - refused - dropped - missed} |",
        f"| lost that the node had time for | {lost_with_time(heard)} |",
        f"| rate, Hz | {(len(when) - 1) / (when[-1] - when[0]):.1f} |",
        f"| points unlike afov-predict's | {heard.differing} of {heard.compared} |",
        f"| overlays | {heard.pictures} |",
        f"| latency grows by (second half) | {slope(when, latency):+.2f} ms a minute |",
        *memory_rows(heard),
        *ending_rows(heard),
        "",
        "| ms | p50 | p95 | p99 |",
        "|---|---|---|---|",
        quantiles("stamp to listener", latency),
    ]
    return lines + [quantiles(name, row) for name, row in heard.parts.items() if row]


def events_report(heard: Any, changes: int) -> list[str]:
    """Each event: does rate and latency hold, and do the diagnostics tell of it."""
    lines = ["", "## Events", "", "| event | Hz | latency p50, p95, ms | seen in /diagnostics |"]
    lines.append("|---|---|---|---|")
    ends = [when for when, _ in heard.phases[1:]] + [heard.answers[-1][0]]
    for (begin, event), end in zip(heard.phases, ends, strict=True):
        rows = [(w, ms) for w, _, ms in heard.answers if begin <= w < end]
        p50, p95 = np.percentile([ms for _, ms in rows] or [np.nan], (50, 95))
        # What an event does shows within a second or two, and is over as soon.
        shift = (4, 0) if event == "all is well" else (1, 2)
        reports = [r for r in heard.reports if begin + shift[0] <= r[0] < end + shift[1]]
        lines.append(
            f"| {event} | {len(rows) / (end - begin):.1f} | {p50:.0f}, {p95:.0f} | "
            f"{seen(event, reports, changes)} |"
        )
    changed = f"{heard.changed} {heard.refusal}".replace("|", "/")
    lines += ["", "| what | |", "|---|---|", f"| vocabularies changed | {changed} |"]
    return [*lines, *memory_rows(heard), *ending_rows(heard)]


def seen(event: str, reports: list[Any], changes: int) -> str:
    """What the diagnostics say of an event, or NOT SEEN."""
    cameras = {name for _, name, *_ in reports if name.startswith("camera")}
    bad = {name: text for _, name, level, text, _ in reports if level}
    values = [v for _, name, _, _, v in reports if name == "segmentation"]
    silent = {name for name in cameras if name in bad}
    version = max((int(v.get("vocabulary version", 0)) for v in values), default=0)
    jumps = max((int(v.get("time jumped back", 0)) for v in values), default=0)
    found = {
        "all is well": ", ".join(f"{n}: {bad[n]}" for n in bad if n != "segmentation") or "nothing",
        "one camera unplugged": ", ".join(f"{n}: {bad[n]}" for n in sorted(silent)[:1]),
        "all cameras unplugged": f"{len(silent)} cameras" if silent == cameras else "",
        "tf stopped": bad.get("transforms", ""),
        "time jumped back": f"time jumped back: {jumps}" if jumps else "",
        "100 vocabularies": f"vocabulary version {version}" if version > changes else "",
    }[event]
    return found.replace("|", "/") or "NOT SEEN"


def lost_with_time(heard: Any) -> int:
    """Sweeps that never came back and need not have been lost.

    A loss is excused if one sent before it was still in work when the next one was sent: it then
    made room for a newer one.
    """
    back = {stamp: when for when, stamp, _ in heard.answers}
    # The listener's clock beside the stamps'.
    offset = min(when - stamp / 1e9 - ms / 1e3 for when, stamp, ms in heard.answers)
    sent = heard.sent.tolist()
    lost = 0
    for i, stamp in enumerate(sent[:-1]):
        if stamp in back:
            continue
        before = [back[s] for s in sent[max(0, i - 200) : i] if s in back]
        next_sent = sent[i + 1] / 1e9 + offset
        lost += not (before and max(before) >= next_sent - TRANSPORT)
    return lost


def last_counts(heard: Any) -> dict[str, str]:
    """The node's own counts at the end."""
    values: list[dict[str, str]] = [v for _, n, _, _, v in heard.reports if n == "segmentation"]
    return values[-1] if values else {}


def slope(when: np.ndarray, values: np.ndarray) -> float:
    """Of a straight line over the second half, a minute."""
    half = when > when.mean()
    return float(np.polyfit(when[half] / 60, values[half], 1)[0])


def memory_rows(heard: Any) -> list[str]:
    """Growth of the node's resident memory."""
    when, mib = np.array(heard.memory).T
    return [
        f"| memory, MiB: first, most, last | {mib[0]:.0f}, {mib.max():.0f}, {mib[-1]:.0f} |",
        f"| memory grows by (second half) | {slope(when, mib):+.2f} MiB a minute |",
    ]


def ending_rows(heard: Any) -> list[str]:
    """How the node ended, and whether an error escaped it."""
    traces = heard.stderr.count("Traceback")
    return [f"| exit code, tracebacks in its output | {heard.exit_code}, {traces} |"]


def quantiles(name: str, row: Any) -> str:
    """A row of p50, p95, p99."""
    return f"| {name} | " + " | ".join(f"{p:.1f}" for p in np.percentile(row, (50, 95, 99))) + " |"
