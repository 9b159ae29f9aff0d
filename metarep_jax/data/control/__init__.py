"""Control: reinforcement learning's environments as pure functions."""
