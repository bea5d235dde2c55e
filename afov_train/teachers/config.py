"""Settings of the teacher."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from afov_train.teachers.templates import TEMPLATES

EMBEDDED = "afov-small"


@dataclass(frozen=True)
class TeacherConfig:
    """Which frozen 2D model, and how it looks at an image."""

    model: str = EMBEDDED
    """open_clip model name (ViT-B-16, convnext_base_w, ...), local-dir:FOLDER, or afov-small: the
    embedded model, which knows the simulator alone."""
    pretrained: str | None = None
    """open_clip's tag of the weights (laion2b_s34b_b88k, ...); they are downloaded."""
    weights: Path | None = None
    """A local file of weights instead."""
    scales: tuple[float, ...] = (1.0, 0.5)
    """The image is looked at in these sizes; the answers are averaged."""
    flip: bool = False
    """The mirror image is looked at, too."""
    masks: str | None = None
    """A Hugging Face segmentation model (facebook/sam-vit-base, a folder, ...) whose masks become
    the segments; CLIP's features are pooled inside of them (pip install transformers)."""
    overlap: float = 0.25
    """Share of a window that the next one sees again."""
    min_pixels: int = 32
    """Smaller segments are dropped."""
    templates: tuple[str, ...] = TEMPLATES
    """Prompts around each phrase, which stands for {}."""
    batch: int = 64
    """Windows at once."""
    imported: Path | None = None
    """A folder of segments that another program wrote (docs/teacher-folder.md)."""

    def __post_init__(self) -> None:
        if not self.templates or not all("{}" in template for template in self.templates):
            raise ValueError(f"templates {self.templates}: expected {{}} in each, for the phrase")
