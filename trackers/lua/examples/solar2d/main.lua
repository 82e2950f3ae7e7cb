-- Solar2D: spoorway.lua and spoorway_solar2d.lua lie beside this main.lua; build.settings asks for android.permission.INTERNET.
local spoorway = require("spoorway")

local tracker = assert(spoorway.new({
	url = "https://events.example.com", app_id = "duck-hunt", transport = require("spoorway_solar2d"),
	on_error = function(code, detail) print("spoorway", code, detail) end,
}))

local last = system.getTimer()
Runtime:addEventListener("enterFrame", function(event)
	tracker:update((event.time - last) / 1000)
	last = event.time
end)

Runtime:addEventListener("system", function(event)
	if event.type == "applicationStart" or event.type == "applicationResume" then
		tracker:track_session_start()
	elseif event.type == "applicationSuspend" or event.type == "applicationExit" then
		tracker:track_session_end({ reason = event.type })
		tracker:flush(0) -- hands over what it can; the rest is in the documents directory
	end
end)

tracker:track_level_start("meadow")
