--- Messages to workers, and waking the one that can start a job soonest.
--- keys: workers idle keeper woken handed
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

-- Whether the worker has not said yet that it has the last job that was handed to it: it may be dead.
local function owes_its_word(handed)
  return handed and redis.call('ZSCORE', handed_key, string.match(handed, '^%S+ (%S+ %S+)'))
end

-- The idle worker with the smallest penalty for the lane that can begin a job of the customer (nil: of anybody), of several
-- the one whose turn is first, those that owe their word last; its penalty; what it said when it claimed last (free, allow,
-- deny, token, terms), with what became of it since (room, handed); and whether it owes its word. Where there is none: nil,
-- and whether an idle one refuses the customer.
local function idle_for(lane, now, customer)
  local serving = prefix .. 'lane:' .. lane .. ':workers'
  local service = ' ' .. string.match(lane, '^[^@]+') .. ' '
  local unfit, unfit_count = {}, 0

  -- The one with the smallest penalty that is not known to be unfit. Scans from the smaller side, in windows of 32.
  local function find()
    local names = redis.call('ZRANGE', idle_key, '0', '31')
    local able = #names == 32 and redis.call('ZCARD', serving)
    if able and able < redis.call('ZCARD', idle_key) then
      -- The lane's own side is in order of penalty.
      for from = 0, able - 1, 32 do
        local window = redis.call('ZRANGE', serving, from, from + 31, 'WITHSCORES')
        names = {}
        for i = 1, #window, 2 do
          names[#names + 1] = window[i]
        end
        local best, penalty, since
        for i, idle_since in ipairs(redis.call('ZMSCORE', idle_key, unpack(names))) do
          if idle_since and not unfit[names[i]] then
            if best and window[2 * i] ~= penalty then
              break
            elseif not best or tonumber(idle_since) < since then
              best, penalty, since = names[i], window[2 * i], tonumber(idle_since)
            end
          end
        end
        if best then
          return best, tonumber(penalty)
        end
      end
      return nil
    end
    local best, least
    local from = 0
    while names[1] do
      local penalties = redis.call('ZMSCORE', serving, unpack(names))
      for i, name in ipairs(names) do
        local penalty = tonumber(penalties[i])
        if penalty and not unfit[name] and (not best or penalty < least) then
          best, least = name, penalty
        end
      end
      -- Nothing beats 0.
      if #names < 32 or least == 0 then
        break
      end
      from = from + 32
      names = redis.call('ZRANGE', idle_key, from, from + 31)
    end
    return best, least
  end

  -- Whether a list of customers has this one; nil: there is no list.
  local function listed(list)
    if not customer or not list or list == '' then
      return nil
    end
    for _, name in ipairs(cjson.decode(list)) do
      if name == customer then
        return true
      end
    end
    return false
  end

  local silent, is_refused
  while unfit_count < UNFIT_MAX do
    local best, penalty = find()
    if not best or (silent and penalty > silent.penalty) then
      break
    end
    local said = redis.call('HMGET', prefix .. 'worker:' .. best .. ':claim', 'free', 'allow', 'deny', 'token', 'terms',
      'room', 'handed')
    local free, allow, deny = unpack(said, 1, 3)
    -- Whether it could begin the job now: it said so when it claimed last. A worker that could not would be woken in vain,
    -- and the one that could would not be woken.
    local refuses = listed(allow) == false or listed(deny)
    if refuses or (free and not string.find(free, service, 1, true)) then
      unfit[best], unfit_count = true, unfit_count + 1
      is_refused = is_refused or refuses
    elseif not alive(best, now) then
      redis.call('ZREM', idle_key, best)
    elseif owes_its_word(said[7]) then
      silent = silent or { worker = best, penalty = penalty, said = said }
      unfit[best], unfit_count = true, unfit_count + 1
    else
      return best, penalty, said, false
    end
  end
  if silent then
    return silent.worker, silent.penalty, silent.said, true
  end
  return nil, is_refused
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
