# SPDX-License-Identifier: MIT
# telefork: one non-recursive Makefile; `make help` lists targets and knobs. Everything goes to
# build/<arch>[-<variant>]/{obj,bin,lib,probes,tests}; nothing is written beside sources.
#
# Knobs:
#   V=1                     show commands
#   SAN=address,undefined   sanitizers; host architecture only, `make check` then runs its unit tests
#   OPT=-O2                 optimisation
#   JOBS=2                  cases of `make check` at a time (machines of QEMU: one at a time)
#   FUZZ_SECONDS=60         for each target of `make fuzz`
#   BENCH=--quick           options and parts (times user work own yoyo outside again later precopy zygote) of `make bench`
#   PEERS_MIB="1 64" PEERS_MACHINE=  sizes of the program of `make bench-peers`, and its machine
#   SCALING="8 2 0 2 4"     of `make scaling`: MiB, MB/s of each line, ms that it is late, numbers of receivers
#   DESTDIR= PREFIX=        where `make install` installs to (/usr/local)
#   TELEFORK_CACHE=         folder for packages and templates of the guests (~/.cache/telefork)

VERSION  := 0.1.0
SOVERSION := 0
HOST     := $(shell uname -m)
V        ?= 0
SAN      ?=
DESTDIR  ?=
PREFIX   ?= /usr/local
OPT      ?= -O2
JOBS     ?= 2
FUZZ_SECONDS ?= 60
export TELEFORK_CACHE ?= $(HOME)/.cache/telefork

STARTED := $(shell date +%s)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
.SECONDARY:
MAKEFLAGS += --no-builtin-rules --no-builtin-variables --jobs=$(shell nproc) --output-sync=none

comma   := ,
empty   :=
space   := $(empty) $(empty)
ALL_ARCHES := x86_64 aarch64
ARCHES  := $(if $(SAN),$(HOST),$(ALL_ARCHES))
VARIANT := $(if $(SAN),-$(subst $(comma),-,$(SAN)))
Q       := $(if $(filter 1,$(V)),,@)
say      = $(if $(filter 1,$(V)),,@printf '  %-8s %s\n' '$(1)' '$(2)')

FOREIGN := $(filter-out $(HOST),$(ALL_ARCHES))
CC_$(HOST)    := gcc
CC_$(FOREIGN) := $(FOREIGN)-linux-gnu-gcc
RUN_$(HOST)    :=
RUN_$(FOREIGN) := qemu-$(FOREIGN)

# ---------------------------------------------------------------- sources

BASE_SRC    := err text arena buf crc32c io maps host guest twin \
	identity \
	stop \
	wait \

IMAGE_SRC   := known segments elfcore notes notes_table notes_print stream file \
	compare compare_maps compare_memory compare_state \
	runs \

CAPTURE_SRC := \
	rehearse \
	self \
	changes \
	describe \
	files \
	memory \
	huge \
	signal \
	task \
	task_stop \
	task_thread \
	task_wait \
	task_call \
	task_batch \
	task_ask \
	task_fork \
	task_snapshot \
	task_smaps \
	task_vdso \
	task_sparse \
	task_known \
	task_later \
	task_serve \
	track \
	track_soft \
	rounds \
	rounds_send \
	task_rounds \
	task_status \
	tags \
	task_tags \
	task_files \
	task_cpu \
	task_leftover \
	task_attrs \
	task_filter \
	rights \
	task_check \
	check_others \
	check_fds \
	task_objects \
	task_others \
	known \

CHANNEL_SRC := zygote_name frames address ssh dial listen handshake
RESTORE_SRC := \
	facts \
	facts_tasks \
	facts_memory \
	relay \
	merge \
	compat \
	compat_memory \
	fit \
	plan \
	build \
	build_memory \
	build_fill \
	build_process \
	build_threads \
	build_owners \
	build_attrs \
	build_rights \
	build_files \
	build_objects \
	build_later \
	build_zygote \
	build_staged \
	stage \
	files \
	known \
	objects \
	hole \
	vdso \
	tracer \
	landing \
	spaces \
	guard \
	pager \
	pad \
	pad_file \
	pad_child \
	zygote \
	result \
	restorer \

# With libraries of their own, which what is linked with libtelefork need not have.
PACK_SRC    := \
	codec \
	store \
	choose \
	packer \
	unpack \

LIB_SRC     := core/telefork.c core/spawn.c core/many.c core/yoyo.c core/job.c \
	$(BASE_SRC:%=core/base/%.c) $(IMAGE_SRC:%=core/image/%.c) \
	$(CAPTURE_SRC:%=core/capture/%.c) $(CHANNEL_SRC:%=core/channel/%.c) \
	$(RESTORE_SRC:%=core/restore/%.c) \
	arch/regs.c arch/x86_64/regs.c arch/aarch64/regs.c
# Built for their own architecture only.
ARCH_SRC    := cpu.c frame.c plan.c ptrace.c scramble.c tracer.c unwind.c entry.S
CMD_SRC     := \
	main \
	serve \
	precopy \
	pump \
	rehearse \
	restore \
	run \
	token \
	check \
	ask \
	send \
	packing \
	progress \
	journal \
	arrival \
	settle \
	forward \
	nursery \
	spawn \
	jobs \
	exits \
	text_json \
	inspect \
	inspect_json \
	diff \
	verify \
	disasm \
	symbols \
	timing \

PAD_SRC     := timing pad_main serve rehearse pump restore token exits journal arrival nursery forward
QEMU_SRC    := error io child wire machine kvm qmp gdb vm wait remote template switch relay link \
	alone \
	faults \
	stream \

# Of those: a link is of use without QEMU.
LINK_SRC    := link relay stream switch faults io wire error child
HARNESS_SRC := \
	main \
	home \
	cmd_run \
	cmd_exec \
	cmd_shell \
	cmd_replay \
	bed \
	cmd_machines \
	schema \
	machines \
	scenario \
	cells \
	run \
	inputs \
	pack \
	alone \
	keep \
	rewind \
	tap \
	janitor \
	journey \
	outside \
	engine \
	compare \
	oracle \
	explain \
	progress \
	report \
	remote \
	remote_guest \
	remote_host \
	cmd_report \
	durations \
	evidence \
	facts \
	host \
	report_html \
	report_json \
	report_junit \
	text \
	cmd_mutants \
	mutants \
	mutants_table \
	specimen \
	damage \
	damage_registers \
	damage_memory \
	damage_meaning \
	cmd_torture \
	faults \
	faults_table \
	faults_world \
	faults_census \
	faults_strike \
	faults_account \
	faults_cell \

