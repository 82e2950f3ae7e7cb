--[[ HTTPS and MQTT over TLS where the host has a library for it: LÖVE 12's `https`, or LuaSec with its parameters in `tls`. Beside spoorway.lua,
which asks for it where a url begins with https: or mqtts:. ]]
local M = {}

function M.check(transport, tls) -- raises an error where there is none
	require(not tls and transport == "love" and "https" or tls and "ssl" or "no library for TLS")
end

function M.wrap(s, where, wait) -- a connection -> one that has shaken hands; nil, and it is closed, where there was no agreement
	s = require("ssl").wrap(s, where.tls)
	s:settimeout(0)
	if s.sni then s:sni(where.host) end
	while true do
		local ok, err = s:dohandshake()
		if ok then return s end
		if err ~= "wantread" and err ~= "wantwrite" or not wait() then s:close() return nil end
	end
end

function M.request(request, done) -- in LÖVE's thread: it waits for the answer
	local _, code, _, headers = pcall(require("https").request, request.url, { method = "post", data = request.body, headers = request.headers })
	done(tonumber(code), headers)
end

return M
