"""Prompt templates: a phrase's embedding is the mean over these, normalised."""

TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "there is a {} in the scene.",
    "a {} in the street.",
    "a cropped photo of a {}.",
    "a blurry photo of a {}.",
    "a bright photo of a {}.",
    "a dark photo of a {}.",
    "part of a {}.",
    "this is a {}.",
)