# Of telefork(1), for reports.
HARNESS_CMD := \
	disasm \
	symbols \

BENCH_SRC   := \
	bench \
	report \
	heap \
	journey \
	times \
	work \
	yoyo \
	outside \
	floor \
	again \
	later \
	precopy \
	note \
	zygote \
	user \

COMMIT_SRC  := \
	commit \
	strike \
	network \
	world \

GUEST_SRC   := qemu/guest/init.c qemu/guest/agent.c qemu/guest/jobs.c qemu/guest/files.c \
	qemu/guest/setup.c qemu/wire.c
# These move themselves, or look at a child from outside: a sanitizer's process cannot.
MOVE_TESTS  := \
	test_failure \
	test_hidden \
	test_serve \
	test_limits \
	test_hostile \
	test_rounds \
	test_staged \
	test_pad \
	test_places \
	test_stop \
	test_task \
	test_attrs \
	test_tags \
	test_swap \
	test_cpu_of \
	test_snapshot \
	test_sparse \
	test_track \
	test_tracer \
	test_yoyo_live \
	test_threads \

SAN_TESTS   := \
	test_arch \
	test_base \
	test_choose \
	test_compat \
	test_files \
	test_fit \
	test_image \
	test_known \
	test_notes \
	test_owners \
	test_pack \
	test_plan \
	test_plan_memory \
	test_registers \
	test_runs \
	test_stream \
	test_yoyo \

# Of test_places.
PLACES_SRC  := \
	places \
	places_walks \
	places_calls \
	places_limits \

UNIT_TESTS  := $(SAN_TESTS) $(if $(SAN),,$(MOVE_TESTS))
PROBES      := \
	hop \
	spin \
	yoyo \
	yoyo_more \
	registers \
	signed \
	memory \
	clib \
	threads \
	chain \
	still \
	lua \
	outside \
	outmem \
	crew \
	obstacles \
	busy \
	files \
	settled \
	attrs \
	locks \
	later \
	storm \
	precopy \
	wrong \
	alone \
	brood \
	flock \

PROBE_SRC   := tests/probes/probe.c tests/probes/back.c tests/probes/process.c tests/probes/areas.c \
	tests/probes/memory_areas.c tests/probes/memory_special.c tests/probes/memory_maps.c \
	tests/probes/outmem_files.c tests/probes/outmem_shared.c tests/probes/outmem_flags.c \
	tests/probes/outmem_process.c tests/probes/clib_threads.c tests/probes/clib_process.c \
	tests/probes/attrs_see.c tests/probes/attrs_rights.c tests/probes/attrs_timers.c
# Moments of the spin probe in make check; make moments has 500 of each.
MOMENTS_qemu_aarch64 := 60
MOMENTS_qemu_x86_64  := 30
PROBE_ARCH_SRC := registers.S state.c keys.c

# ---------------------------------------------------------------- flags

WARN     := -Wall -Wextra -Werror -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wvla
CPPFLAGS := -I. -D_GNU_SOURCE -DTF_VERSION='"$(VERSION)"'
CFLAGS   := -std=gnu17 $(OPT) -g -fPIC -fno-plt -fno-omit-frame-pointer $(WARN)
# The restorer runs where there is no libc, no TLS and nobody's vector registers.
RESTORER := -std=gnu17 -O2 -g -fPIC $(WARN) -ffreestanding -fno-builtin -fno-stack-protector \
	-fno-jump-tables -fno-tree-loop-distribute-patterns -mgeneral-regs-only
RESTORER_x86_64  := -fcf-protection=none
RESTORER_aarch64 := -mno-outline-atomics -mbranch-protection=none

SHARED := -shared -Wl,-soname,libtelefork.so.$(SOVERSION) -Wl,-z,now -Wl,--version-script=core/telefork.map
# mmap_min_addr is 64 KiB by default: as low as a program may be.
LOWEST := -Wl,-Ttext-segment=0x10000

LIBS_telefork := -lcapstone -lelf -lz -ljansson
LIBS_pack     := -llz4 -lzstd -lnettle
LIBS_probe    := -lm -lpthread
LIBS_unit     := -lcheck -lsubunit -lm -lrt -lpthread

# ---------------------------------------------------------------- packages

DEB_x86_64  := amd64
DEB_aarch64 := arm64
CROSS    := $(subst _,-,$(FOREIGN))-linux-gnu
PACKAGES := gcc libc6-dev binutils gcc-$(CROSS) libc6-dev-$(DEB_$(FOREIGN))-cross \
	libconfig-dev libexpat1-dev libxml2-dev qemu-user qemu-system-x86 qemu-system-arm gdb-multiarch cpio xz-utils zstd luajit \
	bc gojq python3-minimal python3-jsonschema python3-yaml libxml2-utils libgcc-s1:$(DEB_$(FOREIGN))
# For both architectures.
PACKAGES += $(foreach p,libc6 libelf-dev libcapstone-dev libjansson-dev libpng-dev zlib1g-dev check \
	liblz4-dev libzstd-dev nettle-dev,\
	$(p) $(p):$(DEB_$(FOREIGN)))
# In the guests; what they depend on comes along.
GUEST_PACKAGES := \
	bash \
	bc \
	busybox-static \
	gojq \
	libpng16-16 \
	luajit \
	python3-minimal \
	util-linux \

