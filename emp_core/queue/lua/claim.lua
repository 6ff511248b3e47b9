--- Takes waiting jobs for a worker, best first: the lanes with the smallest turn + penalty among those that it serves.
--- The same token again gives the same jobs. A worker that ends with free slots stands in workers:idle.
--- transitions: pending>active
--- include: clock events inbox lines served_lanes admitted claimed
--- keys: pending heads waiting active idle workers handed lanes_version customers_active
--- argv: prefix events_max worker session lease_us customer_cap allow deny machine token terms handed groups
--- rest: per group of slots: free slots, number of services, then their names (a lane's name begins with its service)
--- returns: {code, lanes version, µs after which to come back or -1, jobs that are left, jobs: [[id, names and values of the hash, payload, attempt if the hash is as it was before it]], now}
--- codes: 1 done, 0 the worker is not registered under this session

local COLD_SHARE = 0.3
local COLD_MAX_US = 30000000
local COLD_REFUSALS = 4

-- So many workers that may be ready sooner are looked at.
local WARMER_MOST = 32

-- How long a worker that was woken takes to come, at most.
local WOKEN_US = 50000

-- So many lanes are looked at for work to wake others for.
local NEXT_LANES = 4

-- One call moves this many jobs at most: Redis does nothing else meanwhile.
local MOST = 1000

-- So many jobs are handed to a worker between two claims at most.
local ROOM_MOST = 16

-- With so many bytes of payloads a call is full, too: Redis makes the whole reply before it sends any of it.
local BYTES_MOST = 16777216

-- What scripts left is cleared away in steps of a kilobyte: as much as one call may do.
local CLEARING_STEPS = 250

local now = clock()
local mine = prefix .. 'worker:' .. worker
local known = redis.call('MGET', mine .. ':heartbeat', lanes_version_key)
local lanes_seen = known[2]
if known[1] ~= session then
  return { 0, '0', -1, 0, {}, '0' }
end

-- A repeated call: its reply was lost.
local last = redis.call('HMGET', mine .. ':claim', 'token', 'handed')
if last[1] == token then
  for id in string.gmatch(redis.call('HGET', mine .. ':claim', 'ids'), '%S+') do
    local held = redis.call('HMGET', prefix .. 'jobs:' .. id, 'status', 'token')
    if held[1] == 'active' and held[2] == token then
      give(id, redis.call('HGETALL', prefix .. 'jobs:' .. id), '')
    end
  end
  return reply(lanes_seen, -1, redis.call('ZCARD', pending_key), now)
end

-- Free slots by group, and the group of each service.
local free, group_of, slots = {}, {}, 0
local at = rest
for group = 1, tonumber(groups) do
  local services = tonumber(ARGV[at + 1])
  free[group] = tonumber(ARGV[at])
  slots = slots + free[group]
  for i = at + 2, at + 1 + services do
    group_of[ARGV[i]] = group
  end
  at = at + 2 + services
end

-- Jobs that were handed to it take slots, whether it has heard of them yet or not. While there is one of which it may hear
-- yet it is handed no other.
local unheard = {}
if last[2] then
  -- The last one comes first.
  for service, entry, id in string.gmatch(last[2], '(%S+) ((%S+) %S+)') do
    if id == handed then
      break
    end
    unheard[#unheard + 1] = { service, entry }
  end
  local coming = {}
  for _, one in ipairs(unheard) do
    local service, entry = one[1], one[2]
    local group = group_of[service]
    if group and free[group] > 0 then
      free[group] = free[group] - 1
      slots = slots - 1
    end
    if redis.call('ZSCORE', handed_key, entry) then
      coming[#coming + 1] = service .. ' ' .. entry
    end
  end
  if #coming > 0 then
    terms = ''
    redis.call('HSET', mine .. ':claim', 'handed', table.concat(coming, ' '))
  else
    redis.call('HDEL', mine .. ':claim', 'handed')
  end
end

-- What this worker may take at most, so that the idle ones get their share.
local waiting_jobs = redis.call('ZCARD', pending_key)
local idle_others = redis.call('ZCARD', idle_key)
local was_idle = idle_others > 0 and redis.call('ZSCORE', idle_key, worker)
if was_idle then
  idle_others = idle_others - 1
end
-- Those that were woken a moment ago and have not come yet are as good as idle.
local others = idle_others
if redis.call('ZCARD', woken_key) > 0 then
  redis.call('ZREMRANGEBYSCORE', woken_key, '-inf', us(now - WOKEN_US))
  redis.call('ZREM', woken_key, worker)
  others = others + redis.call('ZCARD', woken_key)
end
local limit = math.min(slots, MOST)
if limit > 1 then
  limit = math.min(limit, math.max(1, math.ceil(waiting_jobs / (others + 1))))
end

local cold_taken, refusals, come_back_us = false, 0, #unheard > 0 and WOKEN_US or -1
-- Lane → its first turn from now on; false: it has none.
local heads = {}

local function usable(found)
  local group = group_of[found.service]
  return group and free[group] > 0 and not found.shut
end

-- Whose turn it is in a lane, and who is the first of the others. Says whether the lane is as good as it was believed to be:
-- its first turn may be that of a customer whom this worker does not admit.
local function look_at_turns(found)
  local turns = turns_of(found.lane)
  local first = redis.call('ZRANGE', turns, '0', '1')
  found.customer, found.other = first[1], first[2]
  if not first[1] then
    heads[found.lane] = false
  elseif admits and not admits(first[1]) then
    found.other = first[1]
    found.customer, found.turn = first_admitted(turns)
  else
    -- The first turn of the lane is theirs: scores are dear to read.
    found.turn = heads[found.lane] or found.turn
  end
  if not found.customer then
    found.shut = true
    return false
  end
  local believed = found.rank
  found.rank = found.turn + found.penalty_us
  return found.rank <= believed
end

-- Whether a lane with a penalty is left to a worker that is ready sooner; the bounded wait is counted from when
-- the job became claimable.
local function left_to_a_warmer_one(found, id)
  -- Whether another worker takes jobs of the customer, by what it says of itself. One that cannot be understood does not.
  local function takes(name)
    local lists = redis.pcall('HMGET', prefix .. 'worker:' .. name .. ':capabilities', 'allow', 'deny')
    local is_named = {}
    for i = 1, 2 do
      local is_read, names = pcall(cjson.decode, lists[i] or '[]')
      if lists.err or not is_read or type(names) ~= 'table' then
        return false
      end
      for _, customer in ipairs(names) do
        is_named[i] = is_named[i] or customer == found.customer
      end
    end
    return is_named[1] ~= false and not is_named[2]
  end

  local better, from = false, 0
  while not better and from < WARMER_MOST do
    local warmer = redis.call('ZRANGE', prefix .. 'lane:' .. found.lane .. ':workers', from, from + 3, 'WITHSCORES')
    for i = 1, #warmer, 2 do
      better = better or (warmer[i] ~= worker and warmer[i + 1] * 1000 < found.penalty_us and alive(warmer[i], now)
        and takes(warmer[i]))
    end
    from = from + 4
    if #warmer < 8 or warmer[8] * 1000 >= found.penalty_us then
      break
    end
  end
  if not better then
    return false
  end
  local times = redis.call('HMGET', prefix .. 'jobs:' .. id, 'pending_at', 'created_at')
  -- A job whose data is gone is left to nobody: all that wait behind it would be, too.
  local since = tonumber(times[1] or times[2] or 0)
  local ripe = since + math.min(COLD_MAX_US, COLD_SHARE * found.penalty_us)
  if ripe <= now then
    return false
  end
  if come_back_us < 0 or ripe - now < come_back_us then
    come_back_us = ripe - now
  end
  return true
end

-- How many more jobs of the customer may run; parks its turn when none. There is no such function without a cap.
local room_for
if customer_cap ~= '0' then
  room_for = function(found)
    local cap, customer = tonumber(customer_cap), found.customer
    if customer == '' then
      return limit
    end
    local running = (redis.call('HGET', customers_active_key, customer) or 0) + (begun_by_customer[customer] or 0)
    if running >= cap then
      redis.call('HSET', prefix .. 'parked:' .. customer, found.lane, found.turn)
      redis.call('SADD', prefix .. 'lane:' .. found.lane .. ':parked', customer)
      drop_turn(found.lane, customer)
      heads[found.lane] = found.other and redis.call('ZSCORE', turns_of(found.lane), found.other) or false
    end
    return cap - running
  end
end

-- The customer's next turn, by the job that is first in its line now; nil if there is none.
local function next_turn(following, line, alone)
  if not following then
    return nil
  end
  if alone then
    return redis.call('ZSCORE', line, following)
  end
  -- It joins again at now, less the head start of that job. Later with every job of this call: at equal turns the
  -- customer whose name sorts first would take all that is left.
  local times = redis.call('HMGET', prefix .. 'jobs:' .. following, 'created_at', 'start_at', 'arrival')
  local came = math.max(tonumber(times[1] or 0), tonumber(times[2] or 0))
  return us(now + #begun - math.max(0, came - (times[3] or 0)))
end

-- Takes up to `most` jobs whose rank does not pass `better`, of the customer whose turn it is.
local function take_from(found, better, most)
  local room = room_for and math.min(most, room_for(found)) or most
  if room <= 0 then
    look_at_turns(found)
    return
  end
  local lane, customer = found.lane, found.customer
  local alone = not found.other and redis.call('HLEN', waiting_key) <= 1
  if found.penalty_us > 0 or not alone then
    room = 1
  end
  -- One more than can be taken: who comes next decides the customer's next turn.
  local line = line_of(lane, customer)
  local ids = redis.call('ZRANGE', line, '0', room == 1 and '1' or room)
  if found.penalty_us > 0 and ids[1] and left_to_a_warmer_one(found, ids[1]) then
    found.shut = true
    refusals = refusals + 1
    return
  end
  local count = math.min(room, #ids)
  if better and count > 1 then
    count = math.min(count, math.max(1, redis.call('ZCOUNT', line, '-inf', us(better))))
  end
  local taken, group = 0, group_of[found.service]
  while taken < count and given_bytes < BYTES_MOST do
    taken = taken + 1
    if begin(ids[taken], customer, now) then
      free[group] = free[group] - 1
      cold_taken = cold_taken or found.penalty_us > 0
    end
  end
  if taken > 0 then
    -- Numbers are dear to pass.
    redis.call('ZREMRANGEBYRANK', line, '0', taken == 1 and '0' or taken - 1)
  end
  if found.penalty_us > 0 and cold_taken then
    found.shut = true
  end
  local turn = next_turn(ids[taken + 1], line, alone)
  local others = found.other and redis.call('ZSCORE', turns_of(lane), found.other) or false
  if turn then
    redis.call('ZADD', turns_of(lane), turn, customer)
    heads[lane] = (others and tonumber(others) < tonumber(turn)) and others or turn
  else
    drop_turn(lane, customer)
    heads[lane] = others
  end
  if #begun < limit then
    look_at_turns(found)
  end
end

while #begun < limit and given_bytes < BYTES_MOST and ghosts < MOST and refusals < COLD_REFUSALS do
  local found, better = best_lane(usable, limit - #begun)
  if not found then
    break
  end
  if found.penalty_us > 0 and cold_taken then
    found.shut = true
  elseif found.customer or look_at_turns(found) then
    take_from(found, better, math.min(limit - #begun, free[group_of[found.service]]))
  end
end

for lane, turn in pairs(heads) do
  put_head(lane, turn, now)
end
write_begun(now)
if ghosts >= MOST then
  come_back_us = 0
end

-- What it did last. An idle one also says what it could begin now.
local made
if #begun < slots then
  local services, room = {}, ROOM_MOST
  for service, group in pairs(group_of) do
    if free[group] > 0 then
      services[#services + 1] = service
      room = math.min(room, free[group])
    end
  end
  made = redis.call('HSET', mine .. ':claim', 'token', token, 'ids', table.concat(begun, ' '),
    'free', ' ' .. table.concat(services, ' ') .. ' ', 'allow', allow, 'deny', deny, 'terms', terms, 'room', room)
  redis.call('ZADD', idle_key, 'NX', us(now), worker)
else
  made = redis.call('HSET', mine .. ':claim', 'token', token, 'ids', table.concat(begun, ' '))
  if was_idle then
    redis.call('ZREM', idle_key, worker)
  end
end
if made > 0 then
  -- From then on every heartbeat keeps it.
  redis.call('PEXPIRE', mine .. ':claim', 60000)
end

-- Whether it had room for no more, be it of one service alone.
local full = #begun == limit or given_bytes >= BYTES_MOST
for group = 1, #free do
  full = full or free[group] == 0
end
local left = waiting_jobs - #begun - ghosts
if full and left > 0 and idle_others > 0 then
  -- What this worker leaves is for others: wake two, who will wake two each. Nobody may serve the lane that is first.
  local woken = 0
  for _, lane in ipairs(redis.call('ZRANGE', heads_key, 0, NEXT_LANES - 1)) do
    while woken < 2 and wake(lane, now) do
      woken = woken + 1
    end
  end
end
write_events()
if last[2] and was_idle and #begun == 0 then
  -- Jobs were handed to it, and nobody waits for this reply. Otherwise Lua does it amid submits and outcomes, one in ten of
  -- which took half as long again.
  collectgarbage('step', CLEARING_STEPS)
end
return reply(lanes_seen, come_back_us < 0 and -1 or math.ceil(come_back_us), left, now)
