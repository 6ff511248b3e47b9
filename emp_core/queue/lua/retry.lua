--- Gives a failed or cancelled job a new run: its attempts are counted from zero again.
--- transitions: failed>pending cancelled>pending
--- include: clock events inbox lines leave_active facts
--- argv: prefix events_max id lane requirement
--- returns: {code, status}
--- codes: 1 retried, now or by this call's first try, 0 the job is in another state, -1 no such job, -2 its payload is gone

local now = clock()
local facts = facts_of(id)
if not facts then
  return { -1, '' }
end
local job = prefix .. 'jobs:' .. id
if facts.status == 'completed' then
  return { 0, facts.status }
end
if facts.status ~= 'failed' and facts.status ~= 'cancelled' then
  -- In the run that a retry gave it: the call is made again, because its reply was lost.
  return { redis.call('HEXISTS', job, 'revived'), facts.status }
end
if redis.call('EXISTS', job .. ':payload') == 0 then
  return { -2, facts.status }
end
redis.call('ZREM', facts.status == 'failed' and failed_key or cancelled_key, id)
redis.call('HDEL', job, 'attempt', 'crashes', 'error', 'result', 'usage', 'token', 'worker_id', 'machine_id', 'progress',
  'message', 'cancel_requested', 'started_at', 'finished_at', 'service_job_id', 'deadline_at')
-- Its attempts begin with the same numbers, and must not have the same names for what they store.
redis.call('HINCRBY', job, 'returned', 1)
redis.call('HSET', job, 'revived', us(now))
facts.deadline = 0
if lane ~= '' then
  -- Back to the lane of what was asked, where no worker is avoided.
  redis.call('HSET', job, 'lane', lane, 'requirement', requirement)
  facts.lane, facts.requirement = lane, requirement
end
local start_at = tonumber(redis.call('HGET', job, 'start_at') or 0)
if start_at > now then
  -- It begins before its time, and has the place of a job that comes now.
  facts.arrival = facts.arrival - (start_at - now)
  redis.call('HSET', job, 'start_at', us(now), 'arrival', us(facts.arrival))
end
local status = put_back(id, facts, 0, now)
emit(id, 'revived', now, ',"status":"' .. status .. '"', facts.watched)
write_lines(now)
write_events()
return { 1, status }