CHECK_PACKAGES := openssh-client openssh-server
FUZZ_PACKAGES := clang libclang-rt-14-dev
PAGE_PACKAGES := chromium fonts-dejavu-core
LINT_PACKAGES := clang-tidy clang-format cppcheck shellcheck groff-base mandoc
REPLAY_PACKAGES := qemu-utils tcpdump
BENCH_PACKAGES := gnuplot-nox
NEED := $(PACKAGES) $(if $(filter check check-%,$(MAKECMDGOALS)),$(CHECK_PACKAGES)) \
	$(if $(filter fuzz,$(MAKECMDGOALS)),$(FUZZ_PACKAGES)) \
	$(if $(filter lint format,$(MAKECMDGOALS)),$(LINT_PACKAGES)) \
	$(if $(filter report-screenshots,$(MAKECMDGOALS)),$(PAGE_PACKAGES)) \
	$(if $(filter replay-check,$(MAKECMDGOALS)),$(REPLAY_PACKAGES)) \
	$(if $(filter bench,$(MAKECMDGOALS)),$(BENCH_PACKAGES))

# Names what is missing, then installs it. Read by make before anything is built.
define install_missing
have=$$(dpkg-query -W -f '$${db:Status-Status} $${Package}:$${Architecture}\n' $(NEED) 2>/dev/null | \
	sed 's/:$(DEB_$(HOST))$$//; s/:all$$//'); \
missing=; \
for p in $(NEED); do \
	echo "$$have" | grep -qxF "installed $$p" || missing="$$missing $$p"; \
done; \
[ -n "$$missing" ] || exit 0; \
echo "installing Debian packages:$$missing" >&2; \
if [ "$$(id -u)" != 0 ]; then \
	echo "this needs root: apt-get install$$missing" >&2; exit 1; \
fi; \
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1; : 'no service is started, where init asks that'; \
dpkg --add-architecture $(DEB_$(FOREIGN)) && apt-get -qq update >&2 && \
apt-get -qq install -y --no-install-recommends $$missing >&2 </dev/null || \
{ echo "could not install:$$missing (apt's reason stands above; Debian 12 has them all)" >&2; exit 1; }
endef

ifneq ($(filter-out clean help,$(or $(MAKECMDGOALS),all)),)
ifneq ($(shell ( $(install_missing) ); echo $$?),0)
$(error packages are missing)
endif
endif

# ---------------------------------------------------------------- rules for one architecture

# Objects of the sources $(1) in the folder $(2).
obj = $(addprefix $(2)/obj/,$(addsuffix .o,$(basename $(1))))

# Recipes: compile in the folder $(1) with the flags $(2); link there with the flags $(2), libraries
# $(3). The linker's word about getaddrinfo in static programs stays in a log, unless it fails.
define compile
@mkdir -p $(@D)
$(call say,CC,$@)
$(Q)$(COMPILE_$(1)) $(2) -c $< -o $@
endef
define link
@mkdir -p $(@D)
$(call say,LD,$@)
$(Q)$(LINK_$(1)) $(2) $(filter %.o %.a,$^) $(3) -o $@ 2>$@.log || { cat $@.log; exit 1; }
endef

# $(1) architecture, $(2) output folder, $(3) compiler, $(4) sanitizers
define arch_rules
COMPILE_$(2) := $(3) $(CPPFLAGS) -DTF_ARCH_RESTORER_HEADER='"arch/$(1)/restorer.h"' -MMD -MP
CFLAGS_$(2)  := $(CFLAGS) $(if $(4),-fsanitize=$(4) -fno-sanitize-recover=all)
LINK_$(2)    := $(3) $(if $(4),-fsanitize=$(4))
# Static, so that it runs in an initramfs and under QEMU user mode; a sanitizer needs a dynamic one.
STATIC_$(2)  := $(if $(4),,-static)

# Rebuilt when flags change.
$(2)/flags: FORCE
	@mkdir -p $$(@D)
	@echo '$$(subst ','\'',$$(COMPILE_$(2)) $$(CFLAGS_$(2)))' | cmp -s - $$@ || \
		echo '$$(subst ','\'',$$(COMPILE_$(2)) $$(CFLAGS_$(2)))' >$$@

$(2)/obj/%.o: %.c $(2)/flags
	$$(call compile,$(2),$$(CFLAGS_$(2)))
$(2)/obj/%.o: %.S $(2)/flags
	$$(call compile,$(2),-g)
$(2)/obj/core/restore/restorer.o: COMPILE_$(2) := $$(patsubst $(3),$$(CC_$(1)),$$(COMPILE_$(2)))
$(2)/obj/core/restore/restorer.o: core/restore/restorer.c $(2)/flags
	$$(call compile,$(2),$$(RESTORER) $$(RESTORER_$(1)))
	@! readelf -rW $$@ | grep -A99 "'.rela.*tf_restorer'" | sed '/^$$$$/q' | grep R_ || \
		{ echo "$$@: the restorer must not need relocation" >&2; exit 1; }

$(2)/lib/libtelefork.a: $(call obj,$(LIB_SRC) $(ARCH_SRC:%=arch/$(1)/%),$(2))
	@mkdir -p $$(@D)
	$$(call say,AR,$$@)
	$(Q)rm -f $$@ && ar rcsD $$@ $$^
$(2)/lib/libtelefork.so: $(call obj,$(LIB_SRC) $(ARCH_SRC:%=arch/$(1)/%),$(2)) core/telefork.map
	$$(call link,$(2),$$(SHARED))

$(2)/bin/telefork: $(call obj,$(CMD_SRC:%=core/cmd/%.c) $(PACK_SRC:%=core/pack/%.c),$(2)) $(2)/lib/libtelefork.a
	$$(call link,$(2),$$(STATIC_$(2)),$(LIBS_telefork) $(LIBS_pack))
$(2)/bin/telefork-pad: $(call obj,$(PAD_SRC:%=core/cmd/%.c) $(PACK_SRC:%=core/pack/%.c),$(2)) $(2)/lib/libtelefork.a
	$$(call link,$(2),$$(STATIC_$(2)) $(if $(4),,$$(LOWEST)),$(LIBS_pack))
$(2)/bin/telefork-witness: $(2)/obj/core/cmd/witness_main.o $(2)/lib/libtelefork.a
	$$(call link,$(2),$$(STATIC_$(2)))
# What telebed needs in its machines.
$(2)/bin/telebed-hand: $(2)/obj/harness/hand.o
	$$(call link,$(2),$$(STATIC_$(2)))
$(2)/tests/counter: $(2)/obj/tests/commit/counter.o
	$$(call link,$(2),$$(STATIC_$(2)),-lpthread)
