# SPDX-License-Identifier: MIT
# telefork: one non-recursive Makefile. `make help` lists targets and knobs.
# Output goes to build/<arch>[-<variant>]/{obj,bin,lib,tests}; nothing is written beside sources.

VERSION  := 0.1.0
ARCHES   := x86_64 aarch64
HOST     := $(shell uname -m)
V        ?= 0
SAN      ?=
DESTDIR  ?=
PREFIX   ?= /usr/local
OPT      ?= -O2
export TELEFORK_CACHE ?= $(HOME)/.cache/telefork

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
.SECONDARY:
MAKEFLAGS += --no-builtin-rules --no-builtin-variables

comma   := ,
VARIANT := $(if $(SAN),-$(subst $(comma),-,$(SAN)))
Q       := $(if $(filter 1,$(V)),,@)
say      = $(if $(filter 1,$(V)),,@printf '  %-8s %s\n' '$(1)' '$(2)')

CC_x86_64   := $(if $(filter x86_64,$(HOST)),gcc,x86_64-linux-gnu-gcc)
CC_aarch64  := $(if $(filter aarch64,$(HOST)),gcc,aarch64-linux-gnu-gcc)
RUN_x86_64  := $(if $(filter x86_64,$(HOST)),,qemu-x86_64)
RUN_aarch64 := $(if $(filter aarch64,$(HOST)),,qemu-aarch64)

# ---------------------------------------------------------------- sources

BASE_SRC    := err arena buf crc32c io maps host
IMAGE_SRC   := segments elfcore notes notes_table notes_print stream file \
	compare compare_maps compare_memory compare_state
CAPTURE_SRC := self changes describe files memory signal task task_ask
CHANNEL_SRC := frames address dial listen handshake
RESTORE_SRC := facts relay merge compat plan build hole vdso pad result
LIB_SRC     := core/telefork.c core/yoyo.c core/job.c \
	$(BASE_SRC:%=core/base/%.c) $(IMAGE_SRC:%=core/image/%.c) \
	$(CAPTURE_SRC:%=core/capture/%.c) $(CHANNEL_SRC:%=core/channel/%.c) \
	$(RESTORE_SRC:%=core/restore/%.c) \
	arch/regs.c arch/x86_64/regs.c arch/aarch64/regs.c
# Built for their own architecture only.
ARCH_SRC    := cpu.c frame.c plan.c ptrace.c entry.S
CMD_SRC     := main serve restore inspect inspect_json diff disasm symbols
PAD_SRC     := pad_main serve restore
QEMU_SRC    := error io child wire machine kvm qmp vm wait remote template switch relay link
GUEST_SRC   := qemu/guest/init.c qemu/guest/agent.c qemu/guest/jobs.c qemu/guest/files.c \
	qemu/guest/setup.c qemu/wire.c
UNIT_TESTS  := test_arch test_image test_notes
PROBES      := hop spin yoyo

# Only what exists yet is built: a list above is the plan, this is the ground.
exist = $(wildcard $(1))

# ---------------------------------------------------------------- flags

WARN     := -Wall -Wextra -Werror -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wvla
CFLAGS   := -std=gnu17 $(OPT) -g -fPIC -fno-omit-frame-pointer $(WARN)
CPPFLAGS := -I. -D_GNU_SOURCE -DTF_VERSION='"$(VERSION)"'
SANFLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all)
# The restorer runs where there is no libc, no TLS and nobody's vector registers.
RESTORER := -ffreestanding -fno-builtin -fno-stack-protector -fno-jump-tables -O2 \
	-fno-tree-loop-distribute-patterns -mgeneral-regs-only -fno-sanitize=all -fcf-protection=none
RESTORER_aarch64 := $(filter-out -fcf-protection=none,$(RESTORER)) -mno-outline-atomics
RESTORER_x86_64  := $(RESTORER)

LIBS_telefork := -lcapstone -lelf -lz -ljansson
LIBS_unit     := -lcheck -lsubunit -lm -lrt -lpthread
# Static, so that it runs in an initramfs and under QEMU user mode; a sanitizer needs a dynamic one.
STATIC        := $(if $(SAN),,-static)

# ---------------------------------------------------------------- packages

