-- A node's turn at a queue: what its consumers have settled, and what they get next.
-- KEYS[1], ARGV[1] base, ARGV[2] node: see clock.lua
-- ARGV[3] greatest length of an inbox, ARGV[4] queue (see jobs.lua)
-- ARGV[5] visibility timeout in ms, ARGV[6] most attempts, ARGV[7] most dead jobs
-- ARGV[8] '1' if dead jobs are to be told to a channel; ARGV[9] number of steps
-- then 5 for each step: what, session, job, attempt, argument. What is
--   `c` a consumer begins (argument: '1' if its group is to be noted with the channel), `u` it ends (argument: '1' to give back what it has),
--   `a` ack, `n` nack (argument: delay in ms), `e` extend (argument: by how many ms), `d` a dead job was told
-- then 2 for each consumer that is to get jobs: session, how many
-- Result: { number of steps, a letter for each: `.` done, `g` gone, `x` expired, `n` not yours; ms when something becomes due, '' if
--   nothing will; jobs that died; dead jobs that were dropped; jobs { consumer (from 1), job, attempt, deadline, ms of the publish, position or '',
--   blob }; jobs to be told { job, blob } }
local q, visibility, attempts, most_dead, tell = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], ARGV[8] == '1'
local steps, outcomes = tonumber(ARGV[9]), {}
local jobs = jobs_of(base, now, ARGV[3])
local stream = jobs.key('j', q)

-- A queue that was removed stays away until somebody consumes it anew.
local known = jobs.exists(q)
if known then
  jobs.open(q)
end

local function bury(id, deliveries)
  jobs.bury(q, id, deliveries, most_dead, tell)
end

-- Forgets consumers of nodes that are gone, a few with each that begins.
local function sweep()
  local consumers = jobs.key('jc', q)
  for _, other in ipairs(redis.call('HRANDFIELD', consumers, 5)) do
    local of = redis.call('HGET', consumers, other)
    if of ~= node and tonumber(redis.call('ZSCORE', base .. 'leases', of) or '0') <= now then
      redis.call('HDEL', consumers, other)
      local held = redis.pcall('XPENDING', stream, 'c', '-', '+', 1, other)
      if not held.err and #held == 0 then
        redis.pcall('XGROUP', 'DELCONSUMER', stream, 'c', other)
      end
    end
  end
end

local function begin(session, bind)
  if not known then
    jobs.open(q)
    known = true
  end
  -- Fails if it is there.
  redis.pcall('XGROUP', 'CREATE', stream, 'c', '0', 'MKSTREAM')
  redis.call('HSET', jobs.key('jc', q), session, node)
  sweep()
  if bind then
    local group, channel = string.match(q, '^([^/]*)/(.*)$')
    local groups = redis.call('HGET', base .. 'jg', channel) or ''
    if not string.find(' ' .. groups .. ' ', ' ' .. group .. ' ', 1, true) then
      redis.call('HSET', base .. 'jg', channel, groups == '' and group or groups .. ' ' .. group)
    end
  end
end

local function finish(session, release)
  -- It may have begun anew on another node.
  if redis.call('HGET', jobs.key('jc', q), session) == node then
    redis.call('HDEL', jobs.key('jc', q), session)
  end
  local held = redis.pcall('XPENDING', stream, 'c', '-', '+', 10000, session)
  if held.err then
    return
  end
  for _, job in ipairs(release and held or {}) do
    jobs.give_back(q, job[1], now)
  end
  if release or #held == 0 then
    redis.pcall('XGROUP', 'DELCONSUMER', stream, 'c', session)
  end
end

-- The node of the session learns that it has credit again.
local function tell_home(session, id)
  local home = redis.call('HGET', jobs.key('jc', q), session)
  if home and home ~= node then
    local inbox = base .. 'in:' .. home
    redis.pcall('XADD', inbox, 'NOMKSTREAM', 'MAXLEN', '~', ARGV[3], home .. '-*', 'q ' .. q, id .. ' ' .. session)
  end
end

local function settle(what, session, id, attempt, argument)
  local job = jobs.pending(q, id)
  if not job then
    return 'g'
  elseif job[4] ~= tonumber(attempt) or job[2] == '~' then
    return 'x'
  elseif job[2] ~= session then
    return 'n'
  elseif what == 'a' then
    jobs.ack(q, id)
  elseif what == 'e' then
    redis.call('ZADD', jobs.key('jt', q), string.format('%.0f', now + tonumber(argument)), id)
  elseif job[4] >= attempts then
    bury(id, job[4])
  else
    jobs.give_back(q, id, now + tonumber(argument))
  end
  if what ~= 'e' then
    tell_home(session, id)
  end
  return '.'
end

for step = 1, steps do
  local at = 5 + 5 * step
  local what, session, id, attempt, argument = unpack(ARGV, at, at + 4)
  local outcome = '.'
  if what == 'c' then
    begin(session, argument == '1')
  elseif not known then
    outcome = 'g'
  elseif what == 'u' then
    finish(session, argument == '1')
  elseif what == 'd' then
    redis.call('HDEL', jobs.key('jo', q), id)
  else
    outcome = settle(what, session, id, attempt, argument)
  end
  outcomes[step] = outcome
end

if not known then
  return { steps, table.concat(outcomes), '', 0, 0, {}, {} }
end
jobs.promote(q)
local handed, hungry, wants = {}, false, 0
local deadline = string.format('%.0f', now + visibility)
for at = 10 + 5 * steps, #ARGV, 2 do
  wants = wants + 1
  local wanted = tonumber(ARGV[at + 1])
  local taken = jobs.hand(q, ARGV[at], wanted, deadline, attempts, bury, function(id, deliveries, fields)
    local of = { wants, id, deliveries, deadline, jobs.field(fields, 't'), jobs.field(fields, 'p'), jobs.field(fields, 'b') }
    handed[#handed + 1] = of
  end)
  hungry = taken < wanted
end
if hungry then
  redis.call('SADD', jobs.key('jh', q), node)
elseif jobs.freed > 0 then
  -- More than was taken here may be there.
  jobs.wake(q)
end
local told = {}
if tell and redis.call('HLEN', jobs.key('jo', q)) > 0 then
  for _, id in ipairs(redis.call('HRANDFIELD', jobs.key('jo', q), 20)) do
    told[#told + 1] = { id, redis.call('HGET', jobs.key('jo', q), id) }
  end
end
return { steps, table.concat(outcomes), jobs.next_due(q), jobs.buried, jobs.dropped, handed, told }
