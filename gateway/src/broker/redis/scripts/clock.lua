-- Shared beginning of small scripts.
-- KEYS[1] meta (unused, names the slot)
-- ARGV[1] base: what every key of the partition starts with, ARGV[2] node that calls
local base, node = ARGV[1], ARGV[2]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
