"""What can be set of the panoptic model and its training."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from afov.model_parts import Head
from afov.voxels import VoxelGrid
from afov_train.config import OptimizerConfig, TeachConfig, TrainingConfig
from afov_train.network.config import NetworkConfig
from afov_train.recordings import Recording
from afov_train.teachers.config import TeacherConfig

CANDIDATES = 256  # voxels that may be the centre of a thing


@dataclass(frozen=True)
class DecoderConfig:
    """The mask decoder's numbers; the default fits a laptop, `PAPER` is P3Former's."""

    width: int = 64
    """Of queries and voxel features."""
    layers: int = 3
    proposals: int = 40
    """Queries that begin at a voxel each, where the middle of a thing is likeliest."""
    queries: int = 16
    """Learned queries, as P3Former's; the Hungarian assignment gives both kinds to objects, and
    each base stuff class has one of its own besides."""
    heads: int = 4
    feedforward: int = 256
    fusion: bool = True
    """Image features are an input; without, they only teach (and the baseline pools them)."""

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "feedforward"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected 1 or more")
        if not 0 <= self.proposals <= CANDIDATES:
            raise ValueError(f"proposals {self.proposals}: expected 0 to {CANDIDATES}")
        if self.queries < 0 or not self.proposals + self.queries:
            raise ValueError(f"queries {self.queries}: expected 0 or more, 1 without proposals")
        if self.width % self.heads:
            raise ValueError(f"width {self.width}: expected a multiple of {self.heads} heads")


PAPER = DecoderConfig(width=256, layers=6, queries=128, heads=8, feedforward=2048)


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses; 0 leaves one out."""

    classes: float = 2.0
    """Focal loss of the queries' classes (2401.02402, L_cls)."""
    mask: float = 1.0
    """Focal and dice loss of the matched masks, 1 : 2 (L_mask)."""
    position: float = 0.2
    """Dice loss of the positional branch alone (P3Former)."""
    centre: float = 0.1
    """Focal loss of which voxel is in the middle of a thing."""
    auxiliary: float = 3.0
    """Cross-entropy + Lovász of the voxels' own embeddings (P3Former)."""
    object: float = 1.0
    """Object-level distillation (L_O)."""
    voxel: float = 0.1
    """Voxel-level distillation (L_V)."""
    segments: float = 1.0
    """Focal and dice loss of masks for what is not labelled, grouped by likeness of its image
    features: nameless classes of one sweep (ours). Where all classes are base classes it is 0."""
    unlabelled: float = 10.0
    """1 - cos between the own embeddings of voxels that are not labelled and what cameras see
    there (ours). Where all classes are base classes it is 0."""


PUBLISHED = LossConfig(segments=0.0, unlabelled=0.0)
"""The paper's losses alone."""


@dataclass(frozen=True)
class PanopticConfig(TrainingConfig):
    """How trunk and decoder are trained (2401.02402; rate and decay of P3Former)."""

    steps: int = 1000
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=2e-3))
    """The paper's rate is 8e-4, over 40 epochs."""
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    drop: float = 0.3
    """Share of the visits on which the network sees no image feature at all, so that the same
    weights serve with the cameras off."""
    head: Head = "voxels"
    """What names a mask. single: the query's embedding alone (the paper); ensemble: and the mean
    image feature inside the mask (the paper's baseline, FC-CLIP's geometric mean); voxels: and
    the mean of these and the voxels' own embeddings, a thing's mask in pieces (ours)."""
    windows: tuple[int, int] = (3, 6)
    """Rows and columns of the image tower's own windows into which an image is cut."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.windows) < 1:
            raise ValueError(f"windows {self.windows}: expected at least one row and one column")
        if not 0 <= self.drop <= 1:
            raise ValueError(f"drop {self.drop}: expected a share, 0 to 1")


@dataclass(frozen=True)
class PanopticTrainConfig:
    """From a recorded drive to a model folder that knows things one by one."""

    recording: Annotated[Recording, tyro.conf.arg(name="")] = field(default_factory=Recording)
    labels: Path | None = None
    """Folder with TOKEN.npz per frame (class_id and instance_id, one per point), such as
    pseudo-instances; the recording's truth where none is named."""
    pseudo: bool = False
    """Learn from pseudo-instances, without a label: the teacher's segments, projected and cleaned
    by density clusters."""
    teach: TeachConfig = field(default_factory=TeachConfig)
    """How pseudo-instances get their classes."""
    base: tuple[str, ...] = ()
    """Classes whose labels are used, or a split that has them: nuscenes-b12n4, b12n4-0 (drawn from
    seed 0); all of the vocabulary where none is named. No loss sees a label of any other."""
    weights: Path | None = None
    """network.safetensors of a run's distill/ or pretrain/, for the trunk."""
    vocabulary: str = "nuscenes16"
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    grid: VoxelGrid = field(default_factory=VoxelGrid)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    panoptic: PanopticConfig = field(default_factory=PanopticConfig)
    runs: Path = Path("runs")
    run: Path | None = None
    """Continue in this run folder: sweeps that were prepared are not prepared again."""