PACKAGES := gcc make libc6-dev binutils gcc-aarch64-linux-gnu libc6-dev-arm64-cross \
	qemu-user qemu-system-x86 qemu-system-arm cpio xz-utils zstd \
	libelf-dev libcapstone-dev libjansson-dev libpng-dev zlib1g-dev check \
	libelf-dev:arm64 libcapstone-dev:arm64 libjansson-dev:arm64 libpng-dev:arm64 zlib1g-dev:arm64 \
	check:arm64 libc6:arm64
LINT_PACKAGES := clang-tidy clang-format cppcheck shellcheck libclang-rt-14-dev clang-14
NEED := $(PACKAGES) $(if $(filter lint format fuzz,$(MAKECMDGOALS)),$(LINT_PACKAGES))

# Names what is missing, then installs it. Read by make before anything is built.
define install_missing
need="$(NEED)"; missing=""; \
for p in $$need; do \
	dpkg-query -W -f '$${db:Status-Status}' "$$p" 2>/dev/null | grep -q '^installed' || missing="$$missing $$p"; \
done; \
if [ -n "$$missing" ]; then \
	echo "installing Debian packages:$$missing" >&2; \
	dpkg --add-architecture arm64 && apt-get -qq update >&2 && \
	DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing >&2 \
		</dev/null || { echo "could not install:$$missing (are you root?)" >&2; exit 1; }; \
fi
endef

NO_PACKAGES := clean help packages
ifneq ($(filter-out $(NO_PACKAGES),$(or $(MAKECMDGOALS),all)),)
ifneq ($(shell $(install_missing); echo $$?),0)
$(error packages are missing)
endif
endif

# ---------------------------------------------------------------- rules for one architecture
# $(1) architecture, $(2) output folder

define obj
$(patsubst %.c,$(2)/obj/%.o,$(patsubst %.S,$(2)/obj/%.o,$(call exist,$(1))))
endef

define arch_rules
B_$(1)   := build/$(1)$(VARIANT)
A_$(1)   := $(addprefix arch/$(1)/,$(ARCH_SRC))
CPP_$(1) := $(CPPFLAGS) -DTF_ARCH_RESTORER_HEADER='"arch/$(1)/restorer.h"'
LIBOBJ_$(1) := $$(call obj,$(LIB_SRC) $$(A_$(1)),$$(B_$(1))) $$(B_$(1))/obj/core/restore/restorer.o
PADOBJ_$(1) := $$(call obj,$(PAD_SRC:%=core/cmd/%.c),$$(B_$(1)))
CMDOBJ_$(1) := $$(call obj,$(CMD_SRC:%=core/cmd/%.c),$$(B_$(1)))
PROBES_$(1) := $$(patsubst tests/probes/%.c,%,$$(call exist,$(PROBES:%=tests/probes/%.c)))
UNIT_$(1)   := $$(patsubst tests/unit/%.c,%,$$(call exist,$(UNIT_TESTS:%=tests/unit/%.c)))

# Rebuilt when flags change.
$$(B_$(1))/flags: FORCE
	@mkdir -p $$(@D)
	@echo '$$(CC_$(1)) $(CFLAGS) $$(subst ','\'',$$(CPP_$(1))) $(SANFLAGS)' | cmp -s - $$@ || \
		echo '$$(CC_$(1)) $(CFLAGS) $$(subst ','\'',$$(CPP_$(1))) $(SANFLAGS)' > $$@

$$(B_$(1))/obj/core/restore/restorer.o: core/restore/restorer.c $$(B_$(1))/flags
	@mkdir -p $$(@D)
	$(call say,CC,$$@)
	$(Q)$$(CC_$(1)) $$(CPP_$(1)) -std=gnu17 -g -fPIC $(WARN) $$(RESTORER_$(1)) -MMD -MP -c $$< -o $$@
	@! readelf -rW $$@ | grep -A99 "'.rela.*tf_restorer'" | sed '/^$$$$/q' | grep R_ || \
		{ echo "$$@: the restorer must not need relocation" >&2; exit 1; }

$$(B_$(1))/obj/%.o: %.c $$(B_$(1))/flags
	@mkdir -p $$(@D)
	$(call say,CC,$$@)
	$(Q)$$(CC_$(1)) $$(CPP_$(1)) $(CFLAGS) $(SANFLAGS) -MMD -MP -c $$< -o $$@

