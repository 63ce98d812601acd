-- The requests of bench/load.py, in turn, and the figures as one line of JSON.
-- Each argument is a file with one complete HTTP request.
local requests = {}
local turn = 0

function init(args)
  for _, name in ipairs(args) do
    local file = assert(io.open(name, "rb"))
    table.insert(requests, file:read("*a"))
    file:close()
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"seconds":%.6f,"p50_ms":%.4f,"p99_ms":%.4f,"refused":%d,"broken":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
