-- How leases are planned and taken, renewed and released. Mirrors plan.rs. See apply.lua for what a plan is.
return {
  plan = function(step)
    local action = step.action
    local is_acquired, is_renewed = action == ACQUIRE, action == RENEW
    if is_acquired and state_in(step.record, RECORDS) then
      -- It was released.
      return CONFLICT
    end
    local stored = view_of(step)
    local held = stored and step.algorithm.find(stored, step.lease, now)
    step.held = held
    if not is_acquired and not is_renewed then
      step.does = 'release'
    elseif held and (is_renewed or held.cost == step.cost) then
      step.does, step.replay = 'renew', is_acquired and REPLAY_HELD or nil
    elseif held then
      return CONFLICT
    elseif is_renewed then
      return EXPIRED
    else
      step.does, step.asks, step.takes, step.amount = 'acquire', step.cost, true, step.cost
    end
  end,
  execute = function(step)
    if step.does == 'done' then
      return step.found.charged, step.found.at, step.found.number
    end
    local amount, at, number = change(step, step)
    if step.does == 'release' then
      make(RECORDS).bury(step)
    end
    return amount, at, number
  end,
  -- What an operation's step was, and its lease still is; or why it must not be admitted again.
  plan_again = function(step, charge)
    if step.action ~= ACQUIRE then
      return make(RECORDS).done(step, charge, REPLAY_DONE)
    end
    local stored = view_of(step)
    if not (stored and step.algorithm.find(stored, step.lease, now)) then
      return EXPIRED
    end
    return make(RECORDS).done(step, charge, REPLAY_HELD)
  end,
}
