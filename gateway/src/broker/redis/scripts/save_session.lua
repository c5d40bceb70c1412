-- Keeps the record by which any node resumes a session.
-- KEYS[1] session: hash
-- ARGV[1] record, ARGV[2] ms to keep it
-- Result: 1
redis.call('HSET', KEYS[1], 'record', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
