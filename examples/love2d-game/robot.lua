--[[ Plays by script, for the test: SPOORWAY_SCRIPT is the number of frames. Says on standard output what it tracked, and what came of it. ]]
local M = {}

function M.new(_, tracker, go_on, buy)
	local frames, frame = tonumber(os.getenv("SPOORWAY_SCRIPT")), 0
	for name in ("session_start session_end level_start level_end economy screen_view"):gmatch("%S+") do
		local verb = tracker["track_" .. name]
		tracker["track_" .. name] = function(...) -- every id that a verb gave is printed before anything else happens
			local id, why = verb(...)
			print("tracked", id, why)
			return id, why
		end
	end
	io.stdout:setvbuf("line")
	print("start", tracker:status().queued)
	local slowest = 0
	return function(play)
		frame = frame + 1
		local began = love.timer.getTime()
		tracker:update(0)
		slowest = math.max(slowest, love.timer.getTime() - began)
		if frame == frames then
			print("slowest", slowest * 1000)
			love.event.quit(0)
		end
		if play.screen == "shop" then buy() end
		if play.screen ~= "level" then go_on() end
		local duck = play.ducks and play.ducks[1] or { x = 0, y = 0 }
		if play.attempt == 1 and play.level == 2 then duck = play.owl end -- somebody has to die
		local dx, dy = duck.x - play.x, duck.y - play.y
		local far = math.max(1, math.sqrt(dx * dx + dy * dy))
		return dx / far, dy / far, 1 / 30
	end
end

return M
