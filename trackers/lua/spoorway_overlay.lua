--[[ A tracker's status -> a line on the screen, for love.draw(). Beside spoorway.lua.

	local overlay = require("spoorway_overlay")
	function love.draw() overlay(tracker, 8, 8) end ]]
return function(tracker, x, y)
	local status, lost = tracker:status(), 0
	for _, n in pairs(status.dropped) do lost = lost + n end
	love.graphics.print(string.format("spoorway: %d queued, %d sent, %d failed, %d dropped", status.queued, status.sent, status.failed, lost), x or 8, y or 8)
end
