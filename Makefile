# The two commands of the README, `make demo` and `make test`, and what they need on a fresh machine.
# Everything downloaded goes to the user's cache (scripts/cache.py), never into the tree but for one link.

.NOTPARALLEL:
.PHONY: help setup demo test bench fuzz clean

EXAMPLE ?= newswire
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sheaf
TARGET := $(or $(CARGO_TARGET_DIR),target)
DENY_VERSION := 0.20.2
FUZZ_VERSION := 0.13.2
FUZZ := $(CACHE)/tools/cargo-fuzz-$(FUZZ_VERSION)/bin/cargo-fuzz
SECONDS ?= 60
DENY := $(CACHE)/tools/cargo-deny-$(DENY_VERSION)/bin/cargo-deny

# The examples, and what each trains on.
EXAMPLES := newswire heart lending-club fashion smollm2-lora
newswire_DATA := minilm reuters-r8
heart_DATA := heart
lending-club_DATA := lending-club
fashion_DATA := efficientnet-lite0 fashion-mnist
smollm2-lora_DATA := smollm2 reuters-r8
ifeq ($(filter $(EXAMPLE),$(EXAMPLES)),)
$(error there is no example '$(EXAMPLE)': EXAMPLE is one of $(EXAMPLES))
endif

help:
	@echo 'make demo   run a federation: SEED=n, SITES=n, REDUCED=1, and EXAMPLE=one of $(EXAMPLES)'
	@echo 'make test   check everything'
	@echo 'make bench  measure it beside Flower, NVFLARE and PyTorch: ONLY=round,secure,start,idle,crowd,simulation,kernel,transport,training SIZES=1,100 CLIENTS=8 REPEATS=3 MODELS=mlp,minilm DEVICES=cpu,cuda:0'
	@echo 'make fuzz   throw bytes at every parser, SECONDS=60 each'
	@echo 'make setup  install libtorch for a plain `cargo build`; CUDA=1 adds the CUDA half'
	@echo 'make clean  remove what was built; the cache stays'

setup:
	@command -v python3 >/dev/null || { echo 'error: python3 was not found: install Python 3 with pip (Debian: apt install python3 python3-pip), then try again.' >&2; exit 1; }
	@python3 -B scripts/setup.py $(if $(CUDA),--cuda)

demo: setup
	@python3 -B scripts/fetch_data.py $($(EXAMPLE)_DATA)
	cargo build --workspace
	$(TARGET)/debug/sheaf-demo $(EXAMPLE) $(if $(SEED),--seed $(SEED)) $(if $(SITES),--sites $(SITES)) $(if $(REDUCED),--reduced)

# Quick checks first; `cargo test` last, so that its results end the log.
test: setup $(DENY)
	@python3 -B scripts/fetch_data.py $(sort $(foreach example,$(EXAMPLES),$($(example)_DATA)))
	cargo fmt --all --check
	scripts/guards.sh
	$(DENY) check bans licenses sources
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps
	cargo test --workspace

comma := ,
# Released code beside released code; what it compares with is installed only here. PyTorch, for steps of training alone, takes 5 GB.
WANTED := $(or $(ONLY),round secure start simulation training)
bench: setup
	$(if $(findstring training,$(WANTED)),@python3 -B scripts/fetch_data.py minilm efficientnet-lite0)
	cargo build --release -p sheaf-server -p sheaf-client -p sheaf-sim -p sheaf-bench --bins --example steps
	$(if $(filter round secure start simulation,$(subst $(comma), ,$(WANTED))),frameworks=$$(python3 -B scripts/peers.py frameworks) &&) \
	  $(if $(findstring training,$(WANTED)),pytorch=$$(python3 -B scripts/peers.py pytorch) &&) \
	  $(TARGET)/release/sheaf-bench $${frameworks:+--peers "$$frameworks"} $${pytorch:+--pytorch "$$pytorch"} $(if $(ONLY),--only $(ONLY)) \
	  $(if $(SIZES),--sizes $(SIZES)) $(if $(CLIENTS),--clients $(CLIENTS)) $(if $(REPEATS),--repeats $(REPEATS)) $(if $(MODELS),--models $(MODELS)) $(if $(DEVICES),--devices $(DEVICES))

# Built for a quick build, not a quick run: it reads one lock file.
$(DENY): export CARGO_PROFILE_DEV_OPT_LEVEL := 1
$(DENY): export CARGO_PROFILE_DEV_DEBUG := 0
$(DENY):
	cargo install cargo-deny@$(DENY_VERSION) --locked --debug --no-default-features --root $(CACHE)/tools/cargo-deny-$(DENY_VERSION)

# Every fuzz target in turn, each for SECONDS; needs a C++ compiler. What is found lies in fuzz/artifacts.
fuzz: setup $(FUZZ)
	@for target in $$(sed -n 's/^name = "\(.*\)"/\1/p' fuzz/Cargo.toml | tail -n +2); do \
	  echo "== $$target"; \
	  PATH="$(dir $(FUZZ)):$$PATH" RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$(TARGET)/fuzz \
	    LIBTORCH=$(CURDIR)/.libtorch LD_LIBRARY_PATH=$(CURDIR)/.libtorch/lib \
	    cargo fuzz run --sanitizer none --fuzz-dir fuzz $$target -- -max_total_time=$(SECONDS) -print_final_stats=1 || exit 1; \
	done

$(FUZZ):
	cargo install cargo-fuzz@$(FUZZ_VERSION) --locked --root $(CACHE)/tools/cargo-fuzz-$(FUZZ_VERSION)

clean:
	cargo clean
