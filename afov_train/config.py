"""What can be set. Defaults run; a YAML file and flags override them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import tyro

from afov.voxels import VoxelGrid
from afov_train.network.config import NetworkConfig
from afov_train.recordings import Recording
from afov_train.teachers.config import TeacherConfig


@dataclass(frozen=True)
class TeachConfig:
    """How segments in the images become labels of the points.

    The defaults are the best that was found (docs/ablation.md); config/train/paper.yaml has the
    paper's, which knows none of these switches.
    """

    occlusion: bool = True
    """Leave out points that a nearer surface hides from the camera (the paper does not test)."""
    min_score: float = 0.0
    """Segments with a lower score label nothing."""
    agreement: bool = True
    """Points to which two cameras give different classes stay unlabelled."""
    keep: float = 0.9
    """The surest share of each class's labels stays; each class has its own threshold."""
    vote: float = 1.1
    """Seconds before and after, within which sweeps vote on what stands still (needs poses)."""
    objects: bool = True
    """What stands on the ground as one piece settles on one label."""
    reach: float = 2.0
    """Metres: points that no camera sees, such as the ground close to the vehicle, take the label
    of the nearest labelled point within (the paper leaves them unlabelled: 0)."""


@dataclass(frozen=True)
class OptimizerConfig:
    """How weights move."""

    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 4e-3
    """Of the trunk; 0 freezes it (linear probe)."""
    head_learning_rate: float | None = None
    """Of the head; the trunk's where none is named."""
    weight_decay: float = 0.01
    momentum: float = 0.9
    """SGD alone."""
    dampening: float = 0.1
    """SGD alone."""
    schedule: Literal["one-cycle", "cosine"] = "one-cycle"


@dataclass(frozen=True)
class AugmentConfig:
    """What a sweep goes through before each visit; its pairs go with it."""

    rotate: bool = True
    """Any angle about z."""
    flip: bool = True
    """Mirrored in x and in y, each every other time."""
    scale: float = 0.05
    """Larger or smaller by up to this share."""
    cuboid: bool = False
    """A random box of the sweep is left out."""
    crop: bool = False
    """Only pairs inside a random window of each image count."""


T = TypeVar("T", bound="TrainingConfig")


