# SPDX-License-Identifier: MIT
# What `make check` runs; read by the Makefile. Those of one matter stand together.

# Runs a script of tests/ with a probe in a guest, the only place where aarch64 has ptrace. $(1)
# architecture, $(2) script, $(3) probes, $(4) what else of its build, $(5) machine, if it is not the
# architecture's own
in_guest = $(B)/bin/telebed exec $(addprefix --with ,tests/$(2) tests/common.sh $(addprefix $(B_$(1))/,bin/telefork bin/telefork-pad $(addprefix probes/,$(3)) $(4))) $(or $(5),$(1)) --
# Unit tests that look from outside run there as well; of those that kill at every ptrace call, at some.
GUEST_TESTS := test_threads test_sparse
GUEST_TESTS_FOREIGN := test_task test_snapshot test_stop test_attrs test_cpu_of test_files
STRIDE_test_task := 7
STRIDE_test_snapshot := 19

# The number of futex(2).
FUTEX_x86_64  := 202
FUTEX_aarch64 := 98

# One case a line: name, time limit in seconds, command.
define UNIT_CASES
$(foreach a,$(ARCHES),$(foreach t,$(UNIT_TESTS),unit-$(a)-$(t) 400 $(RUN_$(a)) $(B_$(a))/tests/$(t)
))
unit-qemu 240 $(B)/tests/test_qemu
unit-text 240 $(B)/tests/test_text
unit-evidence 240 $(B)/tests/test_evidence
unit-link 240 $(B)/tests/test_link
unit-torture 240 $(B)/tests/test_torture
endef
define CASES
$(foreach t,$(SAN_TESTS),unit-sanitized-$(t) 400 $(B_SAN)/tests/$(t)
)
$(foreach r,file unix tcp,$(foreach v,static pie dyn,native-$(r)-$(v) 240 tests/journey.sh $(r) $(B_$(HOST)) hop-$(v)
))
$(foreach a,$(ARCHES),$(foreach r,file tcp,$(foreach v,static pie dyn,qemu-$(a)-$(r)-$(v) 240 tests/journey.sh $(r) $(B_$(a)) hop-$(v) qemu-$(a)
)))
$(foreach r,unix tcp,$(foreach v,static pie dyn,yoyo-$(r)-$(v) 240 tests/yoyo.sh $(r) $(B_$(HOST)) yoyo-$(v)
))
$(foreach a,$(ARCHES),$(foreach v,static pie dyn,yoyo-qemu-$(a)-$(v) 240 tests/yoyo.sh tcp $(B_$(a)) yoyo-$(v) qemu-$(a)
))
$(foreach v,static pie dyn,yoyo-more-$(v) 240 tests/yoyo.sh unix $(B_$(HOST)) yoyo_more-$(v)
)
$(foreach a,$(ARCHES),yoyo-more-qemu-$(a) 240 tests/yoyo.sh tcp $(B_$(a)) yoyo_more-static qemu-$(a)
)
$(foreach v,static pie dyn,witness-native-$(v) 240 tests/witness.sh $(B) still-$(v)
)
$(foreach a,$(ARCHES),witness-qemu-$(a) 240 tests/witness.sh $(B_$(a)) still-pie qemu-$(a)
)
$(foreach v,static pie,gdb-native-$(v) 240 tests/gdb.sh $(B) still-$(v)
)
$(foreach a,$(ARCHES),$(foreach v,static pie,gdb-qemu-$(a)-$(v) 240 tests/gdb.sh $(B_$(a)) still-$(v) qemu-$(a)
))
mutants-native 600 $(B)/bin/telebed mutants --arch $(HOST) --sample 1 --filter .drop --skip .locks. --skip .clocks.
$(foreach a,$(filter-out $(HOST),$(ARCHES)),mutants-$(a) 600 $(B)/bin/telebed mutants --sample 1 --filter $(a).user.registers.register
)
moments-native 600 $(B)/tests/tools/moments $(B) 500
$(foreach a,$(ARCHES),moments-qemu-$(a) 600 $(B)/tests/tools/moments $(B_$(a)) $(MOMENTS_qemu_$(a)) qemu-$(a)
)
registers-native 240 tests/registers.sh $(B) $(HOST)
$(foreach a,$(ARCHES),registers-qemu-$(a) 240 tests/registers.sh $(B_$(a)) $(a) qemu-$(a)
)
$(foreach a,$(ARCHES),$(foreach c,file-static file-pie file-dyn tcp-pie,signed-$(a)-$(c) 240 tests/journey.sh $(subst -, $(B_$(a)) signed-,$(c)) qemu-$(a)
)signed-$(a)-moments 240 tests/signed.sh $(B_$(a)) 12 qemu-$(a)
)
signed-native-moments 240 tests/signed.sh $(B_$(HOST)) 12
native-memory-file 240 tests/journey.sh file $(B) memory-dyn
native-memory-unix 240 tests/journey.sh unix $(B) memory-static
native-memory-tcp 240 tests/journey.sh tcp $(B) memory-pie
qemu-aarch64-memory-file 240 tests/journey.sh file $(B_aarch64) memory-static qemu-aarch64
qemu-aarch64-memory-tcp 240 tests/journey.sh tcp $(B_aarch64) memory-dyn qemu-aarch64
qemu-x86_64-memory-file 240 tests/journey.sh file $(B_x86_64) memory-pie qemu-x86_64
native-clib-twice 240 tests/twice.sh $(B) clib-static
$(foreach v,static pie dyn,native-clib-$(v) 240 tests/journey.sh unix $(B) clib-$(v)
)
$(foreach a,$(ARCHES),qemu-$(a)-clib-twice 240 tests/twice.sh $(B_$(a)) clib-dyn qemu-$(a)
qemu-$(a)-clib-tcp 240 tests/journey.sh tcp $(B_$(a)) clib-static qemu-$(a)
)
native-threads-unix 600 tests/journey.sh unix $(B) threads-dyn
native-threads-tcp 600 tests/journey.sh tcp $(B) threads-static
$(foreach a,$(ARCHES),qemu-$(a)-threads 600 tests/journey.sh unix $(B_$(a)) threads-pie qemu-$(a)
)
chain-native 240 tests/chain.sh chain-pie native=$(B) native=$(B) native=$(B)
chain-mixed 240 tests/chain.sh chain-dyn native=$(B) qemu-$(HOST)=$(B) native=$(B)
$(foreach a,$(ARCHES),chain-qemu-$(a) 240 tests/chain.sh chain-static qemu-$(a)=$(B_$(a)) qemu-$(a)=$(B_$(a)) qemu-$(a)=$(B_$(a))
)
luajit-file 240 tests/journey.sh file $(B) luajit.lua
luajit-unix 240 tests/journey.sh unix $(B) luajit.lua
$(foreach a,$(ARCHES),luajit-qemu-$(a) 240 tests/journey.sh tcp $(B_$(a)) luajit.lua qemu-$(a)
)
$(foreach a,$(ARCHES),machines-$(a) 600 $(B)/tests/tools/vmcheck $(a) build/guest/$(a)/guestprobe
)
$(foreach a,$(ARCHES),guests-$(a) 900 $(B)/bin/telebed run guests return probes oracle render yoyo memory luajit --filter .$(a).system --out build/run/guests-$(a)
in-guest-$(a)-programs 400 $(B)/bin/telebed run foreign home --filter move.$(a).system
)
telebed-$(HOST) 600 tests/telebed.sh $(B)/bin/telebed machines $(HOST)
$(foreach a,$(ARCHES),$(foreach t,$(GUEST_TESTS) $(if $(filter $(HOST),$(a)),,$(GUEST_TESTS_FOREIGN)),in-guest-$(a)-$(t) 400 $(B)/bin/telebed exec $(a) -- $(B_$(a))/tests/$(t) $(STRIDE_$(t))
)in-guest-$(a)-crew 240 $(call in_guest,$(a),crew.sh,crew-static) bash tests/crew.sh $(B_$(a)) crew-static 64
)
$(foreach a,$(filter-out $(HOST),$(ARCHES)),in-guest-$(a)-outside 240 $(call in_guest,$(a),outside.sh,outside-static) bash tests/outside.sh $(B_$(a)) restore static
in-guest-$(a)-attrs 240 $(call in_guest,$(a),attrs.sh,attrs-static) bash tests/attrs.sh $(B_$(a)) static rights filters clocks namespace again
)
inputs 240 tests/inputs.sh $(B)/bin/telebed
kept-native 240 tests/kept.sh $(B)/bin/telebed native
telebed-words 240 tests/telebed.sh $(B)/bin/telebed words
telebed-matrix 240 tests/telebed.sh $(B)/bin/telebed matrix
report 240 tests/report.sh $(B)/bin/telebed
live 240 tests/live.sh $(B)/bin/telebed
examples 240 tests/examples.sh $(B)/bin/telebed
telebed-host 600 $(B)/bin/telebed run return probes witness teleport render foreign copies home refused sanitized ring fan-out fan-out-copies held engine-crew engine-locks engine-busy --filter native --out build/run/host
telebed-user 600 $(B)/bin/telebed run probes witness render --filter user --out build/run/user
$(foreach a,$(ARCHES),commands-$(a) 240 tests/commands.sh $(B_$(a)) $(RUN_$(a))
)
$(foreach c,restore copy unix tcp many killed broken stopped refused obstacles asked progress,outside-$(c) 240 tests/outside.sh $(B) $(c)
)
$(foreach c,self task file words,zygote-$(c) 240 tests/zygote.sh $(B) brood-$(if $(filter task,$(c)),dyn,static) $(c)
)
many-native 240 tests/many.sh $(B) 5
$(foreach a,$(ARCHES),many-qemu-$(a) 240 tests/many.sh $(B_$(a)) 4 qemu-$(a)
)
$(foreach a,$(ARCHES),zygote-qemu-$(a) 240 tests/zygote.sh $(B_$(a)) brood-static self qemu-$(a)
)
$(foreach c,copy move unix slow packed known damaged nobody all user broken sender receiver,later-$(c) 240 tests/later.sh $(B) $(c)
)
$(foreach c,tcp unix stage old room slow packed sender receiver child broken,precopy-$(c) 240 tests/precopy.sh $(B) $(c)
)
later-copy-static 240 tests/later.sh $(B) copy static
later-holes 240 tests/later.sh $(B) holes pie 48
later-early 240 tests/later.sh $(B) early
$(foreach c,threads forks shared huge pressure,later-$(c) 240 tests/later.sh $(B) $(c)
)
$(if $(filter x86_64,$(HOST)),later-qemu 240 tests/later.sh $(B) qemu)
$(foreach c,second small old slow qemu,again-$(c) 240 tests/again.sh $(B) $(c)
)
kills-native 240 $(B)/tests/tools/kills $(B) 37
moves-native 240 tests/moves.sh $(B) 20
moves-lazy 240 tests/moves.sh $(B) 10 --lazy
moves-precopy 240 tests/moves.sh $(B) 10 --precopy
modes-native 600 $(B)/bin/telebed run --set modes --filter native
captures-native 240 $(B)/tests/tools/captures $(B) 40
$(foreach p,sender session receiver,commit-$(p) 240 $(B)/tests/commit $(CURDIR)/$(B)/bin/telefork $(CURDIR)/$(B)/tests/counter $(p) 2
)commit-network 240 $(B)/tests/commit $(CURDIR)/$(B)/bin/telefork $(CURDIR)/$(B)/tests/counter network 16
torture-precopy 240 $(B)/bin/telebed torture --precopy --seed 8 --steps 12 --only cut --only kill-sender --only kill-session --only kill-receiver
faults-native 600 $(B)/bin/telebed run faults faults-link --filter native
$(foreach a,$(ARCHES),faults-$(a) 400 $(B)/bin/telebed run faults-guests --filter .$(a).
)
$(foreach v,static dyn,outside-restore-$(v) 240 tests/outside.sh $(B) restore $(v)
)
$(foreach v,static pie,files-native-$(v) 240 tests/files.sh $(B) $(v)
)
obstacles-native 240 tests/obstacles.sh $(B)
$(foreach c,restore lock taken used,outmem-$(c) 240 tests/outmem.sh $(B) $(c)
)
outmem-restore-static 240 tests/outmem.sh $(B) restore static
$(foreach n,1 4 64 1000,crew-native-$(n) 240 tests/crew.sh $(B) crew-pie $(n)
)
$(foreach v,static dyn,crew-native-$(v) 240 tests/crew.sh $(B) crew-$(v) 7
)
$(foreach v,static pie,locks-native-$(v) 240 tests/crew.sh $(B) locks-$(v) 49
)
locks-small-ids 240 tests/smallids.sh $(B) $(FUTEX_$(HOST))
clocks-native 240 tests/clocks.sh $(B) 6
$(foreach a,$(filter-out $(HOST),$(ARCHES)),in-guest-$(a)-clocks 240 $(call in_guest,$(a),clocks.sh,busy-static) bash tests/clocks.sh $(B_$(a)) 3
)$(foreach a,$(filter-out $(HOST),$(ARCHES)),in-guest-$(a)-locks 240 $(call in_guest,$(a),crew.sh,locks-static) bash tests/crew.sh $(B_$(a)) locks-static 49
)
$(if $(filter x86_64,$(HOST)),crew-qemu 240 tests/crew.sh $(B) crew-pie 64 qemu-x86_64 -cpu max)
$(if $(filter x86_64,$(HOST)),locks-qemu 240 tests/crew.sh $(B) locks-pie 41 qemu-x86_64 -cpu max)
ssh-native 240 tests/ssh.sh $(B)
verify-native 240 tests/verify.sh $(B) still-pie
completion 240 tests/completion.sh $(B)
hosts-container 240 tests/hosts.sh $(B) container
docs-state 240 docs/state.sh check
docs-testbed 240 docs/reference.sh $(B)/bin/telebed check
attrs-plain 240 tests/attrs.sh $(B) pie again
attrs-same 240 tests/attrs.sh $(B) static rights filters same
attrs-clocks 240 tests/attrs.sh $(B) dyn rights filters clocks namespace again
attrs-user 240 tests/attrs.sh $(B) pie user
baseline-native 240 tests/baseline.sh
baseline-qemu 240 tests/baseline.sh 'qemu-x86_64 -cpu max'
endef
# What make in-guests runs: there is no time for it in make check. Pre-copy goes by userfaultfd, and by soft-dirty
# bits; aarch64 has none, and says so.
define GUEST_CASES
$(foreach a,$(ARCHES),in-guest-$(a)-swap 240 $(B)/bin/telebed exec $(a) -- $(B_$(a))/tests/test_swap here
)$(foreach a,$(ARCHES),in-guest-$(a)-host 600 tests/hosts.sh $(B) machine $(a)
)$(foreach a,$(ARCHES),in-guest-$(a)-stable 400 tests/stable.sh $(B)/bin/telebed $(a)
)in-guest-telebed 400 tests/hosts.sh $(B) telebed
in-guest-container 600 tests/hosts.sh $(B) container-guests
in-guest-aarch64-tags 900 $(B)/bin/telebed exec aarch64-qemu10 -- $(B_aarch64)/tests/test_tags here
telebed-$(FOREIGN) 600 tests/telebed.sh $(B)/bin/telebed machines $(FOREIGN)
$(foreach a,$(filter-out $(HOST),$(ARCHES)),in-guest-$(a)-later 240 $(call in_guest,$(a),later.sh,later-static,tests/tools/gate) bash tests/later.sh $(B_$(a)) copy static 16
)
in-guest-$(FOREIGN)-places 900 $(B)/bin/telebed exec $(FOREIGN) -- $(B_$(FOREIGN))/tests/test_places 40
in-guest-$(FOREIGN)-obstacles 900 $(call in_guest,$(FOREIGN),obstacles.sh,obstacles-static,,$(FOREIGN)-qemu10) bash tests/obstacles.sh $(B_$(FOREIGN))
$(foreach a,$(ARCHES),$(foreach c,$(if $(filter $(FOREIGN),$(a)),threads forks shared huge early) swap,in-guest-$(a)-later-$(c) 400 $(call in_guest,$(a),later.sh,storm-static,tests/tools/gate) bash tests/later.sh $(B_$(a)) $(c) static $(if $(filter swap,$(c)),16,4)
))
in-guest-aarch64-precopy 600 $(call in_guest,aarch64,precopy.sh,precopy-static,,aarch64-6.12) bash tests/precopy.sh $(B_aarch64) rounds static 16 5
in-guest-x86_64-precopy-soft 600 $(call in_guest,x86_64,precopy.sh,precopy-static) bash tests/precopy.sh $(B_x86_64) rounds static 16 5
in-guest-x86_64-track 240 $(B)/bin/telebed exec x86_64-6.12 -- $(B_x86_64)/tests/test_track both
in-guest-aarch64-precopy-none 600 $(call in_guest,aarch64,precopy.sh,precopy-static) bash tests/precopy.sh $(B_aarch64) none static 16 5
$(foreach c,task file,in-guest-$(FOREIGN)-zygote-$(c) 400 $(call in_guest,$(FOREIGN),zygote.sh,brood-static) bash tests/zygote.sh $(B_$(FOREIGN)) brood-static $(c)
)
$(foreach c,second small old slow,in-guest-$(FOREIGN)-again-$(c) 400 $(call in_guest,$(FOREIGN),again.sh,,programs/again tests/tools/slow,$(FOREIGN)-large) bash tests/again.sh $(B_$(FOREIGN)) $(c)
)
in-guest-$(FOREIGN)-files 400 $(call in_guest,$(FOREIGN),files.sh,files-static outside-static) bash tests/files.sh $(B_$(FOREIGN)) static
endef
# What make replay-check runs.
define REPLAY_CASES
$(foreach a,$(ARCHES),kept-$(a) 400 tests/kept.sh $(B)/bin/telebed system $(a)
same-$(a) 900 tests/replay.sh $(B)/bin/telebed same $(a)
replay-$(a)-recorded 900 tests/replay.sh $(B)/bin/telebed recorded $(a)
replay-$(a)-afterwards 900 tests/replay.sh $(B)/bin/telebed afterwards $(a)
)
endef
