"""The operator's loop: what the cluster declares and holds -> one tick for all policies -> effects.

Read `turn` first: one turn is collect, decide, act, report. `roster` says which policies are in force,
`collect` makes the observation, `effects` writes.
"""
