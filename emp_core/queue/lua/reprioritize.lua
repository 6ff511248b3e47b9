--- Changes the priority of a job that waits: its place moves as if it had been submitted with it.
--- include: clock events inbox lines facts
--- argv: prefix events_max step_us id priority
--- returns: {code, status}
--- codes: 1 changed, 0 the job does not wait, -1 no such job

local now = clock()
local facts = facts_of(id)
if not facts then
  return { -1, '' }
end
if facts.status ~= 'pending' and facts.status ~= 'scheduled' then
  return { 0, facts.status }
end
local job = prefix .. 'jobs:' .. id
local before = tonumber(redis.call('HGET', job, 'priority') or 50)
if before == tonumber(priority) then
  return { 1, facts.status }
end
local arrival = facts.arrival + (before - tonumber(priority)) * tonumber(step_us)

local function head_start(first)
  local f = redis.call('HMGET', prefix .. 'jobs:' .. first[1], 'start_at', 'created_at')
  return math.max(0, math.max(tonumber(f[1] or 0), tonumber(f[2] or 0)) - first[2])
end

-- Moves the job within its line, and the customer's turn with its best job. If the customer had a turn since that job
-- came, it joined again then: what its turn is later by stays, or a new priority would give it the turn back.
local function move(lane, customer)
  local line, parked = line_of(lane, customer), prefix .. 'parked:' .. customer
  local turn = redis.call('ZSCORE', turns_of(lane), customer)
  local at_cap = not turn and redis.call('HGET', parked, lane)
  local first = redis.call('ZRANGE', line, 0, 0, 'WITHSCORES')
  redis.call('ZADD', pending_key, us(arrival), id)
  redis.call('ZADD', line, us(arrival), id)
  local best = redis.call('ZRANGE', line, 0, 0, 'WITHSCORES')
  local following, had = tonumber(best[2]), tonumber(turn or at_cap or best[2])
  if first[1] and had > tonumber(first[2]) then
    following = math.max(following, had + head_start(first) - head_start(best))
  end
  if at_cap then
    redis.call('HSET', parked, lane, us(following))
  else
    redis.call('ZADD', turns_of(lane), us(following), customer)
    set_head(lane, now)
  end
end

if facts.status == 'pending' then
  move(facts.lane, facts.customer)
end
redis.call('HSET', job, 'priority', priority, 'arrival', us(arrival))
emit(id, 'reprioritized', now, ',"priority":' .. priority, facts.watched)
write_events()
return { 1, facts.status }
