-- Holds a request back while no wallet can answer it: one of a pair ends, and the other one has not taken over yet. For haproxy-pair.cfg.

-- How long, in milliseconds, and how often it is looked.
local WAIT_MAX, LOOK_EVERY = 10000, 50

local function somebody_serves(request)
    return request.f:nbsrv("ready") > 0 or request.f:nbsrv("listening") > 0
end

core.register_action("wait_for_wallet", { "http-req" }, function(request)
    local waited = 0
    while waited < WAIT_MAX and not somebody_serves(request) do
        core.msleep(LOOK_EVERY)
        waited = waited + LOOK_EVERY
    end
end, 0)
