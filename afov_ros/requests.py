"""What is asked of the running node: another vocabulary, a query, a change of parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
from rcl_interfaces.msg import SetParametersResult

from afov.errors import InputError
from afov.labelled import similar_points
from afov_ros.conversions import cloud_message, vocabulary_of
from afov_ros.live_vocabulary import Language
from afov_ros.parameters import LIVE, Settings
from afov_ros.srv import Query, SetVocabulary


class Requests:
    """Answers them; a wrong one gets a reason and changes nothing.

    Args:
        group: of the services; an embedding may take seconds, and no cloud waits for it.
    """

    def __init__(self, node: Any, group: Any) -> None:
        self._node = node
        node.create_service(
            SetVocabulary, "~/set_vocabulary", self.set_vocabulary, callback_group=group
        )
        node.create_service(Query, "~/query", self.query, callback_group=group)
        node.add_on_set_parameters_callback(self.on_parameters)

    def set_vocabulary(self, request: Any, response: Any) -> Any:
        """Another vocabulary from the next sweep on, or a reason why not."""
        try:
            wanted = vocabulary_of(request) if request.classes else ""
            response.version = self._change(wanted)
            response.success = True
        except Exception as error:
            response.message = self._declined("set_vocabulary", error)
        return response

    def query(self, request: Any, response: Any) -> Any:
        """The points of the newest sweep that a phrase means."""
        node = self._node
        moment, vocabulary = node.latest, node.vocabulary
        try:
            if vocabulary is None or moment is None:
                raise InputError("no sweep has been labelled yet")
            if not np.isfinite(request.threshold):
                raise InputError(f"threshold {request.threshold}, expected a cosine of -1 to 1")
            row = vocabulary.phrase(request.phrase)
            rivals = moment.language.student.text_bank.rivals(request.phrase)
            points, response.highest = similar_points(
                moment.sweep, moment.labels, row, rivals, request.threshold
            )
            response.cloud = cloud_message(points, moment.message.header)
            node.outputs.send("~/query_points", response.cloud)
            response.success = True
        except Exception as error:
            response.message = self._declined("query", error)
        return response

    def on_parameters(self, parameters: list[Any]) -> SetParametersResult:
        """Checks a change of parameters; all of it takes effect, or nothing does."""
        node = self._node
        changed = {p.name: p.value for p in parameters if p.name in LIVE}
        if node.vocabulary is None or not changed:
            return SetParametersResult(successful=True)
        try:
            for name in changed:
                if not LIVE[name]:
                    raise InputError(f"parameter {name!r} is read at configure; clean up first")
            settings = Settings.read(node, changed)
            bank = node.vocabulary.bank(settings.vocabulary) if "vocabulary" in changed else None
            names = (bank or node.vocabulary.current.student).vocabulary.names
            if "filter_classes" in changed and (why := settings.unknown_classes(names)):
                raise InputError(why)
        except Exception as error:
            return SetParametersResult(successful=False, reason=self._declined("set", error))
        node.settings = settings
        if bank is not None:
            node.vocabulary.change(bank, self._announce)
        elif "threshold" in changed:
            node.vocabulary.repeat(self._announce)
        return SetParametersResult(successful=True)

    def _change(self, wanted: Any) -> int:
        vocabulary = self._node.vocabulary
        if vocabulary is None:
            raise InputError("the node is not configured")
        return int(vocabulary.change(vocabulary.bank(wanted), self._announce).version)

    def _announce(self, language: Language) -> None:
        node, vocabulary = self._node, language.student.vocabulary
        node.outputs.announce(language, node.settings)
        node.get_logger().info(f"vocabulary {vocabulary.name}: {len(vocabulary.labelled)} classes")

    def _declined(self, what: str, error: Exception) -> str:
        reason = str(error) if isinstance(error, InputError) else repr(error)
        self._node.get_logger().warning(f"{what} declined: {reason}")
        return reason
