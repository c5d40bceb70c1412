-- Adds to the list of revocations.
-- KEYS, ARGV[1], ARGV[2]: see clock.lua
-- ARGV[3] `u:<user>` or `t:<token id>`, ARGV[4] when it may be forgotten, ms since the Unix epoch
-- Result: 1
local key = base .. 'revoked'
local version = math.max(now, tonumber(redis.call('HGET', key, 'version') or '0') + 1)
redis.call('HSET', key, 'version', string.format('%.0f', version), ARGV[3], string.format('%.0f ', now) .. ARGV[4])
return 1
