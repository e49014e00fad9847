-- Takes room for one request in every scope, or in none.
-- KEYS: of each scope its counts (a hash) and its answers under way (a sorted set by the time their lease ends).
-- ARGV: lease, its milliseconds, tokens; then of each scope requests and tokens a minute, tokens a day, answers at
-- once, where 0 is no limit.
-- Returns 1 or 0, the time in milliseconds, then of each scope requests used and the wait for room, the same for tokens
-- of the minute and of the day, and answers under way. A wait of -1 has no end: the request is larger than the limit.
--
-- Counts are kept by steps of 5 seconds, and of an hour for days. A step counts until its last moment has left the
-- window, so that no window of any position ever holds more than the limit.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local lease, lease_ms, tokens = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local WINDOW = {r = 60000, t = 60000, d = 86400000}
local STEP = {r = 5000, t = 5000, d = 3600000}

local function read(key)
  local steps, stale = {r = {}, t = {}, d = {}}, {}
  local flat = redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    local kind, step = string.sub(flat[i], 1, 1), tonumber(string.sub(flat[i], 2))
    local leaves = (step + 1) * STEP[kind] + WINDOW[kind]
    if leaves <= now then
      table.insert(stale, flat[i])
    else
      table.insert(steps[kind], {leaves, tonumber(flat[i + 1])})
    end
  end
  if #stale > 0 then redis.call('HDEL', key, unpack(stale)) end
  return steps
end

local function judge(steps, amount, limit)
  local used = 0
  for _, step in ipairs(steps) do used = used + step[2] end
  if limit == 0 or used + amount <= limit then return used, 0 end
  table.sort(steps, function(a, b) return a[1] < b[1] end)
  local left = used
  for _, step in ipairs(steps) do
    left = left - step[2]
    if left + amount <= limit then return used, step[1] - now end
  end
  return used, -1
end

local granted, answer = 1, {0, now}
for i = 1, #KEYS / 2 do
  local at = 3 + (i - 1) * 4
  local steps = read(KEYS[2 * i - 1])
  for position, kind in ipairs({'r', 't', 'd'}) do
    local used, wait = judge(steps[kind], kind == 'r' and 1 or tokens, tonumber(ARGV[at + position]))
    if wait ~= 0 then granted = 0 end
    table.insert(answer, used)
    table.insert(answer, wait)
  end
  local streams, most = 0, tonumber(ARGV[at + 4])
  if most > 0 then
    redis.call('ZREMRANGEBYSCORE', KEYS[2 * i], '-inf', now)
    streams = redis.call('ZCARD', KEYS[2 * i])
    if streams >= most then granted = 0 end
  end
  table.insert(answer, streams)
end
answer[1] = granted
if granted == 0 then return answer end

for i = 1, #KEYS / 2 do
  local at, counts, leases = 3 + (i - 1) * 4, KEYS[2 * i - 1], KEYS[2 * i]
  local expiry = 0
  for position, kind in ipairs({'r', 't', 'd'}) do
    if tonumber(ARGV[at + position]) > 0 then
      redis.call('HINCRBY', counts, kind .. math.floor(now / STEP[kind]), kind == 'r' and 1 or tokens)
      expiry = math.max(expiry, WINDOW[kind] + STEP[kind])
    end
  end
  if expiry > 0 then redis.call('PEXPIRE', counts, expiry, 'GT'); redis.call('PEXPIRE', counts, expiry, 'NX') end
  if tonumber(ARGV[at + 4]) > 0 then
    redis.call('ZADD', leases, now + lease_ms, lease)
    redis.call('PEXPIRE', leases, lease_ms)
  end
end
return answer
