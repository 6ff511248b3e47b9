--- The lanes that have jobs and that a worker serves, by rank: first turn + penalty. Found without looking at every lane.
--- keys: heads
--- argv: prefix worker

local LOOK_MIN = 4
local LOOK_MAX = 1024
local WARMER_MAX = 32
-- A lane that is looked at by turn, whoever serves it, costs as much as so many lanes of an intersection.
local LOOK_COSTS = 4
-- Sets that are not larger Redis keeps as lists: it finds an entry by passing those before it. So many of these cost as
-- much as one that is handed over.
local LIST_MAX = 128
local PASSED_PER_ENTRY = 10

local served = prefix .. 'worker:' .. worker .. ':lanes'
-- The first lane by turn, if it is served, and its turn, once it was looked at.
local first_lane, first_turn

local function lane_of(lane, turn, penalty_ms)
  local penalty_us = penalty_ms * 1000
  return {
    lane = lane, service = string.match(lane, '^[^@]+'), penalty_us = penalty_us, turn = turn, rank = turn + penalty_us,
  }
end

-- Gives what finds the best lane past the first one. These functions are made only for claims that need them.
local function search(most)
  -- A heap: none has a smaller rank than the one at half its place. One that is no longer usable leaves it for good.
  local lanes_found = {}
  local known, all_seen = {}, false
  local first_window = math.min(most, LOOK_MIN)
  -- How many lanes were looked at, and the turn (by rank: the rank) of the last one.
  local looked_at, seen_to, window = 0, nil, first_window
  -- All lanes that are served and have jobs, by rank, once they were asked for.
  local by_rank
  -- No lane that was not found yet has a smaller penalty; nil: this was not looked at.
  local least_penalty_us
  local served_count

  if first_turn then
    looked_at, seen_to, window = 1, tonumber(first_turn), LOOK_MIN
  end
  if first_lane then
    lanes_found[1], known[first_lane.lane] = first_lane, true
  end

  local function add_lane(lane, turn, penalty_ms)
    if known[lane] then
      return
    end
    known[lane] = true
    local added, at = lane_of(lane, turn, penalty_ms), #lanes_found + 1
    while at > 1 do
      local above = math.floor(at / 2)
      if lanes_found[above].rank <= added.rank then
        break
      end
      lanes_found[at] = lanes_found[above]
      at = above
    end
    lanes_found[at] = added
  end

  -- Moves a lane down to where its rank belongs.
  local function settle(at)
    local moved = lanes_found[at]
    while true do
      local below = 2 * at
      local smaller, right = lanes_found[below], lanes_found[below + 1]
      if right and right.rank < smaller.rank then
        below, smaller = below + 1, right
      end
      if not smaller or moved.rank <= smaller.rank then
        break
      end
      lanes_found[at] = smaller
      at = below
    end
    lanes_found[at] = moved
  end

  local function remove(at)
    local last = table.remove(lanes_found)
    if lanes_found[at] then
      lanes_found[at] = last
      settle(at)
    end
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

  -- Redis intersects the two sets by the smaller one. Two lists it would pass through for each entry; where all penalties
  -- are 0, the order of the turns is that of the ranks, and each list is read once.
  local function intersection()
    local count = redis.call('ZCARD', heads_key)
    if math.max(count, served_count) > LIST_MAX or count * served_count < PASSED_PER_ENTRY * (count + served_count)
      or redis.call('ZRANGE', served, '-1', '-1', 'WITHSCORES')[2] ~= '0' then
      return redis.call('ZINTER', '2', heads_key, served, 'WEIGHTS', '1', '1000')
    end
    local is_served, lanes = {}, {}
    for _, lane in ipairs(redis.call('ZRANGE', served, '0', '-1')) do
      is_served[lane] = true
    end
    for _, lane in ipairs(redis.call('ZRANGE', heads_key, '0', '-1')) do
      if is_served[lane] then
        lanes[#lanes + 1] = lane
      end
    end
    return lanes
  end

  -- The next lanes of this worker by rank.
  local function look_by_rank()
    if not by_rank then
      by_rank = intersection()
      looked_at, window, least_penalty_us = 0, first_window, 0
    end
    for i = looked_at + 1, math.min(looked_at + window, #by_rank) do
      local lane = by_rank[i]
      local turn, penalty_ms = redis.call('ZSCORE', heads_key, lane), redis.call('ZSCORE', served, lane)
      add_lane(lane, turn, penalty_ms)
      seen_to = turn + penalty_ms * 1000
    end
    all_seen = looked_at + window >= #by_rank
  end

  local function look_further()
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

  -- The lanes of this worker with smaller penalties than that of the best one so far: only those may be better and later.
  local function look_at_warmer(best)
    local warmer =
      redis.call('ZRANGE', served, '-inf', '(' .. best.penalty_us / 1000, 'BYSCORE', 'LIMIT', 0, WARMER_MAX, 'WITHSCORES')
    for i = 1, #warmer, 2 do
      local turn = redis.call('ZSCORE', heads_key, warmer[i])
      if turn then
        add_lane(warmer[i], turn, warmer[i + 1])
      end
    end
    least_penalty_us = #warmer == 2 * WARMER_MAX and warmer[#warmer] * 1000 or best.penalty_us
  end

  return function(usable)
    -- Of those found, only the one that was the best the last time may have another rank since.
    if lanes_found[1] then
      settle(1)
    end
    while true do
      -- The second best is one of the two after the best.
      for at = 1, 3 do
        while lanes_found[at] and not usable(lanes_found[at]) do
          remove(at)
        end
      end
      local best, second, third = lanes_found[1], lanes_found[2], lanes_found[3]
      second = second and math.min(second.rank, third and third.rank or second.rank)
      if all_seen then
        return best, second
      end
      if best and best.penalty_us > 0 and not least_penalty_us then
        look_at_warmer(best)
      elseif best then
        -- No lane that was not found yet has a better rank than this.
        local bound = best.penalty_us > 0 and seen_to + least_penalty_us or seen_to
        if best.rank <= bound then
          return best, math.min(second or bound, bound)
        end
        look_further()
      else
        look_further()
      end
    end
  end
end

local searched

-- The best lane that is usable, and the rank at which another one would be better (nil: there is no other).
-- usable: once it says no to a lane, it stays no. Between two calls only the lane that was given may get another rank.
-- most: how many jobs are to be found yet.
local function best_lane(usable, most)
  if not searched and not first_turn and most == 1 then
    -- For one job the first lane by turn is enough, as a rule.
    local head = redis.call('ZRANGE', heads_key, '0', '0', 'WITHSCORES')
    local penalty_ms = head[1] and redis.call('ZSCORE', served, head[1])
    first_turn = head[2]
    if penalty_ms then
      first_lane = lane_of(head[1], first_turn, penalty_ms)
      if penalty_ms == '0' and usable(first_lane) then
        return first_lane, first_lane.rank
      end
    elseif not first_turn then
      return nil
    end
  end
  searched = searched or search(most)
  return searched(usable)
end
