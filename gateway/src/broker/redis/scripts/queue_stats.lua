-- How a queue is doing.
-- KEYS[1], ARGV[1] base, ARGV[2] node: see clock.lua
-- ARGV[3] queue (see jobs.lua)
-- Result: { 0 } if there is none, else { 1, ready, in flight, delayed, dead, ms since the oldest was published, consumers }
local q = ARGV[3]
local jobs = jobs_of(base, now, '0')
if not jobs.exists(q) then
  return { 0 }
end
local stream, time = jobs.key('j', q), string.format('%.0f', now)
local pending = redis.pcall('XPENDING', stream, 'c')
local handed_out = pending.err and 0 or pending[1]
local function count(letter, from, to)
  return redis.call('ZCOUNT', jobs.key(letter, q), from, to)
end
local in_flight, expired = count('jt', '(' .. time, '(inf'), count('jt', '-inf', time)
local back, delayed = count('jr', '-inf', time), count('jr', '(' .. time, '(inf') + redis.call('ZCARD', jobs.key('jd', q)) - 1
local parked = tonumber(redis.call('HGET', jobs.key('js', q), 'parked'))
local ready = redis.call('XLEN', stream) - handed_out + parked + expired + back
local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
local age = oldest and math.max(0, now - tonumber(jobs.field(oldest[2], 't'))) or 0
local consumers, lives = 0, {}
for _, of in ipairs(redis.call('HVALS', jobs.key('jc', q))) do
  if lives[of] == nil then
    lives[of] = tonumber(redis.call('ZSCORE', base .. 'leases', of) or '0') > now
  end
  consumers = consumers + (lives[of] and 1 or 0)
end
return { 1, ready, in_flight, delayed, redis.call('XLEN', jobs.key('jx', q)), age, consumers }
