--- Tells a worker to take no more jobs, and to end when those that it has are done. The order names its session: another
--- process that has its name later does not follow it.
--- include: inbox
--- argv: prefix worker
--- returns: 1 told, 0 no such worker is alive

local session = redis.call('GET', prefix .. 'worker:' .. worker .. ':heartbeat')
if not session then
  return 0
end
tell(worker, 'drain ' .. session)
return 1
