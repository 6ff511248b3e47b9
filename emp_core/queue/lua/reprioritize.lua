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
local arrival = facts.arrival + (before - tonumber(priority)) * tonumber(step_us)
if facts.status == 'pending' then
  leave_line(id, facts.lane, facts.customer, now)
  enter_line(id, facts.lane, facts.customer, arrival)
end
redis.call('HSET', job, 'priority', priority, 'arrival', us(arrival))
emit(id, 'reprioritized', now, ',"priority":' .. priority, facts.watched)
write_lines(now)
write_events()
return { 1, facts.status }