$(addprefix $(2)/tests/tools/,gate ticker): $(2)/tests/tools/%: $(2)/obj/tests/tools/%.o
	$$(call link,$(2),$$(STATIC_$(2)))
$(2)/tests/small: $(2)/obj/tests/bench/small.o $(2)/lib/libtelefork.a
	$$(call link,$(2),$$(STATIC_$(2)))

# What probes share, and each probe three ways: static, dynamic at a fixed address, and PIE.
$(2)/lib/libprobe.a: $(call obj,$(PROBE_SRC) $(PROBE_ARCH_SRC:%=tests/probes/$(1)/%),$(2))
	@mkdir -p $$(@D)
	$$(call say,AR,$$@)
	$(Q)rm -f $$@ && ar rcsD $$@ $$^
$(2)/probes/%-static: $(2)/obj/tests/probes/%.o $(2)/lib/libprobe.a $(2)/lib/libtelefork.a
	$$(call link,$(2),$$(STATIC_$(2)),$(LIBS_probe))
$(2)/probes/%-pie: $(2)/obj/tests/probes/%.o $(2)/lib/libprobe.a $(2)/lib/libtelefork.a
	$$(call link,$(2),-pie,$(LIBS_probe))
$(2)/probes/%-dyn: $(2)/obj/tests/probes/%.o $(2)/lib/libprobe.a $(2)/lib/libtelefork.a
	$$(call link,$(2),-no-pie,$(LIBS_probe))

$(2)/examples/%: $(2)/obj/docs/examples/%.o $(2)/lib/libtelefork.a
	$$(call link,$(2),$$(STATIC_$(2)),-lpng -lz -lm)
# What telebed moves besides the probes.
$(2)/probes/pathtracer-static: $(2)/examples/pathtracer
	@mkdir -p $$(@D)
	$(Q)ln -f $$< $$@

$(2)/tests/test_places: $(addprefix $(2)/obj/tests/,$(PLACES_SRC:%=unit/%.o) probes/$(1)/places.o)
$(addprefix $(2)/tests/,test_choose test_pack test_rounds test_staged): $(2)/tests/%: $(2)/obj/tests/unit/%.o $(call obj,$(PACK_SRC:%=core/pack/%.c),$(2)) $(2)/lib/libtelefork.a
	$$(call link,$(2),$$(STATIC_$(2)),$(LIBS_pack) $(LIBS_unit))
$(2)/tests/%: $(2)/obj/tests/unit/%.o $(2)/lib/libtelefork.a
	$$(call link,$(2),$$(STATIC_$(2)),$(LIBS_unit))
endef

define arch_targets
B_$(1) := build/$(1)$(VARIANT)
lib-$(1): $$(B_$(1))/lib/libtelefork.a $$(B_$(1))/lib/libtelefork.so
bin-$(1): $$(foreach b,telefork telefork-pad telefork-witness telebed-hand,$$(B_$(1))/bin/$$b) $(if $(SAN),,$$(B_$(1))/tests/counter $$(B_$(1))/tests/tools/gate)
probes-$(1): $$(foreach p,$(PROBES),$$(foreach v,static pie dyn,$$(B_$(1))/probes/$$p-$$v))
examples-$(1): $$(B_$(1))/examples/pathtracer $$(B_$(1))/probes/pathtracer-static
unit-$(1): $$(UNIT_TESTS:%=$$(B_$(1))/tests/%) $(if $(SAN),,$$(B_$(1))/bin/telefork-pad)
endef

$(foreach a,$(ARCHES),$(eval $(call arch_targets,$(a))))
$(foreach a,$(ARCHES),$(eval $(call arch_rules,$(a),$(B_$(a)),$(CC_$(a)),$(SAN))))

# ---------------------------------------------------------------- the host's own: sanitizers, QEMU machines

B := $(B_$(HOST))

# The unit tests run with sanitizers as well, without a knob.
B_SAN := build/$(HOST)-address-undefined
ifeq ($(SAN),)
$(eval $(call arch_rules,$(HOST),$(B_SAN),$(CC_$(HOST)),address$(comma)undefined))
endif

$(addprefix $(B)/tests/tools/,captures kills): $(B)/obj/tests/tools/process.o
$(B)/tests/tools/%: $(B)/obj/tests/tools/%.o $(B)/lib/libtelefork.a
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC_$(HOST)) $(SANFLAGS) $^ -o $@

$(B)/tests/tools/slow: $(B)/obj/tests/tools/slow.o $(LINK_SRC:%=$(B)/obj/qemu/%.o)
	$(call link,$(B))

# In guests as well.
$(B_$(FOREIGN))/tests/tools/slow: $(addprefix $(B_$(FOREIGN))/obj/,tests/tools/slow.o $(LINK_SRC:%=qemu/%.o))
	$(call link,$(B_$(FOREIGN)),-static)
$(foreach a,$(ARCHES),$(B_$(a))/tests/tools/container): build/%/tests/tools/container: build/%/obj/tests/tools/container.o
	$(call link,$(@:/tests/tools/container=),-static)

# The cells of docs/commit.md, and the program that is moved in them.
$(B)/tests/commit: $(COMMIT_SRC:%=$(B)/obj/tests/commit/%.o) $(LINK_SRC:%=$(B)/obj/qemu/%.o) $(B)/obj/harness/faults_table.o
	$(call link,$(B))

$(B)/tests/bench: $(BENCH_SRC:%=$(B)/obj/tests/bench/%.o) $(PACK_SRC:%=$(B)/obj/core/pack/%.o) \
		$(B)/lib/libtelefork.a | $(B)/tests/tools/slow
	$(call link,$(B),,-ljansson $(LIBS_pack))

$(B)/tests/peers: $(B)/obj/tests/bench/peers.o $(B)/obj/tests/bench/report.o
	$(call link,$(B),,-ljansson)

# libFuzzer is clang's.
B_FUZZ := build/$(HOST)-fuzz
FUZZERS := fuzz_image fuzz_stream fuzz_pack
$(eval $(call arch_rules,$(HOST),$(B_FUZZ),clang,fuzzer-no-link$(comma)address$(comma)undefined))
$(B_FUZZ)/fuzz/fuzz_pack: $(B_FUZZ)/obj/tests/fuzz/fuzz_pack.o $(PACK_SRC:%=$(B_FUZZ)/obj/core/pack/%.o) $(B_FUZZ)/lib/libtelefork.a
	$(call link,$(B_FUZZ),-fsanitize=fuzzer,$(LIBS_pack))
