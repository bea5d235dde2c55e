# Two commands: `make demo` does the main job, `make test` proves it. Both set everything up first.

ROS_DISTRO ?= jazzy
VENV ?= .venv
BUILD ?= build/$(ROS_DISTRO)

# The first interpreter that runs, fits and can make a virtual environment.
FITS = import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info < (3, 13))
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.10 python3,\
	$(shell $(p) -c '$(FITS)' 2>/dev/null && echo $(p))))

BIN := $(abspath $(VENV))/bin
PREFIX := $(abspath $(VENV))
INSTALLED := $(VENV)/.installed-$(ROS_DISTRO)
ROS_INSTALLED := $(VENV)/.ros-$(ROS_DISTRO)
ROS_SOURCES := CMakeLists.txt package.xml \
	$(wildcard afov_ros/*.py cmake/* msg/* srv/* launch/* config/* rviz/* scripts/*)

# Runs beside other ROS systems must not meet them.
export ROS_AUTOMATIC_DISCOVERY_RANGE ?= LOCALHOST
export ROS_DOMAIN_ID ?= 73
# Threads that spin while they wait make torch thirty times slower on a busy machine.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: venv ros lint test demo bench clean

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml setup.py $(wildcard afov/native/*.cpp afov/native/*.h) constraints.txt requirements-$(ROS_DISTRO).txt
	@test -n "$(PYTHON)" || { echo "make: needs Python 3.10, 3.11 or 3.12 with its venv module" \
		"(Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt \
		-e '.[train,dev]' -r requirements-$(ROS_DISTRO).txt
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt --no-deps tensorrt-stubs
	command -v cmake >/dev/null || $(BIN)/python -m pip install 'cmake<4'
	touch $@

ros: $(ROS_INSTALLED)

# Into the environment's own prefix: the messages then import with nothing sourced.
$(ROS_INSTALLED): $(INSTALLED) $(ROS_SOURCES)
	@command -v c++ >/dev/null || { echo "make: needs a C++ compiler for the messages" \
		"(Debian, Ubuntu: apt install g++)" >&2; exit 1; }
	mkdir -p $(BUILD)
	export PATH="$(BIN):$$PATH" AMENT_PREFIX_PATH="$(PREFIX)" CMAKE_PREFIX_PATH="$(PREFIX)" && \
	cmake -S . -B $(BUILD) -G Ninja -DCMAKE_INSTALL_PREFIX="$(PREFIX)" -DBUILD_TESTING=OFF \
		-DPython3_EXECUTABLE="$(BIN)/python" -DAFOV_CORE_FROM_PIP=ON >$(BUILD)/cmake.log 2>&1 \
		|| { cat $(BUILD)/cmake.log >&2; exit 1; }
	PATH="$(BIN):$$PATH" AMENT_PREFIX_PATH="$(PREFIX)" ninja -C $(BUILD) --quiet install
	touch $@

lint: $(ROS_INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations=40

demo: $(ROS_INSTALLED)
	$(BIN)/python -m afov_train.demo --out demo

bench: $(ROS_INSTALLED)
	$(BIN)/python benchmarks/all.py

clean:
	rm -rf build demo runs
	rm -f $(VENV)/.installed-* $(VENV)/.ros-*
