--- A worker's heartbeat: renews the leases that it names, and takes their progress.
--- include: clock
--- keys: workers active lanes_version keeper
--- argv: prefix worker session lease_us count
--- rest: per lease: id token progress message service_job_id text text_at ('' where nothing changed; text_at in bytes)
--- returns: {code, now, lanes version, whether nobody keeps house, then per lease: 1 renewed, 2 renewed and to be cancelled, -1 lost}
--- codes: 1 done, 0 the worker is not registered under this session

-- What a job has put out so far is kept for those who begin to follow it, up to this many bytes.
local TEXT_MAX = 1048576
local TEXT_MS = 600000

-- So many leases are written in one go.
local AT_ONCE = 1000

local now = clock()
local mine = prefix .. 'worker:' .. worker
local known = redis.call('GET', mine .. ':heartbeat') == session
local ttl_ms = us(tonumber(lease_us) / 1000)
local ends = us(now + tonumber(lease_us))
local reply = {
  known and 1 or 0, us(now), redis.call('GET', lanes_version_key) or '0', 1 - redis.call('EXISTS', keeper_key),
}
if known then
  redis.call('PEXPIRE', mine .. ':heartbeat', ttl_ms)
  redis.call('ZADD', workers_key, ends, worker)
  local state_ms = us(2 * tonumber(lease_us) / 1000 + 60000)
  -- Its lanes do not expire: whoever finds it dead takes it out of each of them.
  for _, part in ipairs({ ':capabilities', ':claim' }) do
    redis.call('PEXPIRE', mine .. part, state_ms)
  end
end

local at, renewed = rest, {}
for i = 1, tonumber(count) do
  local id, token, progress, message, service_job_id, text, text_at = unpack(ARGV, at, at + 6)
  local job = prefix .. 'jobs:' .. id
  local f = redis.call('HMGET', job, 'status', 'token', 'cancel_requested', 'watched')
  if f[1] ~= 'active' or f[2] ~= token then
    reply[4 + i] = -1
  else
    renewed[#renewed + 1] = ends
    renewed[#renewed + 1] = id
    if progress ~= '' then
      redis.call('HSET', job, 'progress', progress)
      if message ~= '' then
        redis.call('HSET', job, 'message', message)
      end
      if f[4] then
        local told = message ~= '' and (',"message":' .. cjson.encode(message)) or ''
        redis.call('PUBLISH', prefix .. 'events:' .. id,
          '{"event":"progress","job":"' .. id .. '","at":' .. us(now) .. ',"progress":' .. progress .. told .. '}')
      end
    end
    if text ~= '' then
      local kept = job .. ':text'
      -- What comes again, also with more behind it, is written where it stands already. What would leave a gap is not.
      if tonumber(text_at) + #text <= TEXT_MAX then
        if text_at == '0' then
          redis.call('SET', kept, text, 'PX', TEXT_MS)
        elseif redis.call('STRLEN', kept) >= tonumber(text_at) then
          redis.call('SETRANGE', kept, text_at, text)
          redis.call('PEXPIRE', kept, TEXT_MS)
        end
      end
      if f[4] then
        redis.call('PUBLISH', prefix .. 'events:' .. id,
          '{"event":"text","job":"' .. id .. '","at":' .. us(now) .. ',"offset":' .. text_at .. ',"text":' .. cjson.encode(text) .. '}')
      end
    end
    if service_job_id ~= '' then
      redis.call('HSET', job, 'service_job_id', service_job_id)
    end
    reply[4 + i] = f[3] and 2 or 1
  end
  at = at + 7
end
-- Lua hands over only some thousands of values at once.
for from = 1, #renewed, 2 * AT_ONCE do
  redis.call('ZADD', active_key, unpack(renewed, from, math.min(from + 2 * AT_ONCE - 1, #renewed)))
end

return reply