$$(B_$(1))/obj/%.o: %.S $$(B_$(1))/flags
	@mkdir -p $$(@D)
	$(call say,AS,$$@)
	$(Q)$$(CC_$(1)) $$(CPP_$(1)) -g -fPIC -MMD -MP -c $$< -o $$@

$$(B_$(1))/lib/libtelefork.a: $$(LIBOBJ_$(1))
	@mkdir -p $$(@D)
	$(call say,AR,$$@)
	$(Q)rm -f $$@ && ar rcsD $$@ $$^

$$(B_$(1))/lib/libtelefork.so: $$(LIBOBJ_$(1))
	@mkdir -p $$(@D)
	$(call say,LD,$$@)
	$(Q)$$(CC_$(1)) -shared -Wl,-soname,libtelefork.so.0 -Wl,-z,now $(SANFLAGS) \
		-Wl,--version-script=core/telefork.map $$^ -o $$@

$$(B_$(1))/bin/telefork: $$(CMDOBJ_$(1)) $$(B_$(1))/lib/libtelefork.a
	@mkdir -p $$(@D)
	$(call say,LD,$$@)
	$(Q)$$(CC_$(1)) $(STATIC) $(SANFLAGS) $$^ $(LIBS_telefork) -o $$@ 2>$$@.log || { cat $$@.log; exit 1; }

# mmap_min_addr is 64 KiB by default: as low as a program may be.
$$(B_$(1))/bin/telefork-pad: $$(PADOBJ_$(1)) $$(B_$(1))/lib/libtelefork.a
	@mkdir -p $$(@D)
	$(call say,LD,$$@)
	$(Q)$$(CC_$(1)) $(STATIC) $(if $(SAN),,-Wl$(comma)-Ttext-segment=0x10000) $(SANFLAGS) $$^ -o $$@ \
		2>$$@.log || { cat $$@.log; exit 1; }

$$(B_$(1))/bin/telefork-witness: $$(call obj,core/cmd/witness_main.c,$$(B_$(1))) $$(B_$(1))/lib/libtelefork.a
	@mkdir -p $$(@D)
	$(call say,LD,$$@)
	$(Q)$$(CC_$(1)) $(STATIC) $(SANFLAGS) $$^ -o $$@ 2>$$@.log || { cat $$@.log; exit 1; }

# Each probe three ways: static, dynamic at a fixed address, and PIE.
$$(B_$(1))/probes/%-static: $$(B_$(1))/obj/tests/probes/%.o $$(PROBECOMMON_$(1)) $$(B_$(1))/lib/libtelefork.a
	@mkdir -p $$(@D)
	$(call say,LD,$$@)
	$(Q)$$(CC_$(1)) $(STATIC) $(SANFLAGS) $$^ $$(LIBS_probe) -o $$@ 2>$$@.log || { cat $$@.log; exit 1; }
$$(B_$(1))/probes/%-pie: $$(B_$(1))/obj/tests/probes/%.o $$(PROBECOMMON_$(1)) $$(B_$(1))/lib/libtelefork.a
	@mkdir -p $$(@D)
	$(call say,LD,$$@)
	$(Q)$$(CC_$(1)) -pie $(SANFLAGS) $$^ $$(LIBS_probe) -o $$@
$$(B_$(1))/probes/%-dyn: $$(B_$(1))/obj/tests/probes/%.o $$(PROBECOMMON_$(1)) $$(B_$(1))/lib/libtelefork.a
	@mkdir -p $$(@D)
	$(call say,LD,$$@)
	$(Q)$$(CC_$(1)) -no-pie $(SANFLAGS) $$^ $$(LIBS_probe) -o $$@

$$(B_$(1))/tests/%: $$(B_$(1))/obj/tests/unit/%.o $$(CMDLIB_$(1)) $$(B_$(1))/lib/libtelefork.a
	@mkdir -p $$(@D)
	$(call say,LD,$$@)
	$(Q)$$(CC_$(1)) $(STATIC) $(SANFLAGS) $$^ $(LIBS_unit) -o $$@ 2>$$@.log || { cat $$@.log; exit 1; }

# The guest: Debian's kernel, and an initramfs around the agent.
build/guest/$(1)/init: $$(call obj,$(GUEST_SRC),$$(B_$(1)))
	@mkdir -p $$(@D)
	$(call say,LD,$$@)
	$(Q)$$(CC_$(1)) -static $$^ -o $$@
