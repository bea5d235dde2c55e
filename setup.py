"""Packages that pip installs; `afov_ros` is installed by CMake, beside the messages it needs."""

from setuptools import find_packages, setup

setup(
    packages=find_packages(include=["afov*", "afov_train*"], exclude=["afov_ros*"]),
    package_data={
        "afov": ["vocabularies/*.yaml"],
        "afov_train": ["**/*.json", "**/*.safetensors", "**/*.txt.gz", "**/*.yaml"],
    },
)
