-- wrk's side of a load: sends the request in the file args[1] (a raw HTTP request), with args[2] and a running number in place
-- of every "@@@@@@@@@@@@", so that no two events of a run have the same id. Prints what happened as one line of JSON.
local number, head, text, unique = 0, nil, nil, false

function init(args)
  local file = assert(io.open(args[1], "rb"))
  local raw = file:read("*a")
  file:close()
  head = args[2]
  local first, rest = raw:match("^(.-)\r\n(.*)$")
  local method, path = first:match("^(%S+) (%S+)")
  local lines, body = rest:match("^(.-)\r\n\r\n(.*)$")
  for line in (lines .. "\r\n"):gmatch("(.-)\r\n") do
    local name, value = line:match("^(.-): (.*)$")
    if name then wrk.headers[name] = value end
  end
  text = wrk.format(method, path, wrk.headers, #body > 0 and body or nil)
  unique = text:find("@@@@@@@@@@@@", 1, true) ~= nil
end

function request()
  if not unique then return text end
  number = number + 1
  return (text:gsub("@@@@@@@@@@@@", string.format("%s%08x", head, number)))
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format('\n{"requests":%d,"microseconds":%d,"p50":%.0f,"p99":%.0f,"longest":%.0f,"errors":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    e.connect + e.read + e.write + e.status + e.timeout))
end
