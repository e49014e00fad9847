-- Ends one request: its lease is given back, and its tokens are counted as they were and not as they were foreseen.
-- KEYS: as in take.lua. ARGV: lease, the time it was taken in milliseconds, tokens foreseen, tokens used; then of each
-- scope whether tokens of the minute and of the day are counted, 0 or more.
--
-- Tokens too many leave the step they were counted in, if it still counts; tokens too few are counted now.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local lease, taken, more = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[4]) - tonumber(ARGV[3])
local STEP = {t = 5000, d = 3600000}
local KEPT = {t = 65000, d = 90000000}
for i = 1, #KEYS / 2 do
  local counts = KEYS[2 * i - 1]
  for position, kind in ipairs({'t', 'd'}) do
    if tonumber(ARGV[4 + (i - 1) * 2 + position]) > 0 then
      local field = kind .. math.floor((more < 0 and taken or now) / STEP[kind])
      if more > 0 or redis.call('HEXISTS', counts, field) == 1 then
        redis.call('HINCRBY', counts, field, more)
        redis.call('PEXPIRE', counts, KEPT[kind], 'GT')
        redis.call('PEXPIRE', counts, KEPT[kind], 'NX')
      end
    end
  end
  redis.call('ZREM', KEYS[2 * i], lease)
end
