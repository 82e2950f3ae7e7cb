--[[ Solar2D's network.request -> a transport; the queue in system.DocumentsDirectory through io. Beside spoorway.lua.

	spoorway.new { url = URL, app_id = "duck-hunt", transport = require("spoorway_solar2d") }

No call blocks; flush() and close() cannot wait for an answer here. ]]
local M = { https = true }
local network, system = rawget(_G, "network"), rawget(_G, "system")

function M.transport(_, options)
	return function(request, done)
		local function listener(event)
			if event.isError then
				done(nil)
			elseif event.phase == nil or event.phase == "ended" then
				done(event.status, event.responseHeaders)
			end
		end
		network.request(request.url, "POST", listener, { headers = request.headers, body = request.body, timeout = options.timeout })
	end
end

function M.storage(_, spoorway)
	return spoorway.storage.io((string.gsub(system.pathForFile("", system.DocumentsDirectory), "[/\\]$", "")))
end

return M
