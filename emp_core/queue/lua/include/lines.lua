--- The order of waiting jobs: a customer's line in a lane by virtual arrival, customers in a lane by turn, lanes by
--- their first turn. A customer's turn is the virtual arrival of its best job, or later when it had a turn since.
--- keys: pending heads waiting lanes lanes_version lanes_empty workers
--- argv: prefix

local function line_of(lane, customer)
  return prefix .. 'lane:' .. lane .. ':line:' .. customer
end

local function turns_of(lane)
  return prefix .. 'lane:' .. lane
end

-- Makes a lane known to every live worker. Says whether it was new. requirement: nothing where the lane's service is all.
local function open_lane(lane, requirement, now)
  if redis.call('HSETNX', lanes_key, lane, requirement or ('{"service":' .. cjson.encode(lane) .. '}')) == 0 then
    return false
  end
  redis.call('INCR', lanes_version_key)
  -- Until a job enters it: the one that opens it may be cancelled before it is due.
  redis.call('ZADD', lanes_empty_key, us(now), lane)
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', workers_key, '(' .. us(now), '+inf')) do
    tell(worker, 'lane ' .. lane)
  end
  return true
end

-- Lets a lane go that stands among those without jobs. Says whether it has gone: a turn in it may be set aside.
local function let_go(lane)
  redis.call('ZREM', lanes_empty_key, lane)
  if redis.call('EXISTS', turns_of(lane), prefix .. 'lane:' .. lane .. ':parked') > 0 then
    return false
  end
  -- Those who serve it must know that it is gone: should it come back, they have to say again that they do.
  local serving = prefix .. 'lane:' .. lane .. ':workers'
  for _, name in ipairs(redis.call('ZRANGE', serving, 0, -1)) do
    redis.call('ZREM', prefix .. 'worker:' .. name .. ':lanes', lane)
    tell(name, 'gone ' .. lane)
  end
  redis.call('DEL', serving)
  return redis.call('HDEL', lanes_key, lane) == 1
end

-- Puts the first turn of a lane into the index of lanes; without one takes the lane out of it.
local function put_head(lane, turn, now)
  if turn then
    redis.call('ZADD', heads_key, turn, lane)
  else
    redis.call('ZREM', heads_key, lane)
    redis.call('ZADD', lanes_empty_key, us(now), lane)
  end
end

local function set_head(lane, now)
  put_head(lane, redis.call('ZRANGE', turns_of(lane), 0, 0, 'WITHSCORES')[2], now)
end

local function take_turn(lane, customer, turn)
  if redis.call('ZADD', turns_of(lane), 'LT', us(turn), customer) == 1 then
    redis.call('HINCRBY', waiting_key, customer, 1)
  end
  if redis.call('ZADD', heads_key, 'LT', us(turn), lane) == 1 then
    redis.call('ZREM', lanes_empty_key, lane)
  end
end

-- A customer without turns in any lane waits no more.
local function drop_turn(lane, customer)
  if redis.call('ZREM', turns_of(lane), customer) == 1 and redis.call('HINCRBY', waiting_key, customer, -1) <= 0 then
    redis.call('HDEL', waiting_key, customer)
  end
end

-- Jobs that this call puts into their places, by lane and customer.
local entering, entering_pending = {}, {}

-- Puts a waiting job into its place, once the call comes to write_lines. worker: which one to wake for it (false: none), if
-- that is known.
local function enter_line(id, lane, customer, arrival, worker)
  local at = us(arrival)
  entering_pending[#entering_pending + 1] = at
  entering_pending[#entering_pending + 1] = id
  local customers = entering[lane] or {}
  entering[lane] = customers
  local line = customers[customer] or { first = arrival }
  customers[customer] = line
  line.worker = worker
  line[#line + 1] = at
  line[#line + 1] = id
  if arrival < line.first then
    line.first = arrival
  end
end

-- Every script that enters lines ends with this: it writes each index once, and wakes a worker per job.
local function write_lines(now)
  if #entering_pending == 0 then
    return
  end
  redis.call('ZADD', pending_key, unpack(entering_pending))
  for lane, customers in pairs(entering) do
    for customer, line in pairs(customers) do
      local jobs = #line / 2
      redis.call('ZADD', line_of(lane, customer), unpack(line))
      local parked = prefix .. 'parked:' .. customer
      -- Jobs of nobody have no cap.
      local turn = customer ~= '' and redis.call('HGET', parked, lane)
      if not turn then
        take_turn(lane, customer, line.first)
        while jobs > 0 and wake(lane, now, customer, line.worker) do
          jobs, line.worker = jobs - 1, nil
        end
      elseif line.first < tonumber(turn) then
        redis.call('HSET', parked, lane, us(line.first))
      end
    end
  end
  entering, entering_pending = {}, {}
end

-- Takes a waiting job out of its place.
local function leave_line(id, lane, customer, now)
  redis.call('ZREM', pending_key, id)
  local line = line_of(lane, customer)
  redis.call('ZREM', line, id)
  if redis.call('EXISTS', line) == 0 then
    if redis.call('HDEL', prefix .. 'parked:' .. customer, lane) == 1 then
      redis.call('SREM', prefix .. 'lane:' .. lane .. ':parked', customer)
    end
    drop_turn(lane, customer)
    set_head(lane, now)
    return
  end
  -- If it was the best one, its head start goes with it.
  local best = redis.call('ZRANGE', line, 0, 0, 'WITHSCORES')[2]
  local parked = prefix .. 'parked:' .. customer
  local turn = redis.call('HGET', parked, lane)
  if turn then
    redis.call('HSET', parked, lane, us(math.max(tonumber(turn), tonumber(best))))
  elseif redis.call('ZADD', turns_of(lane), 'XX', 'GT', 'CH', best, customer) == 1 then
    set_head(lane, now)
  end
end

-- Gives a customer that was at its cap its turns back.
local function unpark(customer, now)
  local parked = prefix .. 'parked:' .. customer
  local turns = redis.call('HGETALL', parked)
  if #turns == 0 then
    return
  end
  redis.call('DEL', parked)
  for i = 1, #turns, 2 do
    redis.call('SREM', prefix .. 'lane:' .. turns[i] .. ':parked', customer)
    take_turn(turns[i], customer, tonumber(turns[i + 1]))
    wake(turns[i], now, customer)
  end
end
