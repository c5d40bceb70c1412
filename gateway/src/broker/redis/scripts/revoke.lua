-- Adds to the list of revocations; one that is there already is never cut short.
-- KEYS, ARGV[1], ARGV[2]: see clock.lua
-- ARGV[3] `u:<user>` or `t:<token id>`, ARGV[4] when it may be forgotten, ms since the Unix epoch
-- Result: 1
local key = base .. 'revoked'
local version = math.max(now, tonumber(redis.call('HGET', key, 'version') or '0') + 1)
local former = string.match(redis.call('HGET', key, ARGV[3]) or '', '^%d+ (%d+)$')
local till = math.max(tonumber(ARGV[4]), tonumber(former or '0'))
redis.call('HSET', key, 'version', string.format('%.0f', version), ARGV[3], string.format('%.0f %.0f', now, till))
return 1
