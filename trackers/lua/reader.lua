--[[ The head of the packed builds: the packed text in it -> the module, unpacked and compiled when something of it is first asked for, which
is spoorway.new. pack.py puts the texts in and shortens the rest. Needs `load` or `loadstring`; where string.dump is, lets go of what only a
debugger reads. ]]
local text, pairings, name = "TEXT", "PAIRS", ...
local compile = rawget(_G, "loadstring") or load
if not (compile and compile("return")) then error("a packed build of spoorway needs load: take spoorway.min.lua", 0) end -- Solar2D's gives nil

-- Bytecode of 5.1 and 5.2, whose string.dump leaves nothing out -> the same without lines and names of locals; any other comes back as it is.
local function stripped(code)
	local byte, sub = string.byte, string.sub
	local word, old, from, out = byte(code, 9), sub(code, 5, 5) == "Q", 1, ""
	if sub(code, 1, 12) ~= "\27Lua" .. (old and "Q" or "R") .. "\0\1\4" .. string.char(word) .. "\4\8\0" then return code end
	local at = old and 13 or 19

	local function skip(n) at = at + n end
	local function number() -- of things that are there: of more only where this is not how the host writes bytecode
		local a, b, c, d = byte(code, at, at + 3)
		local n = ((d * 256 + c) * 256 + b) * 256 + a
		skip(4)
		return n > #code and error() or n
	end
	local function skip_text() skip(number() + word - 4) end -- a length is `word` bytes
	local function walk()
		if old then skip_text() end
		skip(old and 12 or 11)
		skip(4 * number()) -- instructions
		for _ = 1, number() do -- constants
			local kind = byte(code, at)
			skip(kind == 3 and 9 or kind == 1 and 2 or 1)
			if kind == 4 then skip_text() end
		end
		for _ = 1, number() do walk() end
		if not old then
			skip(2 * number()) -- where its upvalues are
			skip_text()
		end
		out = out .. sub(code, from, at - 1) .. ("\0"):rep(12)
		skip(4 * number()) -- lines
		for _ = 1, number() do
			skip_text()
			skip(8)
		end
		for _ = 1, number() do skip_text() end
		from = at
	end
	walk()
	return at == #code + 1 and out or code
end

return setmetatable({}, { __index = function(module, field)
	local gsub, coded, pair = string.gsub, "[\1-\8\14-\31\128-\255]", {}
	gsub(pairings, "(.)(..)", function(one, two) pair[one] = gsub(two, coded, pair) end) -- of earlier ones, if of any
	local program = assert(compile((gsub(text, coded, pair)), "=spoorway"))
	local _, small = pcall(function() return compile(stripped(string.dump(program, true)), "=spoorway") end)
	local whole = (type(small) == "function" and small or program)(name)
	getmetatable(module).__index = whole -- and the texts are let go of
	return whole[field]
end })
