-- Without a screen (SPOORWAY_SCRIPT is set) the game plays itself: no window, no sound.
function love.conf(t)
	t.identity = "duck-hunt"
	t.version = "11.4"
	t.window.title = "Duck Hunt"
	t.window.width, t.window.height = 480, 320
	local headless = os.getenv("SPOORWAY_SCRIPT") ~= nil
	t.modules.window, t.modules.graphics, t.modules.audio = not headless, not headless, not headless
	t.modules.joystick, t.modules.physics, t.modules.sound = false, false, false
end
