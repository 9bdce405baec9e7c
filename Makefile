# A thin front: everything is done by tools/dev and the CMake presets.
.PHONY: all run test lint format bench clean
all: ; @tools/dev build
run: ; @tools/dev run
test: ; @tools/dev test
lint: ; @tools/dev lint
format: ; @tools/dev format
bench: ; @tools/dev bench
clean: ; @tools/dev clean
