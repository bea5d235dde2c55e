"""What the decoder learns: objects with a class each, from labels per point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import normalize

from afov.errors import InputError
from afov.frames import Frame
from afov.splits import Split, is_split
from afov.vocabulary import Vocabulary

LEAST = 5  # voxels of a thing that can be learned
ALIKE = 0.7  # cosine of two image features that may be of one segment
MEMBERS = 20  # voxels of a segment
MIDDLES = 1024  # voxels among which the middle of a segment is looked for


@dataclass(frozen=True)
class PanopticTarget:
    """Panoptic labels of a sweep, in the order of its points.

    Attributes:
        class_id: (N,) uint8, 0 = not labelled.
        instance_id: (N,) uint16, 0 = none; what counts is that the points of one thing share it.
    """

    class_id: np.ndarray
    instance_id: np.ndarray

    def of_classes(self, ids: np.ndarray) -> PanopticTarget:
        """The labels of these class ids alone; every other point counts as not labelled."""
        kept = np.isin(self.class_id, ids)
        return PanopticTarget(
            np.where(kept, self.class_id, np.uint8(0)),
            np.where(kept, self.instance_id, np.uint16(0)),
        )

    @classmethod
    def of_frame(cls, frame: Frame, labels: Path | None) -> PanopticTarget | None:
        """What `labels` or the frame's own truth says of it; None where neither says anything.

        Args:
            labels: folder with TOKEN.npz: class_id (0..255) and instance_id (0..65535), (N,)
                integers.

        Raises:
            InputError: a file is damaged, or its points are not the sweep's.
        """
        if labels is None:
            truth = frame.truth
            if truth is None or truth.panoptic_class_id is None:  # classes, but no instances
                return None
            return cls(truth.class_id, truth.instance_id)
        file = labels / f"{frame.token}.npz"
        if not file.exists():
            return None
        try:
            with np.load(file, allow_pickle=False) as data:
                columns = [np.asarray(data[name]) for name in ("class_id", "instance_id")]
        except Exception as error:  # NumPy raises many types on broken data
            line = " ".join(f"{error}".split())
            raise InputError(f"{file}: expected class_id and instance_id ({line})") from None
        size = (len(frame.sweep),)
        shapes = [column.shape for column in columns]
        if shapes != [size, size]:
            raise InputError(
                f"{file}: {shapes[0]} and {shapes[1]} labels, the sweep has {size[0]} points; "
                "label the same recording"
            )
        return cls(
            _within(columns[0], np.uint8, f"{file}: class_id"),
            _within(columns[1], np.uint16, f"{file}: instance_id"),
        )


def _within(ids: np.ndarray, kind: type[np.unsignedinteger], what: str) -> np.ndarray:
    """The ids in a narrower type; one that it cannot hold would come out as another's.

    Raises:
        InputError: they are no integers, or out of its range.
    """
    most, whole = np.iinfo(kind).max, ids.dtype.kind in "ui"
    if not whole or (len(ids) and not 0 <= ids.min() <= ids.max() <= most):
        found = f"{ids.min()} to {ids.max()}" if whole else f"{ids.dtype}"
        raise InputError(f"{what}: {found}, expected integers from 0 to {most}")
    return ids.astype(kind)


@dataclass(frozen=True)
class BaseClasses:
    """The classes whose labels are used, counted 0..K - 1 in the order of their ids.

    Attributes:
        ids: (K,) int64 class ids. thing: (K,) bool.
    """

    ids: np.ndarray
    thing: np.ndarray

    @classmethod
    def of(cls, vocabulary: Vocabulary, names: Sequence[str]) -> BaseClasses:
        """By name, or those of a split by its name; all of the vocabulary where none is named.

        Raises:
            InputError: a name that the vocabulary does not have, or no such split.
        """
        if len(names) == 1 and is_split(names[0]):
            names = Split.named(vocabulary, names[0]).base
        known = [c.name for c in vocabulary.labelled]
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise InputError(f"--base {unknown[0]}: expected classes of {', '.join(known)}")
        kept = [i for i, name in enumerate(known) if not names or name in names]
        thing = np.array([vocabulary.labelled[i].thing for i in kept])
        return cls(np.array(kept, np.int64) + 1, thing)

    @property
    def stuff(self) -> np.ndarray:
        """(S,) int64: the classes with a query of their own, counted as above."""
        return np.flatnonzero(~self.thing)


class Objects(NamedTuple):
    """The objects of one sweep, over its voxels.

    Attributes:
        classes: (G,) int64, 0..K - 1, and masks: (G, V) float32, of things.
        nameless: (U, E), the mean image feature of every segment, unit rows.
        stuff: (S, V) float32, the mask of every base stuff class, empty where it is not there.
        segments: (U, V) float32, masks of what is not labelled, of `segments`, or none at all.
        labelled: (V,) bool, the voxels of things and stuff.
        label: (V,) int64, the base class, 0..K - 1, or the segment, K + 0..U - 1; -1 for neither.
    """

    classes: torch.Tensor
    nameless: torch.Tensor
    masks: torch.Tensor
    stuff: torch.Tensor
    segments: torch.Tensor
    labelled: torch.Tensor
    label: torch.Tensor

    @property
    def judged(self) -> torch.Tensor:
        """(V,) bool: the voxels on which masks are judged."""
        return self.labelled | self.segments.any(0)

    def of_voxels(self, order: torch.Tensor) -> Objects:
        """The same over voxels in another order, (V,) int64."""
        classes, nameless, *of_voxels = self
        return Objects(classes, nameless, *(each[..., order] for each in of_voxels))


def objects_of(
    class_id: torch.Tensor,
    instance_id: torch.Tensor,
    base: BaseClasses,
    image: torch.Tensor | None = None,
) -> Objects:
    """Labels per voxel as masks; points of a thing without an instance count as not labelled.

    So do things of fewer than LEAST voxels: they are half of all, and what a query is taught by
    two voxels drowns what it learns from the rest.

    Args:
        class_id, instance_id: (V,) int64; ids of base classes or 0.
        image: (V, E), unit rows, zero where unseen, for the segments; None for none of them.
    """
    of_class = torch.full((256,), -1, device=class_id.device)
    of_class[torch.from_numpy(base.ids)] = torch.arange(len(base.ids), device=class_id.device)
    thing = torch.zeros(256, dtype=torch.bool, device=class_id.device)
    thing[torch.from_numpy(base.ids)] = torch.from_numpy(base.thing).to(class_id.device)
    key = torch.where(thing[class_id] & (instance_id > 0), class_id * 65536 + instance_id, 0)
    keys, size = key.unique(return_counts=True)
    keys = keys[(keys > 0) & (size >= LEAST)]
    stuff = torch.from_numpy(base.ids[base.stuff]).to(class_id.device)
    unlabelled = (class_id == 0)[:, None]
    image = torch.zeros_like(unlabelled).float() if image is None else image * unlabelled
    groups = segments(image)
    # A voxel without a label has class -1, to which the number of its segment is added.
    counted = torch.arange(len(groups), device=key.device).to(groups) + len(base.ids) + 1
    return Objects(
        of_class[keys // 65536],
        normalize(groups @ image, dim=1),
        (key == keys[:, None]).float(),
        (class_id == stuff[:, None]).float(),
        groups,
        torch.isin(key, keys) | ((class_id > 0) & ~thing[class_id]),
        of_class[class_id] + (counted @ groups).long(),
    )


def segments(image: torch.Tensor) -> torch.Tensor:
    """(U, V) float32: groups of voxels whose image features are alike, the largest first (ours).

    The voxel that has most others within a cosine of ALIKE, and these, are a group; then the same
    with what is left, until there are fewer than MEMBERS. No label and no class name is asked.

    Args:
        image: (V, E), unit rows, zero for voxels that shall be in none.
    """
    rows = torch.nonzero(image.any(1))[:, 0]
    middles = rows[:: len(rows) // MIDDLES + 1]
    near = image[middles] @ image[rows].T > ALIKE
    found = [near.new_zeros(0, len(rows))]
    while len(near) and (size := near.sum(1)).max() >= MEMBERS:
        found.append(near[size.argmax()][None])
        near = near & ~found[-1]
    masks = image.new_zeros(len(found) - 1, len(image))
    masks[:, rows] = torch.cat(found).to(image.dtype)
    return masks
