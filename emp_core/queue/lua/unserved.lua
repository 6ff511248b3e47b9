--- Writes into the events of waiting jobs that nobody can run them: once, until somebody has had the job. What is left of
--- those whose data is gone is taken away.
--- include: clock events inbox lines facts
--- argv: prefix events_max lane customer fragment
--- rest: ids of jobs that wait in the customer's line in the lane, or for a time
--- returns: how many were told now, then the ids of those that are gone

local now = clock()
local reply = { 0 }
for i = rest, #ARGV do
  local id = ARGV[i]
  local job = prefix .. 'jobs:' .. id
  local f = redis.call('HMGET', job, 'status', 'unserved', 'watched')
  if not f[1] then
    leave_line(id, lane, customer, now)
    forget(id)
    reply[#reply + 1] = id
  elseif (f[1] == 'pending' or f[1] == 'scheduled') and not f[2] then
    redis.call('HSET', job, 'unserved', '1')
    emit(id, 'unserved', now, fragment, f[3])
    reply[1] = reply[1] + 1
  end
end
write_events()
return reply
