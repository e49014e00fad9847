-- Turns an error of a transcoded RPC into OpenAI's error body. Native gRPC answers pass untouched.

local SHAPES = {
  ["400"] = { "invalid_request_error", "invalid_value" },
  ["401"] = { "invalid_request_error", "invalid_api_key" },
  ["403"] = { "permission_error", "permission_denied" },
  ["404"] = { "invalid_request_error", "not_found" },
  ["429"] = { "rate_limit_error", "rate_limit_exceeded" },
  ["503"] = { "service_unavailable", "unavailable" },
  ["504"] = { "server_error", "timeout" },
}

local function strip(headers)
  for _, name in ipairs({ "grpc-status", "grpc-message", "grpc-status-details-bin", "x-openai-error" }) do
    headers:remove(name)
  end
end

-- For errors that never reached our own code, such as a message over gRPC's size limit: the transcoder's body,
-- {"code":8,"message":"..."}, said in OpenAI's words. Nil for anything else.
local function reworded(written, status)
  if string.sub(written, 1, 8) ~= '{"code":' then return nil end
  local message = string.match(written, '"message":(".*"),"details":') or string.match(written, '"message":(".*")}$')
  local shape = SHAPES[status] or { "server_error", "internal_error" }
  return string.format('{"error":{"message":%s,"type":"%s","param":null,"code":"%s"}}',
    message or '"The request failed."', shape[1], shape[2])
end

function envoy_on_response(handle)
  local headers = handle:headers()
  if string.sub(headers:get("content-type") or "", 1, 16) == "application/grpc" then return end
  local status = headers:get(":status")
  if tonumber(status) < 400 then return strip(headers) end

  handle:body(true)
  -- An RPC that had sent headers of its own before it failed says why in trailers.
  local source = handle:trailers() or handle:headers()
  local error, retry_after = source:get("x-openai-error"), source:get("retry-after")

  -- Waiting has outdated every object asked for before.
  headers = handle:headers()
  strip(headers)
  if retry_after then headers:replace("retry-after", retry_after) end
  local body = handle:body(true)
  error = error or reworded(body:getBytes(0, body:length()), status)
  if error then
    headers:replace("content-type", "application/json")
    body:setBytes(error)
  end
end
