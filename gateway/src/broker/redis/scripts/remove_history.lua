-- Removes a channel's history; the catalogue keeps the name and notes the loss, so that old cursors learn of it.
-- KEYS[1] meta
-- ARGV[1] base, ARGV[2] channel
-- Result: 1 if there was one, else 0
local base, channel = ARGV[1], ARGV[2]
redis.call('EXISTS', KEYS[1], base .. 'h:' .. channel, base .. 'gone')
if redis.call('DEL', base .. 'h:' .. channel) == 0 then
  return 0
end
redis.call('HSET', base .. 'gone', channel, redis.call('HGET', KEYS[1], 'top') or '0')
return 1
