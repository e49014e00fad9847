-- Turns the claims of a verified token of a foreign issuer into who is calling. ISSUERS stands above: of each issuer
-- the rules of its file. What a rule does not grant nobody has, whatever else the token says.
local function at(claims, path)
  for _, name in ipairs(path) do
    if type(claims) ~= 'table' then return nil end
    claims = claims[name]
  end
  return claims
end

local function among(value, wanted)
  if type(value) ~= 'table' then return value == wanted end
  for _, each in ipairs(value) do
    if each == wanted then return true end
  end
  return false
end

local function spoken(value, wanted)
  if type(value) == 'string' then
    for word in string.gmatch(value, '%S+') do
      if word == wanted then return true end
    end
    return false
  end
  return among(value, wanted)
end

local function any(value, wanted)
  if #wanted == 0 then return true end
  for _, each in ipairs(wanted) do
    if among(value, each) then return true end
  end
  return false
end

local function holds(rule, claims)
  if #rule.claim > 0 then
    local is = (rule.claim[1] == 'scope' or rule.claim[1] == 'scp') and spoken or among
    if not is(at(claims, rule.claim), rule.value) then return false end
  end
  return any(claims.acr, rule.acr) and any(claims.amr, rule.amr)
end

local function tenant_of(issuer, claims)
  for _, rule in ipairs(issuer.tenants) do
    if holds(rule, claims) then return rule.tenant end
  end
end

local function roles_of(issuer, claims)
  local roles = {}
  for _, rule in ipairs(issuer.roles) do
    if holds(rule, claims) and not among(roles, rule.role) then table.insert(roles, rule.role) end
  end
  return table.concat(roles, ' ')
end

local function admit(handle, name, issuer, claims)
  local tenant, user = tenant_of(issuer, claims), claims[issuer.user_claim]
  if type(user) ~= 'string' or #user > 128 or not string.match(user, '^[%w@._|:+-]+$') then
    return handle:respond({[':status'] = '403'}, 'This token names no user.')
  end
  if not tenant then
    return handle:respond({[':status'] = '403'}, 'This token belongs to no tenant here.')
  end
  local headers, caller = handle:headers(), name .. ':' .. user
  headers:replace('x-llmmesh-tenant', tenant)
  headers:replace('x-llmmesh-key', caller)
  headers:replace('x-llmmesh-user', caller)
  headers:replace('x-llmmesh-roles', roles_of(issuer, claims))
end

function envoy_on_request(handle)
  local verified = handle:streamInfo():dynamicMetadata():get('envoy.filters.http.jwt_authn')
  for name, issuer in pairs(verified and ISSUERS or {}) do
    if verified[name] then return admit(handle, name, issuer, verified[name]) end
  end
end
