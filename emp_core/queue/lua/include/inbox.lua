--- Messages to workers, and waking the one that can start a job soonest.
--- keys: workers idle
--- argv: prefix

local INBOX_TTL_MS = 60000

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

local function wake_this(worker, now)
  redis.call('ZREM', idle_key, worker)
  if not alive(worker, now) then
    return false
  end
  tell(worker, 'wake')
  return true
end

-- Wakes the idle worker with the smallest penalty for the lane. Scans from the smaller side, in windows.
local function wake(lane, now)
  local serving = prefix .. 'lane:' .. lane .. ':workers'
  while true do
    local idle, able = redis.call('ZCARD', idle_key), redis.call('ZCARD', serving)
    if idle == 0 or able == 0 then
      return false
    end
    local small, large = idle_key, serving
    if able < idle then
      small, large = serving, idle_key
    end
    local best, best_penalty
    for from = 0, redis.call('ZCARD', small) - 1, 32 do
      local window = redis.call('ZRANGE', small, from, from + 31, 'WITHSCORES')
      local names = {}
      for i = 1, #window, 2 do
        names[#names + 1] = window[i]
      end
      local found = redis.call('ZMSCORE', large, unpack(names))
      for i, name in ipairs(names) do
        if found[i] then
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
    if not best then
      return false
    end
    if wake_this(best, now) then
      return true
    end
  end
end