$(B_FUZZ)/fuzz/%: $(B_FUZZ)/obj/tests/fuzz/%.o $(B_FUZZ)/lib/libtelefork.a
	$(call link,$(B_FUZZ),-fsanitize=fuzzer)

QEMU_OBJ := $(call obj,$(QEMU_SRC:%=qemu/%.c),$(B))

$(addprefix $(B)/tests/,test_qemu test_link): $(B)/tests/%: $(B)/obj/tests/unit/%.o $(QEMU_OBJ)
	$(call link,$(B),,-ljansson -lexpat $(LIBS_unit))
$(B)/tests/test_evidence: $(B)/obj/tests/unit/test_evidence.o $(patsubst %,$(B)/obj/harness/%.o,$(filter-out main,$(HARNESS_SRC))) \
	$(B)/obj/harness/html/embed.o $(HARNESS_CMD:%=$(B)/obj/core/cmd/%.o) $(QEMU_OBJ) $(B)/lib/libtelefork.a
	$(call link,$(B),,-ljansson -lexpat -lconfig -lxml2 -lcapstone -lelf $(LIBS_unit))
$(B)/tests/test_text: $(B)/obj/tests/unit/test_text.o $(B)/obj/harness/text.o
	$(call link,$(B),,-ljansson $(LIBS_unit))
$(B)/tests/test_torture: $(B)/obj/tests/unit/test_torture.o $(addprefix $(B)/obj/,harness/faults.o \
		harness/faults_table.o harness/faults_census.o qemu/error.o)
	$(call link,$(B),,$(LIBS_unit))
$(B)/tests/tools/vmcheck: $(B)/obj/tests/tools/vmcheck.o $(QEMU_OBJ)
	$(call link,$(B),,-ljansson -lexpat)
$(B)/bin/telebed: $(HARNESS_SRC:%=$(B)/obj/harness/%.o) $(B)/obj/harness/html/embed.o \
	$(HARNESS_CMD:%=$(B)/obj/core/cmd/%.o) $(QEMU_OBJ) $(B)/lib/libtelefork.a
	$(call link,$(B),,-ljansson -lexpat -lconfig -lxml2 -lcapstone -lelf)
$(B)/obj/harness/report_junit.o: private COMPILE_$(B) += -I/usr/include/libxml2
# The page of reports, and what describes them, are part of the program.
$(B)/page.html: $(addprefix harness/html/,make.sh page.html page.css page.js)
	@mkdir -p $(@D)
	$(call say,PAGE,$@)
	$(Q)sh harness/html/make.sh harness/html >$@
$(B)/obj/harness/html/embed.o: private COMPILE_$(B) += -DTF_REPORT_PAGE='"$(B)/page.html"'
$(B)/obj/harness/html/embed.o: $(B)/page.html docs/report.schema.json

# LuaJIT, a program that is not ours. Its package cannot be installed for two architectures at once.
build/$(HOST)/luajit:
	@mkdir -p $(@D)
	$(Q)ln -sf /usr/bin/luajit $@
build/$(FOREIGN)/luajit:
	@mkdir -p $(@D)
	$(call say,UNPACK,$@)
	$(Q)cd $(@D) && rm -rf luajit.deb luajit.root && mkdir luajit.deb luajit.root && cd luajit.deb && \
		apt-get -qq -o APT::Sandbox::User=root download luajit:$(DEB_$(FOREIGN)) && \
		dpkg-deb -x luajit_*.deb ../luajit.root && ln -sf luajit.root/usr/bin/luajit ../luajit

# A program under AddressSanitizer, whose library it has in itself: guests have none.
define program_rules
$(2)/programs/churn: tests/programs/churn.c
	@mkdir -p $$(@D)
	$$(call say,LD,$$@)
	$(Q)$(3) -O1 -g -fsanitize=address -static-libasan $$< -o $$@
$(2)/programs/high $(2)/programs/again: $(2)/programs/%: tests/programs/%.c
	@mkdir -p $$(@D)
	$$(call say,LD,$$@)
	$(Q)$(3) -O1 -static $$< -o $$@
programs-$(1): $(2)/programs/churn $(2)/programs/high $(2)/programs/again
endef
$(foreach a,$(ARCHES),$(eval $(call program_rules,$(a),$(B_$(a)),$(CC_$(a)))))

# A guest: Debian's kernel, and an initramfs of Debian's programs and the agent; which versions of them
# is in this file. $(1) architecture
LOCK := qemu/guest/inputs.lock
define guest_rules
build/guest/$(1)/init: $(call obj,$(GUEST_SRC),$(B_$(1)))
	$$(call link,$(B_$(1)),-static)
# What tests/tools/vmcheck runs inside guests.
build/guest/$(1)/guestprobe: $(call obj,tests/probes/guestprobe.c,$(B_$(1)))
	$$(call link,$(B_$(1)),-static)
build/guest/$(1)/root.cpio: qemu/guest/mkroot.sh qemu/guest/inputs.sh $(LOCK) Makefile
	@mkdir -p $$(@D)
	$$(call say,ROOT,$$@)
	$(Q)sh qemu/guest/mkroot.sh $(1) $$@ $(TELEFORK_CACHE) $(LOCK) root $(GUEST_PACKAGES)
GUEST_INPUTS += root,$(1),-,$(subst $(space),$(comma),$(GUEST_PACKAGES))
endef
$(foreach a,$(ARCHES),$(eval $(call guest_rules,$(a))))

# For cells of the engine CRIU, and for machines whose programs are of the other architecture. $(1)
# architecture, $(2) the other
define program_of_guest_rules
build/guest/$(1)/criu.tar: qemu/guest/mkprogram.sh qemu/guest/mkroot.sh qemu/guest/inputs.sh $(LOCK)
	$$(call say,GUEST,$$@)
	$(Q)sh qemu/guest/mkprogram.sh $(1) $$@ $(TELEFORK_CACHE) $(LOCK) criu usr/sbin/criu
