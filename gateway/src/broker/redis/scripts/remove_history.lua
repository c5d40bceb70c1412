-- Removes a channel's history; the catalogue keeps the name, so that old cursors learn of it.
-- KEYS[1] meta (unused, names the slot)
-- ARGV[1] base, ARGV[2] channel
-- Result: 1 if there was one, else 0
return redis.call('DEL', ARGV[1] .. 'h:' .. ARGV[2])
