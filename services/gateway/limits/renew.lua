-- Renews leases, those too that Redis has lost.
-- KEYS: of each lease the answers under way it is among. ARGV: milliseconds, then the leases.
local time = redis.call('TIME')
local ends = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) + tonumber(ARGV[1])
for i = 1, #KEYS do
  redis.call('ZADD', KEYS[i], ends, ARGV[i + 1])
  redis.call('PEXPIRE', KEYS[i], ARGV[1])
end
