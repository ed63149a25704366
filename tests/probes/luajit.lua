-- SPDX-License-Identifier: MIT
--
-- luajit.lua: a program that is not ours. LuaJIT calls telefork() through its foreign function
-- interface and goes on with its objects in the copy: tables, closures, coroutines, traces of machine
-- code, C data and callbacks.
--
--   luajit luajit.lua LIBRARY ADDRESS [--token T]      the probes' protocol (tests/probes/probe.h)

local ffi = require("ffi")
local util = require("jit.util")

ffi.cdef [[
struct telefork_result {
	int error;
	int pid;
	uint64_t stopped_ns, total_ns, bytes_sent, bytes_received;
	uint32_t registers, mappings;
	uint64_t memory;
	uint32_t held_total;
	int held[64];
	char message[2048];
};
struct telefork_options {
	size_t size;
	int deadline_ms, idle_ms, stdio;
	const char *token;
	uint64_t max_memory;
	struct telefork_result *result;
	unsigned restore;
};
struct telefork_job;
int telefork_dial(const char *uri, const struct telefork_options *o, struct telefork_result *r);
int telefork(int fd, const struct telefork_options *o, struct telefork_job **job);
int telefork_wait(struct telefork_job *job, struct telefork_result *r);
int telefork_save(const char *path, const struct telefork_options *o, struct telefork_result *r);
int telefork_peer_fd(void);
const char *telefork_errname(int code);

ssize_t read(int fd, void *buf, size_t n);
ssize_t write(int fd, const void *buf, size_t n);
int getpid(void);
void qsort(void *base, size_t n, size_t size, int (*compare)(const int *, const int *));
struct point { double x, y; int64_t tag; };
]]

local library, address, token
do
	library, address = arg[1], arg[2]
	if not address then
		io.stderr:write("usage: luajit luajit.lua LIBRARY ADDRESS [--token T]\n")
		os.exit(64)
	end
	for k = 3, #arg do
		if arg[k] == "--token" then token = arg[k + 1] end
	end
end
local tf = ffi.load(library)
local C = ffi.C

-- What moves.

local objects = {name = "objects", list = {}, nested = {}}
for i = 1, 20000 do objects.list[i] = i * 3 end
for i = 1, 500 do objects.nested["key" .. i] = {i, tostring(i), {deep = i / 7}} end
setmetatable(objects, {__index = function(_, k) return "no " .. tostring(k) end})
objects.self = objects

local function counter(from)
	local n = from
	return function(step)
		n = n + step
		return n
	end
end
local count = counter(100)
count(5)

local walk = coroutine.wrap(function()
	for i = 1, math.huge do
		local got = coroutine.yield(i, objects.list[i])
		if got then i = got end
	end
end)
for _ = 1, 10 do walk() end

local points = ffi.new("struct point[1000]")
for i = 0, 999 do points[i] = {i, -i / 2, i * 1000000007LL} end

-- Compiled before the move: the loop runs in machine code that LuaJIT made.
local function sum(n)
	local s = 0
	for i = 1, n do
		s = s + objects.list[i % 20000 + 1] * 0.5 + points[i % 1000].x
	end
	return s
end
local expected = sum(300000)

local compare = ffi.cast("int (*)(const int *, const int *)", function(a, b) return a[0] - b[0] end)

local function traces()
	local n = 0
	while util.traceinfo(n + 1) do n = n + 1 end
	return n
end
local traces_before = traces()

-- What is looked at over there.

local lost, checks = {}, 0
local function expect(holds, what)
	checks = checks + 1
	if not holds then lost[#lost + 1] = what end
end

local function look()
	expect(objects.self == objects and objects.absent == "no absent", "tables")
	expect(#objects.list == 20000 and objects.list[12345] == 37035, "an array")
	local bad = 0
	for i = 1, 500 do
		local e = objects.nested["key" .. i]
		if e[1] ~= i or e[2] ~= tostring(i) or e[3].deep ~= i / 7 then bad = bad + 1 end
	end
	expect(bad == 0, "nested tables and strings")
	expect(count(1) == 106 and count(1) == 107, "a closure")
	local i, v = walk()
	expect(i == 11 and v == 33, "a coroutine")
	for k = 0, 999 do
		if points[k].tag ~= k * 1000000007LL or points[k].y ~= -k / 2 then bad = bad + 1 end
	end
	expect(bad == 0, "C data")
	expect(traces_before > 0 and traces() >= traces_before, "traces")
	expect(sum(300000) == expected, "a compiled loop")
	local before = traces()
	local function fresh(n)
		local s = 0
		for k = 1, n do s = s + k % 7 * 2 end
		return s
	end
	expect(fresh(70000) == 420000, "a new loop")
	expect(not jit.status() or traces() > before, "a new trace")
	local numbers = ffi.new("int[64]")
	for k = 0, 63 do numbers[k] = (k * 37) % 64 end
	C.qsort(numbers, 64, 4, compare)
	for k = 0, 63 do if numbers[k] ~= k then bad = bad + 1 end end
	expect(bad == 0, "a callback from C")
	collectgarbage()
	local strings = {}
	for k = 1, 20000 do strings[k] = ("x"):rep(k % 50) .. k end
	strings = nil
	collectgarbage()
	expect(collectgarbage("count") > 100, "the collector")
	local ok, message = pcall(error, {code = 7})
	expect(not ok and message.code == 7, "an error")
	local f = io.open("/proc/self/stat")
	expect(f and tonumber(f:read("*l"):match("^%d+")) == C.getpid(), "files and getpid")
	if f then f:close() end
end

local function verdict()
	look()
	if #lost > 0 then return "not ok: " .. table.concat(lost, "; ") .. "\n" end
	return ("ok %d checks, %d traces\n"):format(checks, traces_before)
end

local function spoil()
	for i = 1, 20000 do objects.list[i] = -1 end
	for k in pairs(objects.nested) do objects.nested[k] = nil end
	count(1000)
	walk()
	ffi.fill(points, ffi.sizeof(points), 0xee)
	collectgarbage()
end

-- The journey.

local options = ffi.new("struct telefork_options", {deadline_ms = 120000, token = token})
options.size = ffi.sizeof(options)
local result = ffi.new("struct telefork_result")

local function failed(code, message)
	io.stderr:write(("luajit: %s: %s\n"):format(ffi.string(tf.telefork_errname(code)), message))
	os.exit(2)
end

local function say(fd)
	local line = verdict()
	C.write(fd, line, #line)
	os.exit(#lost > 0 and 1 or 0)
end

if address:sub(1, 1) == "/" then
	local rc = tf.telefork_save(address, options, result)
	if rc == 0 then say(1) end
	if rc < 0 then failed(rc, ffi.string(result.message)) end
	os.exit(0)
end

local fd = tf.telefork_dial(address, options, result)
if fd < 0 then failed(fd, ffi.string(result.message)) end
local job = ffi.new("struct telefork_job *[1]")
local rc = tf.telefork(fd, options, job)
if rc == 0 then say(tf.telefork_peer_fd()) end
if rc < 0 then failed(rc, "nothing was started") end
spoil()
rc = tf.telefork_wait(job[0], result)
if rc ~= 0 then failed(rc, ffi.string(result.message)) end
local buffer, line = ffi.new("char[4096]"), ""
repeat
	local n = tonumber(C.read(fd, buffer, 4096))
	if n > 0 then line = line .. ffi.string(buffer, n) end
until n <= 0 or line:sub(-1) == "\n"
io.stdout:write(line)
os.exit(line:sub(1, 3) == "ok " and 0 or 1)
