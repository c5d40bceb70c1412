-- Makes dead jobs ready again, as if they had just been published.
-- KEYS[1], ARGV[1] base, ARGV[2] node: see clock.lua
-- ARGV[3] greatest length of an inbox, ARGV[4] queue (see jobs.lua), ARGV[5] how many, ARGV[6] most jobs of the queue
-- Result: how many there were
local q = ARGV[4]
local jobs = jobs_of(base, now, ARGV[3])
if not jobs.exists(q) then
  return 0
end
jobs.open(q)
local room = tonumber(ARGV[6]) - jobs.length(q)
local most = math.max(0, math.min(tonumber(ARGV[5]), room))
if most == 0 then
  return 0
end
local dead = redis.call('XRANGE', jobs.key('jx', q), '-', '+', 'COUNT', most)
for _, entry in ipairs(dead) do
  local function field(name)
    return jobs.field(entry[2], name)
  end
  jobs.put(q, field('b'), field('p'), field('k'), 0)
  redis.call('XDEL', jobs.key('jx', q), entry[1])
  jobs.wake(q)
end
return #dead
