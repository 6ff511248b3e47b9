--- Messages to workers, and waking the one that can start a job soonest.
--- keys: workers idle keeper woken
--- argv: prefix

local INBOX_TTL_MS = 60000
local UNFIT_MAX = 16

local function tell(worker, message)
  local inbox = prefix .. 'worker:' .. worker .. ':inbox'
  redis.call('RPUSH', inbox, message)
  redis.call('PEXPIRE', inbox, INBOX_TTL_MS)
end

-- A worker whose heartbeat ended stays in the indexes until the keeper comes by: nobody waits for it.
local function alive(worker, now)
  local ends = redis.call('ZSCORE', workers_key, worker)
  return ends and tonumber(ends) > now
end

-- Puts a job into an index of what is due, and tells the keeper if nothing is due sooner: it sleeps until what it knew of.
local function put_due(index, due, id)
  redis.call('ZADD', index, due, id)
  if redis.call('ZRANGE', index, 0, 0)[1] == id then
    local keeper = redis.call('GET', keeper_key)
    if keeper then
      tell(keeper, 'due')
    end
  end
end

-- The idle worker with the smallest penalty for the lane that can begin a job of the customer (nil: of anybody); its penalty;
-- and what it said when it claimed last: its token, and the terms on which jobs may be handed to it (false: none).
local function idle_for(lane, now, customer)
  local service = string.match(lane, '^[^@]+')
  local serving = prefix .. 'lane:' .. lane .. ':workers'
  local unfit, unfit_count = {}, 0

  -- The one with the smallest penalty that is not known to be unfit. Scans from the smaller side, in windows.
  local function find()
    local idle, able = redis.call('ZCARD', idle_key), redis.call('ZCARD', serving)
    if idle == 0 or able == 0 then
      return nil
    end
    local small, large = idle_key, serving
    if able < idle then
      small, large = serving, idle_key
    end
    local best, best_penalty
    for from = 0, math.min(idle, able) - 1, 32 do
      local window = redis.call('ZRANGE', small, from, from + 31, 'WITHSCORES')
      local names = {}
      for i = 1, #window, 2 do
        names[#names + 1] = window[i]
      end
      local found = redis.call('ZMSCORE', large, unpack(names))
      for i, name in ipairs(names) do
        if found[i] and not unfit[name] then
          local penalty = tonumber(small == serving and window[2 * i] or found[i])
          if not best or penalty < best_penalty then
            best, best_penalty = name, penalty
          end
        end
      end
      -- The lane's own side is in order of penalty; on the other side nothing beats 0.
      if best and (small == serving or best_penalty == 0) then
        break
      end
    end
    return best, best_penalty
  end

  local function names(list)
    for _, name in ipairs(cjson.decode(list)) do
      if name == customer then
        return true
      end
    end
    return false
  end

  -- Whether it could begin the job now: it said so when it claimed last. A worker that could not would be woken in vain,
  -- and the one that could would not be woken.
  local function fit(free, allow, deny)
    if free and not string.find(free, ' ' .. service .. ' ', 1, true) then
      return false
    end
    return not customer
      or ((not allow or allow == '' or names(allow)) and (not deny or deny == '' or not names(deny)))
  end

  while unfit_count < UNFIT_MAX do
    local best, penalty = find()
    if not best then
      return nil
    end
    local free, allow, deny, token, terms =
      unpack(redis.call('HMGET', prefix .. 'worker:' .. best .. ':claim', 'free', 'allow', 'deny', 'token', 'terms'), 1, 5)
    if not fit(free, allow, deny) then
      unfit[best], unfit_count = true, unfit_count + 1
    elseif alive(best, now) then
      return best, penalty, token, terms
    else
      redis.call('ZREM', idle_key, best)
    end
  end
  return nil
end

-- Wakes the worker that can begin a job of the lane soonest, if one is idle: until it claims, it is not idle but as good as
-- that. worker: what was found (false: none) if it was looked for already.
local function wake(lane, now, customer, worker)
  if worker == nil then
    worker = idle_for(lane, now, customer)
  end
  if worker then
    redis.call('ZREM', idle_key, worker)
    redis.call('ZADD', woken_key, us(now), worker)
    tell(worker, 'wake')
  end
  return worker
end
