--- Writes into the events of waiting jobs that nobody can run them: once, until somebody has had the job.
--- include: clock events
--- argv: prefix events_max fragment
--- rest: ids
--- returns: how many were told now

local now = clock()
local told = 0
for i = rest, #ARGV do
  local job = prefix .. 'jobs:' .. ARGV[i]
  local f = redis.call('HMGET', job, 'status', 'unserved', 'watched')
  if (f[1] == 'pending' or f[1] == 'scheduled') and not f[2] then
    redis.call('HSET', job, 'unserved', '1')
    emit(ARGV[i], 'unserved', now, fragment, f[3])
    told = told + 1
  end
end
write_events()
return told