build/guest/$(1)/qemu-$(2): qemu/guest/mkprogram.sh qemu/guest/mkroot.sh qemu/guest/inputs.sh $(LOCK)
	$$(call say,GUEST,$$@)
	$(Q)sh qemu/guest/mkprogram.sh $(1) $$@.tar $(TELEFORK_CACHE) $(LOCK) qemu-user-static usr/bin/qemu-$(2)-static
	$(Q)tar -xOf $$@.tar usr/bin/qemu-$(2)-static >$$@ && chmod 755 $$@ && rm $$@.tar
MORE_GUESTS += build/guest/$(1)/criu.tar build/guest/$(1)/qemu-$(2)
GUEST_INPUTS += criu,$(1),-,busybox-static,criu qemu-user-static,$(1),-,busybox-static,qemu-user-static
endef
$(foreach a,$(ARCHES),$(eval $(call program_of_guest_rules,$(a),$(filter-out $(a),$(ALL_ARCHES)))))

# $(1) folder, $(2) architecture, $(3) the scenarios' name for the kernel, $(4) suite, $(5) package
define kernel_rules
build/guest/$(1)/initramfs: build/guest/$(2)/init build/guest/$(2)/root.cpio qemu/guest/mkguest.sh
	@mkdir -p $$(@D)
	$$(call say,GUEST,$$@)
	$(Q)sh qemu/guest/mkguest.sh $(2) $$(@D) $$< $(TELEFORK_CACHE) $(LOCK) build/guest/$(2)/root.cpio $(3) $(4) $(5)
	@touch $$@
GUEST_INPUTS += $(3),$(2),$(4),$(5)
$(if $(filter 6.1,$(3)),,MORE_GUESTS += build/guest/$(1)/initramfs)
endef
$(foreach a,$(ARCHES),$(eval $(call kernel_rules,$(a),$(a),6.1,-,linux-image-cloud-$(DEB_$(a)))))
$(eval $(call kernel_rules,x86_64-6.12,x86_64,6.12,bookworm-backports,linux-image-cloud-amd64))
$(eval $(call kernel_rules,aarch64-6.12,aarch64,6.12,bookworm-backports,linux-image-cloud-arm64))
$(eval $(call kernel_rules,aarch64-16k,aarch64,16k,bookworm-backports,linux-image-arm64-16k))
$(eval $(call kernel_rules,x86_64-newest,x86_64,newest,sid,linux-image-cloud-amd64))
$(eval $(call kernel_rules,aarch64-newest,aarch64,newest,sid,linux-image-cloud-arm64))