@dataclass(frozen=True)
class TrainingConfig:
    """What pre-training and distillation have in common."""

    steps: int = 700
    """Optimizer steps; the schedule spans them."""
    epochs: int | None = None
    """Rounds over the sweeps, instead of steps."""
    batch: int = 2
    """Sweeps at once."""
    accumulate: int = 1
    """Batches per optimizer step."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    precision: Literal["32", "bf16", "16"] = "32"
    """bf16 and 16 need a GPU."""
    checkpoint: int = 50
    """Steps between two checkpoints; a killed run goes on from the last (--run FOLDER)."""
    wandb: bool = False
    """Weights & Biases, too (pip install wandb)."""
    temperature: float = 0.07
    """Divides every cosine."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 0 or (self.epochs is not None and self.epochs < 1):
            raise ValueError(f"steps {self.steps}, epochs {self.epochs}: expected 1 or more")
        for name in ("batch", "accumulate", "checkpoint"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected 1 or more")

    def for_sweeps(self: T, count: int) -> T:
        """The same with epochs said in steps."""
        if self.epochs is None:
            return self
        steps = max(1, round(self.epochs * count / (self.batch * self.accumulate)))
        return replace(self, epochs=None, steps=steps)


@dataclass(frozen=True)
class PretrainConfig(TrainingConfig):
    """TMP: superpoints against image features and phrases (2405.15286, sec. 3.2)."""

    steps: int = 0
    """Optimizer steps; 0, and no epochs, leaves TMP out."""
    augment: AugmentConfig = field(
        default_factory=lambda: AugmentConfig(scale=0.0, cuboid=True, crop=True)
    )
    image: float = 0.5
    """Weight of point to image."""
    text: float = 0.5
    """Weight of point to text."""

    @property
    def wanted(self) -> bool:
        """Whether TMP is done at all."""
        return bool(self.steps or self.epochs)


@dataclass(frozen=True)
class DistillConfig(TrainingConfig):
    """Distillation: cross-entropy + Lovász on the pseudo-labelled voxels (2405.15286, sec. 3.3)."""

    head: Literal["open", "closed"] = "open"
    """open: embeddings against the text bank, so that the vocabulary can change; closed: one
    output per class, as published."""
    tmp: float = 0.0
    """Weight of TMP's own losses beside, which keep the CLIP space alive (open head)."""
    absorbed: bool = False
    """Things that the vocabulary absorbs (a stroller, debris) are learnt as classes of their own:
    they label nothing still, but can be asked for (open head)."""
    class_weight: Literal["none", "sqrt"] = "sqrt"
    """"sqrt": cross-entropy weighted by 1 / sqrt(class share), so that rare classes survive."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.steps or self.epochs):
            raise ValueError("steps 0: the student would stay as untrained as it begins")


@dataclass(frozen=True)
class TrainConfig:
    """From a recorded drive to a model folder: teach, pretrain, distill, evaluate."""

    # No prefix on the command line: --bag, not --recording.bag.
    recording: Annotated[Recording, tyro.conf.arg(name="")] = field(default_factory=Recording)
    test: Recording = field(default_factory=Recording)
    """A second recording with truth, for evaluation; by default the first."""
    vocabulary: str = "nuscenes16"
    """A preset (nuscenes16, semantickitti19) or a YAML file."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    grid: VoxelGrid = field(default_factory=VoxelGrid)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    teach: TeachConfig = field(default_factory=TeachConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    rounds: int = 1
    """From the second round on, the last round's student has a say in the labels; then a fresh one
    learns from them."""
    runs: Path = Path("runs")
    """Each run gets a time-stamped folder here; `latest` points to the newest."""
    run: Path | None = None
    """Continue in this run folder: what is already taught is not taught again."""
    until: Literal["rehearse", "teach", "pretrain", "distill", "evaluate"] = "evaluate"
    """The last stage to do; --run FOLDER goes on after it. "rehearse" tries them all on two
    frames, as every run does first."""
    inspect: bool = False
    """Only say what the recording holds, with a picture of its first sweep on its images."""

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds {self.rounds}: expected 1 or more")


@dataclass(frozen=True)
class FinetuneConfig:
    """Fine-tuning on a share of the ground truth (2405.15286, sec. 4): 1% is every 100th."""

    recording: Annotated[Recording, tyro.conf.arg(name="")] = field(default_factory=Recording)
    test: Recording = field(default_factory=Recording)
    """A second recording with truth, for evaluation; by default the first."""
    weights: Path | None = None
    """network.safetensors of a run's pretrain/ or distill/; random weights where none is named."""
    fraction: float = 0.01
    """Share of the frames (of nuScenes: of the scenes) whose truth is used."""
    vocabulary: str = "nuscenes16"
    grid: VoxelGrid = field(default_factory=VoxelGrid)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: DistillConfig = field(
        default_factory=lambda: DistillConfig(steps=300, head="closed", class_weight="none")
    )
    runs: Path = Path("runs")
    run: Path | None = None
    """Continue in this run folder."""


def linear_probe() -> FinetuneConfig:
    """The trunk frozen, the head trained on all of the truth."""
    optimizer = OptimizerConfig(learning_rate=0.0, head_learning_rate=0.02)
    usual = FinetuneConfig()
    return replace(usual, fraction=1.0, training=replace(usual.training, optimizer=optimizer))


@dataclass(frozen=True)
class EvalConfig:
    """Any model folder on any recording with truth."""

    recording: Annotated[Recording, tyro.conf.arg(name="")] = field(default_factory=Recording)
    model: Path = Path("runs/latest/model")
    """The model folder."""
    novel: tuple[str, ...] = ()
    """Classes that no label named in training, or the split that `--base` named there: panoptic
    quality apart for them."""
    out: Path = Path("evaluation")
    """Where metrics.csv and metrics.json go."""
