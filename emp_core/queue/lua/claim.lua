--- Takes waiting jobs for a worker, best first: the lanes with the smallest turn + penalty among those that it serves.
--- The same token again gives the same jobs. A worker that ends with free slots stands in workers:idle.
--- transitions: pending>active
--- include: clock events inbox lines
--- keys: pending heads waiting active idle workers lanes_version customers_active
--- argv: prefix events_max worker session lease_us customer_cap allow deny machine token groups
--- rest: per group of slots: free slots, number of services, then their names (a lane's name begins with its service)
--- returns: JSON {code, lanes version, µs after which to come back or -1, jobs that are left, jobs: [[id, names and values of the hash, payload]]}
--- codes: 1 done, 0 the worker is not registered under this session

local COLD_SHARE = 0.3
local COLD_MAX_US = 30000000
local COLD_REFUSALS = 4
-- A worker that serves no more lanes than this looks each of them up, once the first lanes are none of them.
local FEW_SERVED = 128

-- How long a worker that was woken takes to come, at most.
local WOKEN_US = 50000

-- One call moves this many jobs at most: Redis does nothing else meanwhile.
local MOST = 1000

local now = clock()
local mine = prefix .. 'worker:' .. worker
local alive_as, lanes_seen = unpack(redis.call('MGET', mine .. ':heartbeat', lanes_version_key))
if alive_as ~= session then
  return cjson.encode({ 0, '0', -1, 0, {} })
end

local given, payload_keys = {}, {}

local function give(id, hash)
  given[#given + 1] = { id, hash }
  payload_keys[#payload_keys + 1] = prefix .. 'jobs:' .. id .. ':payload'
end

-- One text for all: the client reads it faster than a list of lists.
local function reply(come_back_us, left)
  if #given > 0 then
    for i, payload in ipairs(redis.call('MGET', unpack(payload_keys))) do
      given[i][3] = payload or 'null'
    end
  end
  return cjson.encode({ 1, lanes_seen or '0', come_back_us, left, given })
end

-- A repeated call: its reply was lost.
local last = redis.call('HMGET', mine .. ':claim', 'token', 'ids')
if last[1] == token then
  for id in string.gmatch(last[2], '%S+') do
    local held = redis.call('HMGET', prefix .. 'jobs:' .. id, 'status', 'token')
    if held[1] == 'active' and held[2] == token then
      give(id, redis.call('HGETALL', prefix .. 'jobs:' .. id))
    end
  end
  return reply(-1, redis.call('ZCARD', pending_key))
end

-- Free slots by service.
local free, group_of, slots = {}, {}, 0
local at = rest
for group = 1, tonumber(groups) do
  free[group] = tonumber(ARGV[at])
  slots = slots + free[group]
  for i = 1, tonumber(ARGV[at + 1]) do
    group_of[ARGV[at + 1 + i]] = group
  end
  at = at + 2 + tonumber(ARGV[at + 1])
end

-- What this worker may take at most, so that the idle ones get their share.
local waiting_jobs = redis.call('ZCARD', pending_key)
local idle_others = redis.call('ZCARD', idle_key)
if idle_others > 0 and redis.call('ZSCORE', idle_key, worker) then
  idle_others = idle_others - 1
end
-- Those that were woken a moment ago and have not come yet are as good as idle.
local others = idle_others
if redis.call('ZCARD', woken_key) > 0 then
  redis.call('ZREMRANGEBYSCORE', woken_key, '-inf', us(now - WOKEN_US))
  redis.call('ZREM', woken_key, worker)
  others = others + redis.call('ZCARD', woken_key)
end
local limit = math.min(slots, MOST, math.max(1, math.ceil(waiting_jobs / (others + 1))))

local function listed(list)
  if list == '' then
    return nil
  end
  local set = {}
  for _, name in ipairs(cjson.decode(list)) do
    set[name] = true
  end
  return set
end
local allowed, denied = listed(allow), listed(deny)

local function admits(customer)
  return (not allowed or allowed[customer]) and not (denied and denied[customer])
end

-- Lanes of this worker that have jobs, by turn + penalty, found without looking at every lane.
local served = mine .. ':lanes'
local lanes_found, window_from, window, seen_turn = {}, 0, 16, nil
local all_seen = false
local least_penalty_us

-- No lane that was not looked at yet can have a better rank than this.
local function least_rank_unseen()
  least_penalty_us = least_penalty_us or tonumber(redis.call('ZRANGE', served, 0, 0, 'WITHSCORES')[2] or 0) * 1000
  return seen_turn + least_penalty_us
end

local function add_lane(lane, turn, penalty_us)
  local group = group_of[string.match(lane, '^[^@]+')]
  if group and free[group] > 0 then
    lanes_found[#lanes_found + 1] = { lane = lane, rank = turn + penalty_us, penalty_us = penalty_us, group = group }
  end
end

-- Names and scores of a reply, apart.
local function apart(scored)
  local names = {}
  for i = 1, #scored, 2 do
    names[#names + 1] = scored[i]
  end
  return names
end

local first_lanes = {}

-- The next lanes by turn: enough for a worker that serves the lanes at the head.
local function look_at_window()
  local heads = redis.call('ZRANGE', heads_key, window_from, window_from + window - 1, 'WITHSCORES')
  all_seen = #heads < 2 * window
  if #heads == 0 then
    return
  end
  local names = apart(heads)
  local penalties = redis.call('ZMSCORE', served, unpack(names))
  for i, lane in ipairs(names) do
    first_lanes[lane] = true
    if penalties[i] then
      add_lane(lane, tonumber(heads[2 * i]), penalties[i] * 1000)
    end
  end
  seen_turn = tonumber(heads[#heads])
  window_from = window_from + window
  window = math.min(window * 2, 1024)
end

-- All other lanes that this worker serves, at once.
local function look_at_served()
  all_seen = true
  local penalties = redis.call('ZRANGE', served, 0, -1, 'WITHSCORES')
  local names = apart(penalties)
  local turns = #names > 0 and redis.call('ZMSCORE', heads_key, unpack(names)) or {}
  for i, lane in ipairs(names) do
    if turns[i] and not first_lanes[lane] then
      add_lane(lane, tonumber(turns[i]), penalties[2 * i] * 1000)
    end
  end
end

local function look_further()
  if window_from > 0 and redis.call('ZCARD', served) <= FEW_SERVED then
    look_at_served()
  else
    look_at_window()
  end
end

-- The best lane, and the rank at which another one would be better.
local function best_lane()
  while true do
    local best, second
    for i, found in ipairs(lanes_found) do
      if free[found.group] > 0 and not found.shut then
        if not best or found.rank < best.rank then
          best, second = found, best and best.rank or second
        elseif not second or found.rank < second then
          second = found.rank
        end
      end
    end
    if all_seen then
      return best, second
    end
    local bound = best and seen_turn and least_rank_unseen()
    if bound and best.rank <= bound then
      return best, (second and second < bound) and second or bound
    end
    look_further()
  end
end

local taken, taken_count, ghosts = {}, 0, 0
local claims_by_customer = {}
local touched = {}
local cold_taken, refusals, come_back_us = false, 0, -1
local claimed_by = ',"status":"active","worker":' .. cjson.encode(worker) .. ',"machine":' .. cjson.encode(machine) .. ',"attempt":'

-- Whether a lane with a penalty is left to a worker that is ready sooner; the bounded wait is counted from when
-- the job became claimable.
local function left_to_a_warmer_one(found, id)
  if found.penalty_us == 0 then
    return false
  end
  local warmer = redis.call('ZRANGE', prefix .. 'lane:' .. found.lane .. ':workers', 0, 3, 'WITHSCORES')
  local better = false
  for i = 1, #warmer, 2 do
    if warmer[i] ~= worker and warmer[i + 1] * 1000 < found.penalty_us and alive(warmer[i], now) then
      better = true
    end
  end
  if not better then
    return false
  end
  local times = redis.call('HMGET', prefix .. 'jobs:' .. id, 'pending_at', 'created_at')
  local since = tonumber(times[1] or times[2] or now)
  local ripe = since + math.min(COLD_MAX_US, COLD_SHARE * found.penalty_us)
  if ripe <= now then
    return false
  end
  if come_back_us < 0 or ripe - now < come_back_us then
    come_back_us = ripe - now
  end
  return true
end

local function begin(id, customer)
  local job = prefix .. 'jobs:' .. id
  local hash = redis.call('HGETALL', job)
  local f = {}
  for i = 1, #hash, 2 do
    f[hash[i]] = hash[i + 1]
  end
  if f.status ~= 'pending' then
    -- A ghost: the job was deleted, or an aborted script left it in the line.
    ghosts = ghosts + redis.call('ZREM', pending_key, id)
    return
  end
  local attempt = string.format('%d', (tonumber(f.attempt) or 0) + 1)
  local begun = us(now)
  redis.call('HSET', job, 'status', 'active', 'worker_id', worker, 'machine_id', machine, 'token', token,
    'attempt', attempt, 'started_at', begun)
  if f.progress then
    redis.call('HDEL', job, 'progress', 'message')
    hash = redis.call('HGETALL', job)
  end
  -- What was just written comes last, and so it counts.
  for _, text in ipairs({ 'status', 'active', 'worker_id', worker, 'machine_id', machine, 'attempt', attempt,
    'started_at', begun }) do
    hash[#hash + 1] = text
  end
  taken_count = taken_count + 1
  taken[taken_count] = id
  claims_by_customer[customer] = (claims_by_customer[customer] or 0) + 1
  emit(id, 'claimed', now, claimed_by .. attempt .. ',"waited_us":' .. us(now - tonumber(f.pending_at or f.created_at)),
    f.watched)
  give(id, hash)
end

-- How many more jobs of this customer may run; parks its turn when none.
local function room_for(lane, customer, turn)
  local cap = tonumber(customer_cap)
  if cap == 0 or customer == '' then
    return limit
  end
  local running = tonumber(redis.call('HGET', customers_active_key, customer) or 0) + (claims_by_customer[customer] or 0)
  if running >= cap then
    redis.call('HSET', prefix .. 'parked:' .. customer, lane, turn)
    drop_turn(lane, customer)
  end
  return cap - running
end

-- The customer whose turn it is, among those that this worker admits.
local function next_customer(lane)
  if not allowed and not denied then
    local first = redis.call('ZRANGE', turns_of(lane), 0, 0, 'WITHSCORES')
    return first[1], first[2]
  end
  for from = 0, redis.call('ZCARD', turns_of(lane)) - 1, 64 do
    local turns = redis.call('ZRANGE', turns_of(lane), from, from + 63, 'WITHSCORES')
    for i = 1, #turns, 2 do
      if admits(turns[i]) then
        return turns[i], turns[i + 1]
      end
    end
  end
end

local function rank_again(found)
  local _, turn = next_customer(found.lane)
  if turn then
    found.rank = tonumber(turn) + found.penalty_us
  else
    found.shut = true
  end
end

-- Takes up to `most` jobs whose rank does not pass `second`, of the customer whose turn it is.
local function take_from(found, second, most)
  local lane = found.lane
  local customer, turn = next_customer(lane)
  touched[lane] = true
  if not customer then
    found.shut = true
    return
  end
  local room = math.min(most, room_for(lane, customer, turn))
  if room <= 0 then
    rank_again(found)
    return
  end
  local line = line_of(lane, customer)
  local alone = redis.call('HLEN', waiting_key) <= 1
  if found.penalty_us > 0 or not alone then
    room = 1
  end
  -- One more than can be taken: who comes next decides the customer's next turn.
  local first = redis.call('ZRANGE', line, 0, room, 'WITHSCORES')
  if first[1] and left_to_a_warmer_one(found, first[1]) then
    found.shut = true
    refusals = refusals + 1
    return
  end
  local count = 0
  for i = 2, math.min(#first, 2 * room), 2 do
    if count == 0 or not second or first[i] + found.penalty_us <= second then
      count = count + 1
    else
      break
    end
  end
  local ids = redis.call('ZPOPMIN', line, math.max(count, 1))
  for i = 1, #ids, 2 do
    local before = taken_count
    begin(ids[i], customer)
    free[found.group] = free[found.group] - (taken_count - before)
  end
  if found.penalty_us > 0 then
    cold_taken = true
    found.shut = true
  end
  local following = { first[2 * math.max(count, 1) + 1], first[2 * math.max(count, 1) + 2] }
  if not following[1] then
    drop_turn(lane, customer)
  elseif alone then
    redis.call('ZADD', turns_of(lane), following[2], customer)
  else
    -- Joins again at now, less the head start of its next job. Later with every job of this call: at equal turns the
    -- customer whose name sorts first would take all that is left.
    local f = redis.call('HMGET', prefix .. 'jobs:' .. following[1], 'start_at', 'created_at')
    local came = math.max(tonumber(f[1] or 0), tonumber(f[2] or 0))
    local head_start = math.max(0, came - following[2])
    redis.call('ZADD', turns_of(lane), us(now + taken_count - head_start), customer)
  end
  if taken_count < limit then
    rank_again(found)
  end
end

while taken_count < limit and refusals < COLD_REFUSALS do
  local found, second = best_lane()
  if not found then
    break
  end
  if found.penalty_us > 0 and cold_taken then
    found.shut = true
  else
    take_from(found, second, math.min(limit - taken_count, free[found.group]))
  end
end

for lane in pairs(touched) do
  set_head(lane, now)
end
if taken_count > 0 then
  redis.call('ZREM', pending_key, unpack(taken))
  local leases = {}
  local ends = us(now + tonumber(lease_us))
  for i = 1, taken_count do
    leases[2 * i - 1], leases[2 * i] = ends, taken[i]
  end
  redis.call('ZADD', active_key, unpack(leases))
  for customer, count in pairs(claims_by_customer) do
    redis.call('HINCRBY', customers_active_key, customer, count)
  end
end
local with_free_slots = {}
for service, group in pairs(group_of) do
  if free[group] > 0 then
    with_free_slots[#with_free_slots + 1] = service
  end
end
local made = redis.call('HSET', mine .. ':claim', 'token', token, 'ids', table.concat(taken, ' '),
  'free', ' ' .. table.concat(with_free_slots, ' ') .. ' ', 'allow', allow, 'deny', deny)
if made > 0 then
  -- From then on every heartbeat keeps it.
  redis.call('PEXPIRE', mine .. ':claim', 60000)
end

local left = waiting_jobs - taken_count - ghosts
if taken_count < slots then
  redis.call('ZADD', idle_key, 'NX', us(now), worker)
else
  redis.call('ZREM', idle_key, worker)
end
if taken_count == limit and left > 0 and idle_others > 0 then
  -- What this worker leaves is for others: wake two, who will wake two each.
  local next_lane = redis.call('ZRANGE', heads_key, 0, 0)[1]
  if next_lane and wake(next_lane, now) then
    wake(next_lane, now)
  end
end
write_events()
return reply(come_back_us < 0 and -1 or math.ceil(come_back_us), left)
