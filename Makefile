# The daily verbs.  CMake does the work; `make help` lists what there is.
# A bare Debian 12 needs only make: each verb first installs what it lacks (tools/setup.sh).

MAKEFLAGS += --no-print-directory
SHELL     := /bin/bash
JOBS      ?= $(shell nproc)
PREFIX    ?= /usr/local
MODEL     ?= story
PROMPT    ?= In the evening, the old man
PICTURES  ?= $(wildcard $(addprefix examples/pictures/*.,jpg jpeg png webp))
CONFIGURE := cmake $(if $(CORVID_WERROR),-DCORVID_WERROR=$(CORVID_WERROR)) --log-level=WARNING
CTEST     := ctest --no-tests=error --output-on-failure -j $(JOBS)

.DEFAULT_GOAL := build
.PHONY: help setup build run test check golden fuzz asan ubsan sanitize tsan valgrind cover arm \
        bench lint format install examples dist clean build-needs test-needs extra-needs

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1 \t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: ## install everything that any verb needs (Debian packages)
	@tools/setup.sh build test extra

build-needs:
	@tools/setup.sh build
test-needs:
	@tools/setup.sh build test
extra-needs:
	@tools/setup.sh build test extra

build/release/build.ninja:
	@$(CONFIGURE) --preset release >/dev/null

build: build-needs build/release/build.ninja ## the library and the command, in build/release
	@cmake --build build/release --target corvid corvid_static corvid_shared manual

run: build ## write a paragraph, name the pictures of examples/: make run [MODEL=path]
	@printf '%s' "$(PROMPT)"
	@build/release/corvid generate -m "$(MODEL)" -p "$(PROMPT)" -n 120 --temperature 0.8 --top-p 0.7
	@printf '\n'
	@$(if $(PICTURES),build/release/corvid classify -m pictures --top 1 $(PICTURES), \
	  echo "There are no pictures in examples/pictures")

# $(call tested,PRESET[,arguments of ctest]): configure, build everything, run the tests.
define tested
@$(CONFIGURE) --preset $(1) >/dev/null
@cmake --build build/$(1)
@cd build/$(1) && $(CTEST) $(2)
endef

test: test-needs ## build everything for release and run all tests
	$(call tested,release)

check: test-needs ## the quick tests only (under a minute)
	$(call tested,release,-L 'unit|kernels|cli|fuzz')

golden: test-needs ## compare with the official implementation's numbers
	$(call tested,release,-L golden)

asan: extra-needs ## all tests under AddressSanitizer
	$(call tested,asan)

ubsan: extra-needs ## all tests under UndefinedBehaviorSanitizer
	$(call tested,ubsan)

sanitize: extra-needs ## all tests under both at once
	$(call tested,sanitize)

tsan: extra-needs ## the tests with threads under ThreadSanitizer
	@$(CONFIGURE) --preset tsan >/dev/null
	@cmake --build build/tsan --target threaded
	@cd build/tsan && ctest -N -L property | sed -n 's/.*: \(test_[a-z0-9_]*\)$$/\1/p' | \
	  paste -sd '|' | { read -r names; $(CTEST) -R "^($$names|test_team)\$$"; }

valgrind: extra-needs ## the unit tests under valgrind
	@$(CONFIGURE) --preset debug >/dev/null
	@cmake --build build/debug
	@for t in $$(ls build/debug/tests/test_* | grep -v test_team); do \
	  valgrind --quiet --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite \
	  $$t || exit 1; done

cover: extra-needs ## line coverage of src/, as build/coverage/index.html
	$(call tested,coverage)
	@cd build/coverage && gcovr -r $(CURDIR) --filter $(CURDIR)/src/ \
	  --gcov-ignore-parse-errors --exclude-directories '.*corvid_objects.*' \
	  --html-details index.html --print-summary .

arm: extra-needs ## the kernels for arm64, cross-built, under qemu
	$(call tested,arm)

fuzz: extra-needs ## every fuzz target for SECONDS_EACH=60, two at a time
	@$(CONFIGURE) --preset fuzz >/dev/null
	@cmake --build build/fuzz --target fuzzers
	@tools/fuzz.sh build/fuzz/fuzz $(or $(SECONDS_EACH),60)

bench: build ## decode and prefill of each weight type; beside other engines: bench/compare.sh
	@for t in f32 f16 bf16 q8_0; do echo "== $$t"; \
	  build/release/corvid bench --shape rwkv7-0.1b --type $$t || exit 1; done

lint: extra-needs ## floors, tags, layout, static analysis: no findings allowed
	@tools/floors.sh
	@tools/tags.sh
	@tools/format.sh --check
	@tools/analyse.sh

format: extra-needs ## lay out all C files with clang-format
	@tools/format.sh

install: build ## install to PREFIX=/usr/local (DESTDIR is honoured)
	@cmake --install build/release --prefix $(PREFIX)

examples: test-needs ## build and run the examples
	$(call tested,release,-L example)

dist: ## a tar file of the committed sources, in build/
	@mkdir -p build
	@version=$$(sed -n 's/^project(corvid VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt) && \
	 git archive --prefix=corvid-$$version/ -o build/corvid-$$version.tar.gz HEAD && \
	 echo build/corvid-$$version.tar.gz

clean: ## remove build/
	@rm -rf build
