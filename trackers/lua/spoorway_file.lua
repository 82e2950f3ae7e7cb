--[[ Batches -> lines of a file that the gateway's `file` transport reads, or `spoorway replay --from FILE`. Beside spoorway.lua.

	spoorway.new { transport = require("spoorway_file"), file = "events.ndjson", app_id = "kiosk" }

For machines without a network; the file grows until somebody takes it away. ]]
local M = { anywhere = true, https = true }

function M.transport(_, options)
	return function(request, done)
		local file = io.open(options.file, "ab")
		local line = string.format('{"id":"%s","at":%.0f,"transport":"file","path":"%s","type":"application/json","body":"%s"}\n', request.id, request.at,
			request.path, (string.gsub(request.body, '["\\]', "\\%0"))) -- it has no other bytes that JSON would not have in a text
		local kept = file and file:write(line) and file:flush()
		done(file and file:close() and kept and 200)
	end
end

return M
