--- The lanes that have jobs and that a worker serves, by rank: first turn + penalty. Found without looking at every lane.
--- keys: heads
--- argv: prefix worker

local LOOK_MIN, LOOK_MAX = 4, 1024
-- A lane that is looked at by turn, whoever serves it, costs as much as so many lanes of an intersection.
local LOOK_COSTS = 4

local served = prefix .. 'worker:' .. worker .. ':lanes'
local lanes_found, all_seen = {}, false
-- How many lanes were looked at, and the turn (by rank: the rank) of the last one.
local looked_at, seen_to = 0, nil
-- All lanes that are served and have jobs, by rank, once they were asked for; and those of them that were found before.
local by_rank, known = nil, {}
local first_window, window, served_count, least_penalty_us

local function add_lane(lane, turn, penalty_ms)
  local penalty_us = penalty_ms * 1000
  lanes_found[#lanes_found + 1] = {
    lane = lane, service = string.match(lane, '^[^@]+'), penalty_us = penalty_us, rank = turn + penalty_us,
  }
end

-- The next lanes by turn, whoever serves them: enough for a worker that serves lanes at the head.
local function look_by_turn()
  local heads = redis.call('ZRANGE', heads_key, looked_at, looked_at + window - 1, 'WITHSCORES')
  for i = 1, #heads, 2 do
    local penalty_ms = redis.call('ZSCORE', served, heads[i])
    if penalty_ms then
      add_lane(heads[i], heads[i + 1], penalty_ms)
    end
  end
  seen_to = tonumber(heads[#heads])
  all_seen = #heads < 2 * window
end

-- The next lanes of this worker by rank. Redis intersects the two sets by the smaller one.
local function look_by_rank()
  if not by_rank then
    by_rank = redis.call('ZINTER', '2', heads_key, served, 'WEIGHTS', '1', '1000')
    looked_at, window, least_penalty_us = 0, first_window, 0
    for _, found in ipairs(lanes_found) do
      known[found.lane] = true
    end
  end
  for i = looked_at + 1, math.min(looked_at + window, #by_rank) do
    local lane = by_rank[i]
    local turn, penalty_ms = redis.call('ZSCORE', heads_key, lane), redis.call('ZSCORE', served, lane)
    if not known[lane] then
      add_lane(lane, turn, penalty_ms)
    end
    seen_to = turn + penalty_ms * 1000
  end
  all_seen = looked_at + window >= #by_rank
end

-- The best lane that is usable, and the rank at which another one would be better (nil: there is no other).
-- most: how many jobs are to be found yet.
local function best_lane(usable, most)
  -- For one job the first lane is enough, as a rule.
  first_window = first_window or math.min(most, LOOK_MIN)
  window = window or first_window
  while true do
    local best, second
    for _, found in ipairs(lanes_found) do
      if usable(found) then
        if not best or found.rank < best.rank then
          best, second = found, best and best.rank
        elseif not second or found.rank < second then
          second = found.rank
        end
      end
    end
    if all_seen then
      return best, second
    end
    if best then
      -- No lane that was not found yet has a better rank than this.
      local bound = seen_to
      if best.penalty_us > 0 then
        least_penalty_us = least_penalty_us or redis.call('ZRANGE', served, '0', '0', 'WITHSCORES')[2] * 1000
        bound = bound + least_penalty_us
      end
      if best.rank <= bound then
        return best, math.min(second or bound, bound)
      end
    end
    if looked_at > 0 and not served_count then
      served_count = redis.call('ZCARD', served)
    end
    if by_rank or (looked_at > 0 and (looked_at + window) * LOOK_COSTS > served_count) then
      look_by_rank()
    else
      look_by_turn()
    end
    looked_at, window = looked_at + window, math.min(4 * window, LOOK_MAX)
  end
end
