# Every target is one tool. `make help` lists them.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
export PYTHONPATH := $(CURDIR)
.DEFAULT_GOAL := help
.PHONY: help environment book test lint library site chapter new-chapter serve fmt bench matrix colab data lock repository clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

environment: $(VENV)/.ready ## create .venv from the lock, with uv where it is installed and pip where not

$(VENV)/.ready: requirements.txt pyproject.toml ci/environment.sh
	PYTHON="$(PYTHON)" sh ci/environment.sh $(VENV)
	@touch $@

book: environment ## execute what has changed and build the website
	$(RUN) -m ci.execute
	$(RUN) -m ci.build

test: environment ## lint, library, every chapter, dry run of the gpu profiles, site, audit
	$(RUN) -m ci.suite

chapter: environment ## run one chapter and judge it: make chapter NAME=7076
	$(RUN) -m ci.execute --force --workers 1 --chapters $(NAME)

new-chapter: environment ## a skeleton that passes lint: make new-chapter ID=1234 SLUG=some_words
	$(RUN) -m ci.new_chapter "$(ID)" "$(SLUG)"

serve: environment ## serve the built site on this machine
	$(RUN) -m ci.serve $(PORT)

fmt: environment ## bring all files into their normal form
	$(RUN) -m ci.fmt

lint: environment ## the rules of ci/lint.py, ruff included
	$(RUN) -m ci.lint

library: environment ## the library's tests on every backend that is installed
	$(RUN) -m ci.suite library

bench: environment ## performance as ratios, measured in one run
	$(RUN) -m ci.bench

matrix: environment ## chapter x profile x backend x seed: make matrix BACKEND="jax torch" SEEDS="0 1 2"
	$(RUN) -m ci.execute --backend $(or $(BACKEND),tensorflow) --seeds $(or $(SEEDS),0) \
	    --profile $(or $(PROFILE),cpu) $(if $(CHAPTERS),--chapters $(CHAPTERS))

colab: environment ## all chapters with the versions that Colab publishes
	$(RUN) -m ci.colab

data: environment ## download every small data set
	$(RUN) -m kexue_lib.data

lock: ## compile pyproject.toml into requirements.txt (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    --extra book pyproject.toml --output-file requirements.txt $(if $(UPGRADE),--upgrade)

repository: environment ## set the repository's slug everywhere: make repository SLUG=owner/name
	$(RUN) -m ci.repository "$(SLUG)"
	$(RUN) -m ci.fmt

clean: ## remove everything that was built, not the environment
	rm -rf _build .pytest_cache .ruff_cache