build/guest/$(1)/initramfs: build/guest/$(1)/init qemu/guest/mkguest.sh
	$(call say,GUEST,$$@)
	$(Q)sh qemu/guest/mkguest.sh $(1) $$(@D) $$< $(TELEFORK_CACHE)
	@touch $$@

lib-$(1): $$(B_$(1))/lib/libtelefork.a $$(B_$(1))/lib/libtelefork.so
bin-$(1): $$(B_$(1))/bin/telefork $$(B_$(1))/bin/telefork-pad $$(B_$(1))/bin/telefork-witness
probes-$(1): $$(foreach p,$$(PROBES_$(1)),$$(B_$(1))/probes/$$p-static $$(B_$(1))/probes/$$p-pie $$(B_$(1))/probes/$$p-dyn)
unit-$(1): $$(UNIT_$(1):%=$$(B_$(1))/tests/%)
endef

LIBS_probe := -lm -lpthread
$(foreach a,$(ARCHES),$(eval $(call arch_rules,$(a))))

# ---------------------------------------------------------------- the host's own: QEMU machines

B := build/$(HOST)$(VARIANT)
QEMU_OBJ := $(QEMU_SRC:%=$(B)/obj/qemu/%.o)

$(B)/tests/test_qemu: $(B)/obj/tests/unit/test_qemu.o $(QEMU_OBJ)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC_$(HOST)) $(SANFLAGS) $^ -ljansson $(LIBS_unit) -o $@
$(B)/tests/vmcheck: $(B)/obj/qemu/vmcheck.o $(QEMU_OBJ)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC_$(HOST)) $(SANFLAGS) $^ -ljansson -o $@

$(B)/bin/telebed: $(B)/obj/harness/main.o $(QEMU_OBJ)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC_$(HOST)) $(SANFLAGS) $^ -ljansson -o $@

guests: $(ARCHES:%=build/guest/%/initramfs)

-include $(shell find build -name '*.d' 2>/dev/null)

# ---------------------------------------------------------------- targets

all: $(foreach a,$(ARCHES),lib-$(a) bin-$(a) probes-$(a))

# One case a line: name, time limit in seconds, command.
define CASES
$(foreach a,$(ARCHES),$(foreach t,$(UNIT_$(a)),unit-$(a)-$(t) 400 $(RUN_$(a)) $(B_$(a))/tests/$(t)
))
$(foreach r,file unix tcp,$(foreach v,static pie dyn,native-$(r)-$(v) 60 tests/journey.sh $(r) $(B_$(HOST)) hop-$(v)
))
$(foreach a,$(ARCHES),$(foreach r,file tcp,$(foreach v,static pie dyn,qemu-$(a)-$(r)-$(v) 120 tests/journey.sh $(r) $(B_$(a)) hop-$(v) qemu-$(a)
)))
$(foreach r,unix tcp,$(foreach v,static pie dyn,yoyo-$(r)-$(v) 60 tests/yoyo.sh $(r) $(B_$(HOST)) yoyo-$(v)
))
$(foreach a,$(ARCHES),$(foreach v,static pie dyn,yoyo-qemu-$(a)-$(v) 120 tests/yoyo.sh tcp $(B_$(a)) yoyo-$(v) qemu-$(a)
))
$(foreach a,$(ARCHES),guests-$(a) 300 $(B)/bin/telebed run $(a) build/$(a) hop-static hop-pie hop-dyn
)
unit-qemu 60 $(B)/tests/test_qemu
endef
export CASES

check: all $(foreach a,$(ARCHES),unit-$(a)) $(B)/tests/test_qemu $(B)/bin/telebed guests
	@echo "$$CASES" | tests/check.sh

clean:
	rm -rf build

help:
	@echo 'make [all]    libraries, commands and probes for $(ARCHES)'
	@echo 'make check    builds and runs every test; what .ci/run calls'
	@echo 'make clean    removes build/'
	@echo 'knobs: V=1 (show commands), SAN=address,undefined, OPT=-O2, TELEFORK_CACHE=folder'

FORCE:
.PHONY: all check guests clean help FORCE $(foreach a,$(ARCHES),lib-$(a) bin-$(a) probes-$(a) unit-$(a))
