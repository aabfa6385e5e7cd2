"""Judging a policy from logs alone: it can veto, it cannot approve."""
