# starttls: how it is built, tested and checked (GNU make).
#
#   make           build the C library and the Lua module into build/5.4/
#   make demo      install what it needs, build, walk a message through real servers
#   make test      install what it needs, build, run every spec
#   make check     install what it needs, then let every tool look for faults
#   make embed     build examples/embed/: a C program with Lua and all of this inside
#   make install   what LuaRocks runs after `make`
#
#   make MESSAGE=no   the same without starttls.message, and without GMime
#
# Single steps: deps, spec, format, valgrind, clean, and each name in CHECKS.
# What a step needs is only ever installed by demo, test, check and deps.

LUA_VERSION ?= 5.4
LUA         ?= lua$(LUA_VERSION)
BUSTED      ?= /usr/bin/busted
BUILD       ?= build/$(LUA_VERSION)
JOBS        ?= $(shell nproc 2>/dev/null || echo 2)
SUBMAKE      = $(MAKE) --no-print-directory
Q            = $(if $(V),,@)# make V=1 shows the whole commands

all: build

# --- Debian packages, by what needs them -------------------------------------

BUILD_PACKAGES := gcc libc6-dev make pkg-config liblua5.4-dev libgnutls28-dev libgsasl-dev libidn2-dev zlib1g-dev libgmime-3.0-dev
DEMO_PACKAGES  := $(BUILD_PACKAGES) lua5.4 lua-socket lua-filesystem openssl procps \
                  dovecot-imapd dovecot-pop3d dovecot-lmtpd exim4-daemon-heavy
TEST_PACKAGES  := $(DEMO_PACKAGES) ca-certificates lua-sec lua-luaossl lua-cqueues lua-luv lua-busted luarocks git python3
CHECK_PACKAGES := $(TEST_PACKAGES) clang clang-format clang-tidy libclang-rt-14-dev cppcheck \
                  lua-check valgrind
BENCH_PACKAGES := $(TEST_PACKAGES) bash curl
PACKAGES       ?= $(CHECK_PACKAGES)

# --- Compiler and flags ------------------------------------------------------
# CC, CFLAGS, LIBFLAG, LUA_INCDIR and X_INCDIR, X_LIBDIR come from LuaRocks when it
# runs this file. Our own flags have names of their own, so that they always apply.

LIBRARIES   := gnutls libgsasl libidn2 zlib
MESSAGE     ?= yes# no: without starttls.message, which needs GMime
SYSTEM      := $(shell uname -s)
CFLAGS      ?= -O2 -g -fPIC
LIBFLAG     ?= $(if $(filter Darwin,$(SYSTEM)),-bundle -undefined dynamic_lookup,-shared)
LUA_INCDIR  ?= $(patsubst -I%,%,$(firstword $(shell pkg-config --cflags-only-I \
                 lua$(LUA_VERSION) 2>/dev/null || pkg-config --cflags-only-I lua 2>/dev/null)))

LIB_CFLAGS  := $(addprefix -I,$(GNUTLS_INCDIR) $(GSASL_INCDIR) $(IDN2_INCDIR) $(ZLIB_INCDIR)) \
               $(shell pkg-config --cflags $(LIBRARIES) 2>/dev/null)
LIB_LIBS    := $(addprefix -L,$(GNUTLS_LIBDIR) $(GSASL_LIBDIR) $(IDN2_LIBDIR) $(ZLIB_LIBDIR)) \
               $(or $(shell pkg-config --libs $(LIBRARIES) 2>/dev/null),-lgnutls -lgsasl -lidn2 -lz) \
               $(if $(filter Darwin,$(SYSTEM)),-liconv)

GMIME_CFLAGS := $(patsubst -I%,-isystem %,$(shell pkg-config --cflags gmime-3.0 2>/dev/null))
GMIME_LIBS   := $(shell pkg-config --libs gmime-3.0 2>/dev/null)

WARNINGS    := -Wall -Wextra -pedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
               -Wpointer-arith -Wwrite-strings -Wvla -Wformat=2 -Wconversion -Wno-sign-conversion
