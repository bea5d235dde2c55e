"""Subscriptions that no message can break."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.serialization import deserialize_message

from afov.errors import InputError


def decoded(data: bytes, kind: Any) -> Any:
    """A message from its bytes.

    Raises:
        InputError: bytes that are no such message.
    """
    try:
        return deserialize_message(data, kind)
    except Exception as error:  # the middleware has types of its own
        line = " ".join(str(error).split())[:120]
        raise InputError(f"damaged {kind.__name__} of {len(data)} bytes: {line}") from None


def subscribe(
    node: Any,
    kind: Any,
    topic: str,
    take: Callable[[Any], None],
    refuse: Callable[[str], None],
    qos: Any,
    group: Any,
) -> Any:
    """A subscription that tells `refuse` of what it cannot take, and goes on.

    Bytes come in and are decoded here: rclpy ends a node whose message it cannot decode.
    """

    def guarded(data: bytes) -> None:
        try:
            take(decoded(data, kind))
        except Exception as error:  # a vehicle must not lose the node to one message
            refuse(f"{topic}: {error}")

    return node.create_subscription(kind, topic, guarded, qos, callback_group=group, raw=True)


class Mailbox(CallbackGroup):
    """Subscriptions whose messages wait in the middleware until `newest` takes them.

    rclpy builds a wait set for every message that it hands out: six cameras and their camera_info
    at 20 Hz took a quarter of a core from the network. Waiting, they take a hundredth.
    """

    def can_execute(self, entity: Any) -> bool:
        """Never: the executor leaves these messages alone."""
        return False

    def beginning_execution(self, entity: Any) -> bool:
        """Never."""
        return False

    def ending_execution(self, entity: Any) -> None:
        """Nothing was begun."""


def newest(subscription: Any) -> bytes | None:
    """The newest message of depth 1 that came since the last call; None where none did."""
    try:
        with subscription.handle:
            found = subscription.handle.take_message(subscription.msg_type, True)
    except InvalidHandle:  # destroyed meanwhile
        return None
    return None if found is None else bytes(found[0])


def source(node: Any, subscription: Any) -> str:
    """How many publish what a subscription listens to, in words: why nothing may come."""
    topic, kind = subscription.topic_name, subscription.msg_type
    wanted = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
    types = [p.topic_type for p in node.get_publishers_info_by_topic(topic)]
    if not types:
        return f"nobody publishes {topic}"
    if wanted not in types:
        return f"{topic} is {types[0]}, expected {wanted}"
    return f"{types.count(wanted)} publish {topic}, and nothing arrives"


def stamp_in(data: bytes) -> int:
    """The stamp, nanoseconds, of a serialised message that begins with a header.

    CDR (OMG 15.4.1): four bytes, the second of which tells the byte order, then the members.

    Raises:
        InputError: too short for a header.
    """
    if len(data) < 12:
        raise InputError(f"damaged message of {len(data)} bytes, too short for a header")
    sec, nanosec = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return int(sec) * 10**9 + int(nanosec)
