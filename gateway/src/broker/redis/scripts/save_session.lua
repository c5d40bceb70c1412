-- Keeps the record by which any node resumes a session, and where the session is.
-- KEYS[1] session: hash
-- ARGV[1] record, ARGV[2] ms to keep both, ARGV[3] node that the session is on
-- Result: 1
redis.call('HSET', KEYS[1], 'record', ARGV[1], 'node', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
