--- Registers a worker, or tells what it offers and which lanes it serves now, with their penalties in ms.
--- include: clock
--- keys: workers lanes_version
--- argv: prefix worker session lease_us reset facts lanes_count
--- rest: facts: names and values of the capabilities' hash in turn; then per changed lane: name penalty_ms ('' = not served any more)
--- returns: {code, now, lanes version, whether one of the named lanes has jobs}
--- codes: 1 done, 0 another process is alive under this name, -1 the worker is not registered: register with reset

local now = clock()
local mine = prefix .. 'worker:' .. worker
local lanes = mine .. ':lanes'
local owner = redis.call('GET', mine .. ':heartbeat')
if owner and owner ~= session then
  return { 0, us(now), '0', 0 }
end
if reset == '1' then
  for _, lane in ipairs(redis.call('ZRANGE', lanes, 0, -1)) do
    redis.call('ZREM', prefix .. 'lane:' .. lane .. ':workers', worker)
  end
  -- What was told to one that died under this name is not for this one.
  redis.call('DEL', lanes, mine .. ':capabilities', mine .. ':claim', mine .. ':inbox')
elseif not owner then
  return { -1, us(now), '0', 0 }
end

redis.call('SET', mine .. ':heartbeat', session, 'PX', us(tonumber(lease_us) / 1000))
redis.call('ZADD', workers_key, us(now + tonumber(lease_us)), worker)
local first_lane = rest + 2 * tonumber(facts)
if tonumber(facts) > 0 then
  redis.call('HSET', mine .. ':capabilities', unpack(ARGV, rest, first_lane - 1))
end
redis.call('PEXPIRE', mine .. ':capabilities', us(2 * tonumber(lease_us) / 1000 + 60000))

local work = 0
for i = first_lane, first_lane + 2 * tonumber(lanes_count) - 1, 2 do
  local lane, penalty = ARGV[i], ARGV[i + 1]
  local serving = prefix .. 'lane:' .. lane .. ':workers'
  if penalty == '' then
    redis.call('ZREM', lanes, lane)
    redis.call('ZREM', serving, worker)
  else
    redis.call('ZADD', lanes, penalty, lane)
    redis.call('ZADD', serving, penalty, worker)
    if work == 0 and redis.call('EXISTS', prefix .. 'lane:' .. lane) == 1 then
      work = 1
    end
  end
end
return { 1, us(now), redis.call('GET', lanes_version_key) or '0', work }
