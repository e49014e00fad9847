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

local function unescaped(text)
  return (string.gsub(text, "%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function quoted(text)
  local safe = string.gsub(text, '[%c"\\]', function(char) return string.format("\\u%04x", string.byte(char)) end)
  return '"' .. safe .. '"'
end

-- For errors that never reached our own code, such as a message over gRPC's size limit.
local function body_from_status(status, message)
  local shape = SHAPES[status] or { "server_error", "internal_error" }
  return string.format('{"error":{"message":%s,"type":"%s","param":null,"code":"%s"}}',
    quoted(unescaped(message)), shape[1], shape[2])
end

function envoy_on_response(handle)
  local headers = handle:headers()
  if string.sub(headers:get("content-type") or "", 1, 16) == "application/grpc" then return end
  local rpc_status, message = headers:get("grpc-status"), headers:get("grpc-message")
  local body = headers:get("x-openai-error")
  if not body and rpc_status and rpc_status ~= "0" then
    body = body_from_status(headers:get(":status"), message or "")
  end
  for _, name in ipairs({ "grpc-status", "grpc-message", "grpc-status-details-bin", "x-openai-error" }) do
    headers:remove(name)
  end
  if body then
    headers:replace("content-type", "application/json")
    handle:body(true):setBytes(body)
  end
end