HARDEN      ?= -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
LANGUAGE    := -std=c11 -D_GNU_SOURCE -Icsrc
OWN_CFLAGS   = $(LANGUAGE) -fPIC -fvisibility=hidden -pthread $(WARNINGS) $(HARDEN) $(LIB_CFLAGS) \
               $(addprefix -I,$(LUA_INCDIR))

# nodelete: libraries below us can't be loaded twice into one process, as a host
# that closes one Lua state and opens another would do.
ifneq ($(SYSTEM),Darwin)
OWN_LDFLAGS := -Wl,-z,nodelete -Wl,-z,now -Wl,-z,relro
endif

# --- What is built -----------------------------------------------------------
# csrc/{base,mail,net,session} make a C library that knows nothing of Lua; csrc/lua is the
# binding. csrc/message is a module of its own. An object keeps its floor's folder.

CORE_SOURCES := $(sort $(foreach floor,base mail net session,$(wildcard csrc/$(floor)/*.c)))
LUA_SOURCES  := $(sort $(wildcard csrc/lua/*.c))
MIME_SOURCES := $(if $(filter no,$(MESSAGE)),,$(sort $(wildcard csrc/message/*.c)))
SOURCES      := $(CORE_SOURCES) $(LUA_SOURCES) $(MIME_SOURCES)
HEADERS      := $(sort $(wildcard csrc/*/*.h))
FORMATTED    := $(SOURCES) $(HEADERS) $(sort $(wildcard spec/*/*.[ch] examples/*/*.c))
CORE_OBJECTS := $(CORE_SOURCES:csrc/%.c=$(BUILD)/obj/%.o)
LUA_OBJECTS  := $(LUA_SOURCES:csrc/%.c=$(BUILD)/obj/%.o)
MIME_OBJECTS := $(MIME_SOURCES:csrc/%.c=$(BUILD)/obj/%.o)
LIBRARY      := $(BUILD)/libstarttls.a
MODULE       := $(BUILD)/starttls/core.so
MIME_MODULE  := $(if $(MIME_SOURCES),$(BUILD)/starttls/mime.so)
MODULES      := $(MODULE) $(MIME_MODULE)
EMBEDDED     := $(BUILD)/libstarttls-lua.a

COMPILE = $(CC) $(OWN_CFLAGS) $(CFLAGS)
LINK    = $(CC) $(CFLAGS) $(LIBFLAG) $(OWN_LDFLAGS) $(LDFLAGS)

build: $(LIBRARY) $(MODULES)
library: $(LIBRARY)

$(MODULE): $(LUA_OBJECTS) $(LIBRARY)
	@mkdir -p $(@D)
	@echo "link $@"
	$(Q)$(LINK) -o $@ $(LUA_OBJECTS) $(LIBRARY) $(LIB_LIBS) -pthread

# It has what it needs of base/ by itself; the two modules never see each other.
$(BUILD)/starttls/mime.so: $(MIME_OBJECTS) $(LIBRARY)
	@mkdir -p $(@D)
	@echo "link $@"
	$(Q)$(LINK) -o $@ $(MIME_OBJECTS) $(LIBRARY) $(GMIME_LIBS) -pthread

$(LIBRARY): $(CORE_OBJECTS) $(BUILD)/objects
	@rm -f $@
	$(Q)$(AR) rcs $@ $(CORE_OBJECTS)

$(BUILD)/obj/%.o: csrc/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	@echo "cc $<"
	$(Q)$(COMPILE) $(if $(filter message/%,$*),$(GMIME_CFLAGS)) -MMD -MP -c -o $@ $<

# These two change only when what they hold does, so that another compiler, other flags
# or another Lua never meet yesterday's objects, and a removed source leaves none behind.
$(BUILD)/flags: TEXT = $(COMPILE) : $(LINK) $(LIB_LIBS)
$(BUILD)/objects: TEXT = $(CORE_OBJECTS) $(LUA_OBJECTS) $(MIME_OBJECTS)
$(BUILD)/flags $(BUILD)/objects: always | libraries
	@mkdir -p $(@D)
	@echo "$(TEXT)" | cmp -s - $@ || echo "$(TEXT)" > $@

# Says what to install when a library is missing.
libraries:
	@sh spec/tools/libraries.sh $(LIBRARIES) $(if $(MIME_SOURCES),gmime-3.0)

-include $(CORE_OBJECTS:.o=.d) $(LUA_OBJECTS:.o=.d) $(MIME_OBJECTS:.o=.d)

# --- Embedding: one archive of it all, and a host that is linked with it ----------

HOST      := $(BUILD)/embed/host
LUA_FILES := $(sort $(shell cd lua && find starttls -name '*.lua'))
LUA_LIBS  ?= $(shell pkg-config --libs lua$(LUA_VERSION) 2>/dev/null || echo -llua)

embed: $(HOST)

$(EMBEDDED): $(LUA_OBJECTS) $(CORE_OBJECTS) $(BUILD)/objects
	@rm -f $@
	$(Q)$(AR) rcs $@ $(LUA_OBJECTS) $(CORE_OBJECTS)

$(BUILD)/embed/packed.c: examples/embed/pack.lua $(addprefix lua/,$(LUA_FILES))
	@mkdir -p $(@D)
	$(Q)$(LUA) $< lua $(LUA_FILES) > $@

$(HOST): examples/embed/host.c $(BUILD)/embed/packed.c $(EMBEDDED)
	@echo "link $@"
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE $(WARNINGS) $(addprefix -I,$(LUA_INCDIR)) $(CFLAGS) $(LDFLAGS) \
	  -o $@ $^ $(LUA_LIBS) $(LIB_LIBS) -lm -pthread

# --- Install (LuaRocks sets INST_*; by hand: PREFIX, DESTDIR) ----------------

PREFIX      ?= /usr/local
INST_LIBDIR ?= $(DESTDIR)$(PREFIX)/lib/lua/$(LUA_VERSION)
INST_LUADIR ?= $(DESTDIR)$(PREFIX)/share/lua/$(LUA_VERSION)

install: build
	mkdir -p "$(INST_LIBDIR)/starttls" "$(INST_LUADIR)/starttls"
	cp $(MODULES) "$(INST_LIBDIR)/starttls/"
	cp -R lua/starttls/. "$(INST_LUADIR)/starttls/"

# --- Demo and tests ----------------------------------------------------------
# Programs that a spec starts find the same interpreter and the same build.

RUN_ENV = STARTTLS_BUILD="$(BUILD)" LUA="$(LUA)" \
          LUA_PATH_5_4="$(CURDIR)/lua/?.lua;$(CURDIR)/lua/?/init.lua;;" \
          LUA_CPATH_5_4="$(CURDIR)/$(BUILD)/?.so;;"
SPECS  ?= spec

deps:
	@sh spec/tools/install-packages.sh $(PACKAGES)

# deps may bring pkg-config and the headers, so what follows is a make of its own.
demo:
	@$(SUBMAKE) -s deps PACKAGES="$(DEMO_PACKAGES)"
	@$(SUBMAKE) -s -j$(JOBS) build
	@$(RUN_ENV) $(LUA) spec/demo.lua

test:
	@$(SUBMAKE) -s deps PACKAGES="$(TEST_PACKAGES)"
	@$(SUBMAKE) -j$(JOBS) build
	@$(SUBMAKE) spec

spec: build
	$(RUN_ENV) $(LUA) $(BUSTED) --ignore-lua $(BUSTED_FLAGS) $(SPECS)

# Ours beside Python's standard library and curl: figures, not a test.
bench:
	@$(SUBMAKE) -s deps PACKAGES="$(BENCH_PACKAGES)"
	@$(SUBMAKE) -s -j$(JOBS) build
	@$(COMPILE) -o $(BUILD)/parser-bench spec/bench/parser.c $(LIBRARY)
	@$(RUN_ENV) $(LUA) spec/bench/compare.lua

# --- Checks ------------------------------------------------------------------
# `make check` runs them all, however many fail, and ends with the count.

CHECKS := check-warnings check-format check-tidy check-cppcheck check-luacheck house sanitize tsan fuzz

check:
	@$(SUBMAKE) -s deps PACKAGES="$(CHECK_PACKAGES)"
	@sh spec/tools/each.sh $(SUBMAKE) -- $(CHECKS)

check-warnings:
	@$(SUBMAKE) -s -j$(JOBS) build BUILD=build/gcc CC=gcc \
	  CFLAGS="-O2 -Werror -Wduplicated-cond -Wnull-dereference"
	@$(SUBMAKE) -s -j$(JOBS) build BUILD=build/clang CC=clang CFLAGS="-O2 -Werror"

check-format:
	clang-format --dry-run -Werror $(FORMATTED)

check-tidy:
	@printf '%s\n' $(SOURCES) | xargs -P $(JOBS) -n 1 sh -c \
	  'clang-tidy --quiet "$$@" -- $(OWN_CFLAGS) $(GMIME_CFLAGS) 2>/dev/null' clang-tidy

check-cppcheck:
	cppcheck --quiet --error-exitcode=1 --inline-suppr --std=c11 -j $(JOBS) -Icsrc \
	  --enable=warning,performance,portability --library=posix,gnu \
	  --suppressions-list=spec/check/cppcheck.supp $(SOURCES)

check-luacheck:
	luacheck --quiet --no-color .

house: build
	$(LUA) spec/check/house.lua . $(BUILD) $(notdir $(MODULES))

# The specs on a module built with AddressSanitizer and UBSan; a leak is an error.
# Left out: specs that measure memory, and those that build another module.
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer

sanitize:
	@$(SUBMAKE) -s -j$(JOBS) build BUILD=build/asan CC=gcc HARDEN= CFLAGS="-O1 -g $(SANITIZE)"
	@CC=gcc LUA=$(LUA) sh spec/tools/sanitized-lua.sh build/asan/lua
	@STARTTLS_SPEC_PATIENCE=4 \
	 $(SUBMAKE) spec BUILD=build/asan CC=gcc HARDEN= CFLAGS="-O1 -g $(SANITIZE)" \
	  LUA="$(CURDIR)/build/asan/lua" BUSTED_FLAGS="--exclude-tags=memory,package"

# Threads with a Lua state each: the host of examples/embed/, built with ThreadSanitizer.
TSAN_FLAGS := -O1 -g -fsanitize=thread -fno-omit-frame-pointer

tsan:
	@$(SUBMAKE) -s -j$(JOBS) embed BUILD=build/tsan CC=clang HARDEN= CFLAGS="$(TSAN_FLAGS)"
	@$(RUN_ENV) $(LUA) spec/check/threads.lua build/tsan/embed/host

# The specs under valgrind: slow, and not part of `check`, as ASan sees the same.
valgrind: build
	$(RUN_ENV) STARTTLS_SPEC_PATIENCE=20 valgrind --quiet --leak-check=full --errors-for-leak-kinds=definite \
	  --error-exitcode=9 --suppressions=spec/check/valgrind.supp \
	  $(LUA) $(BUSTED) --ignore-lua --exclude-tags=memory,package $(BUSTED_FLAGS) $(SPECS)

# Each spec/fuzz/NAME.c is a libFuzzer target, linked with the library alone.
# It starts from spec/fuzz/corpus/NAME (and NAME.dict); what it finds stays in build/fuzz.
FUZZERS      := $(sort $(wildcard spec/fuzz/*.c))
FUZZ_SECONDS ?= 20
FUZZ_FLAGS   := -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all

fuzz:
	@$(SUBMAKE) -s -j$(JOBS) library BUILD=build/fuzz CC=clang HARDEN= \
	  CFLAGS="$(FUZZ_FLAGS) -fsanitize=fuzzer-no-link"
	@test -z "$(FUZZERS)" || \
	  $(SUBMAKE) -s -j$(JOBS) -k $(FUZZERS:spec/fuzz/%.c=build/fuzz/%.ran)

build/fuzz/%.ran: always
	clang $(LANGUAGE) $(LIB_CFLAGS) $(FUZZ_FLAGS) -fsanitize=fuzzer -o build/fuzz/$* spec/fuzz/$*.c \
	  build/fuzz/libstarttls.a $(LIB_LIBS) -pthread
	sh spec/tools/fuzz.sh $* $(FUZZ_SECONDS)

format:
	clang-format -i $(FORMATTED)

clean:
	rm -rf build

always:

.PHONY: all build library libraries embed install deps demo test spec bench check $(CHECKS) valgrind format clean always
