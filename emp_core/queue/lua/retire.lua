--- Takes a worker that ends out of every index. Its jobs must be finished or released before.
--- transitions: active>pending active>cancelled
--- include: clock events inbox lines leave_active facts taking_back
--- keys: workers idle keeper woken
--- argv: prefix events_max worker session
--- returns: 1 done, 0 the worker is not registered under this session

local mine = prefix .. 'worker:' .. worker
if redis.call('GET', mine .. ':heartbeat') ~= session then
  return 0
end
local now = clock()
for _, lane in ipairs(redis.call('ZRANGE', mine .. ':lanes', 0, -1)) do
  redis.call('ZREM', prefix .. 'lane:' .. lane .. ':workers', worker)
end
redis.call('DEL', mine .. ':heartbeat', mine .. ':capabilities', mine .. ':lanes', mine .. ':claim', mine .. ':inbox')
redis.call('ZREM', workers_key, worker)
redis.call('ZREM', idle_key, worker)
redis.call('ZREM', woken_key, worker)
if redis.call('GET', keeper_key) == worker then
  redis.call('DEL', keeper_key)
end
-- What it was told last it has not heard.
for _, entry in ipairs(redis.call('ZRANGE', handed_key, '0', '-1')) do
  if redis.call('HGET', prefix .. 'jobs:' .. string.match(entry, '^%S+'), 'worker_id') == worker then
    take_back(entry, now)
  end
end
write_leaving(now)
write_lines(now)
write_events()
return 1
