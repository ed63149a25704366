#!/usr/bin/luajit
-- SPDX-License-Identifier: MIT
-- A sieve in tables, compiled while it runs, and coroutines that sum it up.
local size, parts = 60000, 40
local sieve = {}
local function sum(from, to)
	return coroutine.wrap(function()
		local total = 0
		for n = from, to do
			if sieve[n] then total = (total * 31 + n) % 2147483647 end
			if n % 1000 == 0 then coroutine.yield(nil) end
		end
		coroutine.yield(total)
	end)
end
for part = 1, parts do
	for n = 2, size do sieve[n] = true end
	for round = 1, 20 do
		for n = 2, size do
			if sieve[n] then
				for m = n * n, size, n do sieve[m] = false end
			end
		end
	end
	local next_sum, total = sum(part * 1000, size), nil
	repeat total = next_sum() until total
	print(part, total)
	io.flush()
end
io.read("*a")
print("ok")