# Man pages share their tables with the code.
MAN := $(patsubst docs/man/%,build/man/%,$(wildcard docs/man/*.[1-8]))
build/man/%: docs/man/% $(wildcard docs/man/*.awk) docs/man/make.sh core/cmd/cmd.h core/telefork.h docs/format.md
	@mkdir -p $(@D)
	$(call say,MAN,$@)
	$(Q)sh docs/man/make.sh $< >$@
# Completion for shells is made of what the program says of itself.
COMPLETION := build/completion/telefork build/completion/_telefork
build/completion/telefork: SHELL_NAME := bash
build/completion/_telefork: SHELL_NAME := zsh
$(COMPLETION): build/completion/%: $(B)/bin/telefork $(wildcard docs/completion/*)
	@mkdir -p $(@D)
	$(call say,SHELL,$@)
	$(Q)sh docs/completion/make.sh $(SHELL_NAME) $< >$@
# For make lint: warnings of groff and of mandoc are errors.
lint-man: $(MAN)
	@! groff -man -Tutf8 -ww -z $(MAN) 2>&1 | grep . && ! mandoc -T lint -W warning $(MAN) | grep .
# Its return addresses are signed.
$(B_aarch64)/obj/tests/probes/crew.o $(B_aarch64)/obj/tests/unit/test_threads.o \
$(B_aarch64)/obj/tests/probes/signed.o: private COMPILE_$(B_aarch64) += -mbranch-protection=standard

-include $(shell find build -name '*.d' 2>/dev/null)

# ---------------------------------------------------------------- targets

all: $(foreach a,$(ARCHES),lib-$(a) bin-$(a) probes-$(a) examples-$(a)) $(B)/bin/telebed $(MAN) $(COMPLETION) ## libraries, commands and probes of both architectures

guests: $(ARCHES:%=build/guest/%/initramfs) ## kernels and initramfs of the QEMU machines

.PHONY: guests-update
guests-update: ## moves what guests are made of to its newest versions: writes qemu/guest/inputs.lock
	@mkdir -p build
	@echo '# Debian packages in guests (qemu/guest/inputs.sh): kind, architecture, package, version, SHA-256.' >build/inputs.lock
	@printf '%s\n' $(foreach i,$(GUEST_INPUTS),'$(subst $(comma), ,$(i))') | sh qemu/guest/inputs.sh newest >>build/inputs.lock
	@cp build/inputs.lock $(LOCK)

# A QEMU beside the system's.
build/qemu/qemu-system-$(HOST)-newer: qemu/guest/mkqemu.sh qemu/guest/inputs.sh $(LOCK)
	$(call say,QEMU,$@)
	$(Q)sh qemu/guest/mkqemu.sh $(@D) $(TELEFORK_CACHE) $(LOCK) bookworm-backports
GUEST_INPUTS += $(ALL_ARCHES:%=qemu$(comma)%$(comma)bookworm-backports$(comma)qemu-system-x86$(comma)qemu-system-arm)

more-guests: guests $(MORE_GUESTS) build/qemu/qemu-system-$(HOST)-newer ## guests with other kernels, CRIU and QEMU user mode for them, and a newer QEMU

# make own-guest NAME=mine KERNEL=FILE [ARCH=x86_64] [MODULES=/lib/modules/VERSION] [ROOT=FOLDER or archive of cpio]
ARCH ?= $(HOST)
own-guest: build/guest/$(ARCH)/init build/guest/$(ARCH)/root.cpio ## a guest with a kernel and a root of one's own: NAME= KERNEL= ARCH= MODULES= ROOT=
	@[ -n "$(NAME)" ] && [ -n "$(KERNEL)" ] || { echo "make own-guest NAME=... KERNEL=FILE" >&2; exit 1; }
	$(Q)MODULES=$(MODULES) sh qemu/guest/mkguest.sh $(ARCH) build/guest/own/$(NAME) $< $(TELEFORK_CACHE) $(LOCK) \
		"$(or $(ROOT),build/guest/$(ARCH)/root.cpio)" own file $(KERNEL)
	@echo 'machines = ( { name = "$(NAME)"; arch = "$(ARCH)"; tier = "system"; kernel = "./kernel"; initramfs = "./initramfs"; } );' | \
		tee build/guest/own/$(NAME)/machines.conf

unit: $(foreach a,$(ARCHES),unit-$(a)) $(addprefix $(B)/tests/,test_qemu test_text test_evidence test_link test_torture)

include tests/cases.mk
export UNIT_CASES CASES GUEST_CASES REPLAY_CASES

ifneq ($(SAN),)
check: unit
	@echo "$$UNIT_CASES" | JOBS=$(JOBS) tests/ungrouped.sh tests/check.sh
else
TEST_TOOLS := $(addprefix $(B)/tests/tools/,moments captures kills vmcheck slow container) \
	$(ARCHES:%=build/%/luajit) $(ARCHES:%=build/guest/%/guestprobe)
check: all unit $(ARCHES:%=programs-%) $(SAN_TESTS:%=$(B_SAN)/tests/%) guests $(TEST_TOOLS) $(addprefix $(B)/tests/,commit counter) ## builds and runs every test; what .ci/run calls
	@echo "$$UNIT_CASES $$CASES" | JOBS=$(JOBS) tests/ungrouped.sh tests/check.sh
endif

commit: bin-$(HOST) $(addprefix $(B)/tests/,commit counter) ## every cell of docs/commit.md, at every system call
	$(foreach p,sender session receiver network,tests/ungrouped.sh $(B)/tests/commit $(CURDIR)/$(B)/bin/telefork $(CURDIR)/$(B)/tests/counter $(p) &&) true

torture: $(ARCHES:%=bin-%) $(B)/bin/telebed guests ## a program is moved for half an hour while something goes wrong each time
	tests/ungrouped.sh $(B)/bin/telebed torture --minutes 20 --quiet
	tests/ungrouped.sh $(B)/bin/telebed torture --minutes 5 --quiet --precopy
	$(B)/bin/telebed torture --minutes 5 --quiet --tier user
	$(foreach a,$(ARCHES),$(B)/bin/telebed torture --minutes 5 --quiet --tier system --arch $(a) &&) true

moments: probes-$(HOST) $(ARCHES:%=probes-%) $(ARCHES:%=bin-%) $(B)/tests/tools/moments ## 500 captures of each architecture
	$(B)/tests/tools/moments $(B) 500
	$(foreach a,$(ARCHES),$(B)/tests/tools/moments $(B_$(a)) 500 qemu-$(a) &&) true

captures: bin-$(HOST) probes-$(HOST) $(B)/tests/tools/captures ## 1,000 captures from outside of a program with threads
	tests/ungrouped.sh $(B)/tests/tools/captures $(B) 1000

moves: bin-$(HOST) probes-$(HOST) ## 200 moves of one program with threads, back and forth, in each mode
	$(foreach o,no-precopy precopy lazy,tests/ungrouped.sh tests/moves.sh $(B) 200 --$(o) &&) true

kills: bin-$(HOST) probes-$(HOST) $(B)/tests/tools/kills ## telefork is killed at each of its ptrace calls
	tests/ungrouped.sh $(B)/tests/tools/kills $(B) 1

mutants: $(foreach a,$(ARCHES),bin-$(a) probes-$(a)) $(B)/bin/telebed guests ## damages every kind of state on purpose, on both architectures: do the probes see it?
	$(B)/bin/telebed mutants --json build/mutants.json

# Only what it moves is built: the first time is somebody's first impression.
DEMO := $(foreach a,$(ARCHES),bin-$(a) $(B_$(a))/probes/registers-static $(B_$(a))/probes/pathtracer-static)
demo: $(DEMO) $(B)/bin/telebed guests ## moves programs between QEMU machines and shows what arrived
	@tests/demo.sh $(STARTED)

.PHONY: modes
modes: $(ARCHES:%=bin-%) $(ARCHES:%=programs-%) $(ARCHES:%=probes-%) $(B)/bin/telebed guests ## probes and programs taken from outside in every mode: whole, in rounds, afterwards
	tests/ungrouped.sh $(B)/bin/telebed run --set modes --no-skip --table

pairs: $(ARCHES:%=bin-%) $(ARCHES:%=programs-%) $(ARCHES:%=probes-%) $(B)/bin/telebed more-guests ## moves between machines that differ: kernel, processor, vector length, pages
	@mkdir -p build/pairs
	tests/ungrouped.sh $(B)/bin/telebed run --set pairs --no-skip --table --report build/pairs/report.json

.PHONY: bed matrix
bed: $(foreach t,lib bin probes examples programs,$(ARCHES:%=$(t)-%)) $(ARCHES:%=build/%/luajit) $(B)/bin/telebed guests ## all that telebed run needs for the default matrix

matrix: bed more-guests ## the whole matrix, every engine beside the others: build/report.html
	$(B)/bin/telebed run --set default --set engines --report build/report.json --report build/report.html

in-guests: $(ARCHES:%=bin-%) $(ARCHES:%=unit-%) $(ARCHES:%=probes-%) $(ARCHES:%=programs-%) $(ARCHES:%=build/%/tests/tools/container) $(B_$(FOREIGN))/tests/tools/slow $(B)/bin/telebed guests $(ARCHES:%=build/guest/%-6.12/initramfs) build/qemu/qemu-system-$(HOST)-newer ## what make check has no time for in a guest: swap, tags, hosts that are stricter, every place and obstacle of the foreign architecture
	@echo "$$GUEST_CASES" | LOG=build/in-guests tests/ungrouped.sh tests/check.sh

transcript: $(ARCHES:%=bin-%) $(B)/bin/telebed guests ## a Python program goes to another machine and comes back
	@rm -rf build/transcript
	@$(B)/bin/telebed run home --filter system --keep --out build/transcript >/dev/null
	@cat build/transcript/home-*/transcript.txt

report-screenshots: $(B)/bin/telebed ## opens the page of a report in Chromium: what it draws is checked, pictures are in build/screenshots
	tests/screenshots.sh $(B)/bin/telebed build/screenshots

bench: $(B)/tests/bench $(B)/bin/telefork $(foreach a,$(ARCHES),$(B_$(a))/bin/telefork-pad $(B_$(a))/tests/small) ## what telefork costs, each against its aim: a table, and build/bench with bench.json and plots
	@mkdir -p build/bench && rm -f build/bench/*.*
	$(B)/tests/bench $(B)/bin/telefork-pad build/bench $(BENCH)
	gnuplot -e "folder='build/bench'" tests/bench/plots.gp

# The model of docs/scaling.md: MiB, MB/s of each line, its delay in ms, numbers of receivers.
SCALING ?= 8 2 0 2 4 8 16
.PHONY: scaling
scaling: $(B)/bin/telefork-pad $(B)/probes/flock-static $(B)/tests/tools/slow ## one program to many receivers, each in QEMU user mode behind a line of its own: measured beside the model
	tests/bench/scaling.sh $(B) $(B) qemu-$(HOST) $(SCALING)

# Both in a guest, where CRIU runs; bounded, since nobody waits for a guest that hangs.
PEERS_MIB ?= 1 64
PEERS_MACHINE ?= $(HOST)-large
.PHONY: bench-peers
bench-peers: $(B)/tests/peers $(B)/bin/telefork $(B)/tests/tools/ticker $(B)/bin/telebed build/guest/$(HOST)/initramfs build/guest/$(HOST)/criu.tar ## the same work by telefork and by CRIU, in a guest: a table, and build/bench/peers with bench.json
	@mkdir -p build/bench/peers && rm -f build/bench/peers/*
	timeout 900 $(B)/bin/telebed exec $(addprefix --with ,tests/bench/peers.sh harness/engines/criu $(B)/bin/telefork \
		$(B)/tests/tools/ticker build/guest/$(HOST)/criu.tar) $(PEERS_MACHINE) -- \
		bash tests/bench/peers.sh $(B) 5 $(PEERS_MIB) >build/bench/peers/lines
	$(B)/tests/peers build/bench/peers <build/bench/peers/lines

.PHONY: replay-check
replay-check: bin-$(HOST) $(ARCHES:%=bin-%) $(foreach a,$(ARCHES),$(B_$(a))/probes/registers-static $(B_$(a))/probes/wrong-static) $(B)/bin/telebed guests ## what failures of guests leave, runs that are the same bit by bit, and the way back through them
	@echo "$$REPLAY_CASES" | LOG=build/replay-check JOBS=1 tests/ungrouped.sh tests/check.sh

fuzz: $(FUZZERS:%=fuzz-%) ## feeds the decoder and the receiver with nonsense for FUZZ_SECONDS each
$(FUZZERS:%=fuzz-%): fuzz-%: $(B_FUZZ)/fuzz/%
	@mkdir -p $(B_FUZZ)/corpus/$*
	$(call say,FUZZ,$*)
	$(Q)cd $(B_FUZZ) && fuzz/$* -max_total_time=$(FUZZ_SECONDS) -max_len=32768 -timeout=20 \
		-print_final_stats=1 corpus/$* $(CURDIR)/tests/golden 2>fuzz/$*.log || { tail -40 fuzz/$*.log; exit 1; }
	@sed -n 's/^stat::number_of_executed_units: */$*: runs /p' $(B_FUZZ)/fuzz/$*.log

golden: unit ## writes tests/golden anew: look at the difference before committing it
	@$(foreach a,$(ARCHES),$(foreach t,test_image test_plan,TF_GOLDEN=write $(RUN_$(a)) $(B_$(a))/tests/$(t) >/dev/null &&)) true

docs: $(B)/bin/telebed ## writes docs/state.md's table anew, with what became of its tests in the last make check
	@docs/state.sh write
	@docs/reference.sh $(B)/bin/telebed write

lint: lint-man $(foreach a,$(ARCHES),lib-$(a)) ## clang-format, sizes, shellcheck, both backends alike, cppcheck, clang-tidy
	@tests/lint.sh

format: ## lays out every source as .clang-format says
	clang-format -i $$(find core arch qemu harness tests -name '*.[ch]')

install: lib-$(HOST) bin-$(HOST) $(B)/bin/telebed $(MAN) $(COMPLETION) ## programs, library, header, man pages and completion to DESTDIR/PREFIX
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,bin lib include)
	install $(addprefix $(B)/bin/,telefork telefork-pad telebed) $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(B)/lib/libtelefork.a $(DESTDIR)$(PREFIX)/lib
	install -m 644 $(B)/lib/libtelefork.so $(DESTDIR)$(PREFIX)/lib/libtelefork.so.$(VERSION)
	ln -sf libtelefork.so.$(VERSION) $(DESTDIR)$(PREFIX)/lib/libtelefork.so.$(SOVERSION)
	ln -sf libtelefork.so.$(SOVERSION) $(DESTDIR)$(PREFIX)/lib/libtelefork.so
	install -m 644 core/telefork.h $(DESTDIR)$(PREFIX)/include
	install -D -m 644 build/completion/telefork $(DESTDIR)$(PREFIX)/share/bash-completion/completions/telefork
	install -D -m 644 build/completion/_telefork $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_telefork
	$(foreach p,$(MAN),install -D -m 644 $(p) \
		$(DESTDIR)$(PREFIX)/share/man/man$(subst .,,$(suffix $(p)))/$(notdir $(p)) &&) true

clean: ## removes build/
	rm -rf build

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | \
		while IFS='|' read -r target text; do printf 'make %-8s %s\n' "$$target" "$$text"; done
	@sed -n '/^# Knobs/,/^$$/s/^# *//p' Makefile

FORCE:
.PHONY: all more-guests own-guest demo bench report-screenshots commit pairs in-guests mutants transcript moments captures moves kills guests unit check golden docs fuzz torture $(FUZZERS:%=fuzz-%) \
	lint lint-man format install \
	clean help FORCE \
	$(foreach a,$(ARCHES),lib-$(a) bin-$(a) probes-$(a) unit-$(a) programs-$(a))
