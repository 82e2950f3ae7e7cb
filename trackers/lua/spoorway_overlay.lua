--[[ A tracker's status -> a line on the screen, for love.draw(). Beside spoorway.lua.

	local overlay = require("spoorway_overlay")
	function love.draw() overlay(tracker, 8, 8) end ]]
local REASONS = { "missing", "invalid", "large", "full", "storage", "refused", "damaged" }

return function(tracker, x, y)
	local status, lost = tracker:status(), 0
	for i = 1, #REASONS do lost = lost + (status.dropped[REASONS[i]] or 0) end
	love.graphics.print(string.format("spoorway: %d queued, %d sent, %d failed, %d dropped", status.queued, status.sent, status.failed, lost), x or 8, y or 8)
end
