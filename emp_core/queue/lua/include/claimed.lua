--- What a claim gives: how the attempt of each job begins, and the reply that has the jobs whole.
--- keys: pending active customers_active
--- argv: prefix worker machine token lease_us

local given, given_bytes = {}, 0
local begun, begun_by_customer, ghosts = {}, {}, 0
local claimed_by = ',"status":"active","worker":' .. cjson.encode(worker) .. ',"machine":' .. cjson.encode(machine) .. ',"attempt":'

-- attempt: of a job whose hash is as it was before this call; '': it is as it is now.
local function give(id, hash, attempt)
  local payload = redis.call('GET', prefix .. 'jobs:' .. id .. ':payload') or 'null'
  given[#given + 1] = { id, hash, payload, attempt }
  given_bytes = given_bytes + #payload
end

-- Begins an attempt, unless the job is a ghost: it was deleted, or an aborted script left it in the line.
local function begin(id, customer, now)
  local job = prefix .. 'jobs:' .. id
  local hash = redis.call('HGETALL', job)
  local f = { status = false, attempt = false, progress = false, pending_at = false, created_at = false, watched = false }
  for i = 1, #hash, 2 do
    if f[hash[i]] ~= nil then
      f[hash[i]] = hash[i + 1]
    end
  end
  if f.status ~= 'pending' then
    ghosts = ghosts + redis.call('ZREM', pending_key, id)
    if #hash == 0 then
      redis.call('UNLINK', job .. ':payload', job .. ':events')
    end
    return false
  end
  local attempt, started_at = string.format('%d', (f.attempt or 0) + 1), us(now)
  redis.call('HSET', job, 'status', 'active', 'worker_id', worker, 'machine_id', machine, 'token', token,
    'attempt', attempt, 'started_at', started_at)
  if f.progress then
    redis.call('HDEL', job, 'progress', 'message')
    hash = redis.call('HGETALL', job)
  end
  begun[#begun + 1] = id
  -- Jobs of nobody have no cap.
  if customer ~= '' then
    begun_by_customer[customer] = (begun_by_customer[customer] or 0) + 1
  end
  emit(id, 'claimed', now, claimed_by .. attempt .. ',"waited_us":' .. us(now - (f.pending_at or f.created_at or now)), f.watched)
  give(id, hash, attempt)
  return true
end

-- Writes each index once.
local function write_begun(now)
  if #begun == 0 then
    return
  end
  redis.call('ZREM', pending_key, unpack(begun))
  local leases, ends = {}, us(now + lease_us)
  for _, id in ipairs(begun) do
    leases[#leases + 1] = ends
    leases[#leases + 1] = id
  end
  redis.call('ZADD', active_key, unpack(leases))
  for customer, count in pairs(begun_by_customer) do
    redis.call('HINCRBY', customers_active_key, customer, count)
  end
end

local function reply(lanes_version, come_back_us, left, now)
  return { 1, lanes_version or '0', come_back_us, left, given, us(now) }
end
