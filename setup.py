"""Packages that pip installs; `afov_ros` is installed by CMake, beside the messages it needs."""

from pathlib import Path

from setuptools import Extension, find_packages, setup

setup(
    packages=find_packages(include=["afov*", "afov_train*"], exclude=["afov_ros*"]),
    package_data={
        "afov": ["vocabularies/*.yaml", "native/*.cpp", "native/*.h"],
        "afov_train": ["**/*.json", "**/*.safetensors", "**/*.txt.gz", "**/*.yaml"],
    },
    ext_modules=[
        # A plain shared library, loaded with ctypes. Without a compiler NumPy does the same.
        Extension(
            "afov.native._afov",
            sorted(map(str, Path("afov/native").glob("*.cpp"))),
            depends=sorted(map(str, Path("afov/native").glob("*.h"))),
            extra_compile_args=[
                "-O3",
                "-std=c++17",
                "-ffp-contract=off",
                "-fno-math-errno",
                "-fno-trapping-math",
                "-fno-signed-zeros",
                "-pthread",
            ],
            extra_link_args=["-pthread"],
            language="c++",
            optional=True,
        )
    ],
)
