-- Removes items of a lane that are done. Doing so twice, or for another node, does no harm.
-- KEYS[1] lane: stream
-- ARGV ids of the items
-- Result: how many there were
redis.call('XACK', KEYS[1], 'w', unpack(ARGV))
return redis.call('XDEL', KEYS[1], unpack(ARGV))
